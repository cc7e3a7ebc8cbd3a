"""Figures of accepting messages: over the yardstick, over the peers, in batches, and in time."""

import load
import subjects
from machine import Failed
from report import Figure, Line, at_least, at_most, ratio, value


class Accepting:
    """Posts to one subject after the other, by wrk."""

    def __init__(self, bench):
        self.bench = bench

    def bare(self, connections, **how):
        def measure():
            with subjects.bare(self.bench.tools.bare) as subject:
                return self.post(subject, connections, **how)

        return measure

    def gateway(self, store, durability, connections, settings=(), **how):
        def measure():
            with subjects.gateway(self.bench.tools.posthaste, store, durability, settings) as subject:
                return self.post(subject, connections, **how)

        return measure

    def peer(self, name, durability, connections):
        def measure():
            with subjects.peer(name, durability) as subject:
                return self.post(subject, connections)

        return measure

    def post(self, subject, connections, **how):
        return load.post(subject, connections, self.bench.seconds, self.bench.warmup, **how)


def over_bare(bench):
    """The gateway over the yardstick by processor time of a message."""
    accepting = Accepting(bench)
    measured, lines = {}, []
    for connections, limit in ((16, 1.9), (64, 1.4), (256, 1.6)):
        yardstick, name = f"bare, {connections} connections", f"posthaste, {connections} connections"
        measured[yardstick] = accepting.bare(connections)
        measured[name] = accepting.gateway("redis", "no fsync", connections)
        label = f"CPU of a message over bare, {connections} connections"
        lines.append(Line(label, "no fsync", ratio("cpu_us", name, yardstick), at_most(limit)))
    name = "posthaste, 64 connections, always"
    measured[name] = accepting.gateway("redis", "always", 64)
    of = ratio("cpu_us", name, "bare, 64 connections")
    lines.append(Line("CPU of a message over bare, 64 connections", "always", of, at_most(1.8)))
    return Figure("accept-redis", "accepting over Redis, one message a POST", measured, lines)


def over_peers(bench):
    """Everything that could be used instead, in one round."""
    accepting = Accepting(bench)
    measured = {
        "bare": accepting.bare(64),
        "posthaste": accepting.gateway("redis", "no fsync", 64),
        "posthaste, SQLite FULL": accepting.gateway("sqlite", "FULL", 64),
    }
    measured.update({name: accepting.peer(name, "no fsync", 64) for name in subjects.PEERS})
    limits = {"webdis": at_least(1.6), "Go+redigo": at_least(3.5), "Fastify+BullMQ": at_least(8)}
    lines = [
        Line(f"requests/s over {name}", "no fsync", ratio("rate_per_s", "posthaste", name), limits.get(name))
        for name in subjects.PEERS
    ]
    others = ["posthaste", "posthaste, SQLite FULL", *subjects.PEERS]
    lines += [
        Line(f"CPU of a message of {name} over bare", "FULL" if "FULL" in name else "no fsync", ratio("cpu_us", name, "bare"))
        for name in others
    ]
    note = "The peers only push onto a list, BullMQ apart: no limits, keys, retries or recovery."
    return Figure("peers", "the same message at 64 connections", measured, lines, note)


def over_sqlite(bench):
    """The embedded store, and what it would be with a commit for each message."""
    accepting = Accepting(bench)
    measured = {
        "bare": accepting.bare(64),
        "posthaste": accepting.gateway("sqlite", "FULL", 64),
        "one commit a message": accepting.gateway("sqlite", "FULL", 64, ["ingest.call_messages_max=1"]),
        "one connection": accepting.gateway("sqlite", "FULL", 1),
    }
    single = ratio("rate_per_s", "posthaste", "one commit a message")
    lines = [
        Line("CPU of a message over bare, 64 connections", "FULL", ratio("cpu_us", "posthaste", "bare"), at_most(1.75)),
        Line("rate over one commit a message, 64 connections", "FULL", single, at_least(8)),
        Line("rate over one connection", "FULL", ratio("rate_per_s", "posthaste", "one connection")),
    ]
    note = "One commit a message: the same gateway and load with `ingest.call_messages_max = 1`."
    return Figure("accept-sqlite", "accepting over SQLite, synchronous=FULL", measured, lines, note)


def in_batches(bench):
    """A thousand messages a request over one."""

    def measure(scenario, *words):
        def run():
            with subjects.redis_alone("no fsync") as redis:
                lasting = ["--seconds", str(bench.seconds), "--warmup", str(bench.warmup)]
                words_of_store = ["--store", redis.url, "--durability", "relaxed", "--payload-bytes", "200"]
                return from_bench(load.bench(bench.tools.posthaste, scenario, *words_of_store, *lasting, *words))

        return run

    measured = {
        "single POSTs, 64 connections": measure("accept"),
        "batches of 1,000, 8 connections": measure("batch", "--batch-size", "1000"),
    }
    single, batches = measured
    of = ratio("rate_per_s", batches, single)
    lines = [Line("messages/s in batches of 1,000 × 200 B over single POSTs", "no fsync", of, at_least(8))]
    return Figure("batch", "publishing in batches, per message", measured, lines)


def growth_rate(bench):
    """A message by how many come a second: the fewer share a call, the more of it each pays."""

    def measure(store, rate):
        def run():
            words = ["--rate", str(rate), "--seconds", str(bench.seconds), "--warmup", str(bench.warmup), "--payload-bytes", "200"]
            if store == "SQLite":
                return from_bench(load.bench(bench.tools.posthaste, "accept", *words))
            with subjects.redis_alone("no fsync") as redis:
                of_store = ["--store", redis.url, "--durability", "relaxed"]
                return from_bench(load.bench(bench.tools.posthaste, "accept", *of_store, *words))

        return run

    rates = (100, 1_000, 5_000, 20_000, 40_000)
    measured = {f"{store}, {rate:,} a second": measure(store, rate) for store in ("Redis", "SQLite") for rate in rates}
    note = "Open loop; Redis without fsync, SQLite with `synchronous=FULL`."
    return Figure("growth-rate", "cost by how many come a second, 64 connections", measured, [], note)


def tail(bench):
    """Latencies at a rate that both can easily take."""
    rate = []

    def on_redis(*words):
        with subjects.redis_alone("no fsync") as redis:
            store = ["--store", redis.url, "--durability", "relaxed"]
            return load.bench(bench.tools.posthaste, "accept", *store, "--warmup", str(bench.warmup), *words)

    def half():
        # The knee is found once: all rounds have one rate.
        if not rate:
            knee = on_redis("--seconds", str(bench.seconds), "--connections", "64")["rate_per_s"]
            rate.append(max(knee / 2, 1))
        return ["--rate", f"{rate[0]:.0f}", "--seconds", str(bench.seconds * 2), "--connections", "64"]

    def gateway():
        return from_bench(on_redis(*half()))

    def bare():
        words = half()
        with subjects.bare(bench.tools.bare) as subject:
            words += ["--url", subject.url(""), "--warmup", str(bench.warmup)]
            return from_bench(load.bench(bench.tools.posthaste, "accept", *words))

    lines = [
        Line("p99 over bare at the same rate", "no fsync", ratio("p99_us", "posthaste", "bare"), at_most(2.5)),
        Line("p99.9 over bare at the same rate", "no fsync", ratio("p99_9_us", "posthaste", "bare")),
        Line("the rate: half of the knee", "no fsync", value("rate_per_s", "posthaste"), None, "/s"),
    ]
    title = "latency from when a message is due until its 202, open loop, at half of the knee"
    return Figure("tail", title, {"bare": bare, "posthaste": gateway}, lines)


def from_bench(told):
    """What `posthaste bench` prints, by the names of these tables."""
    cpu, latency, memory = told["cpu_us_per_message"], told["latency_ms"] or {}, told["memory_bytes"]
    requests = told["requests"]
    if requests is not None:
        others = {status: count for status, count in requests["answers"].items() if status != "202"}
        unanswered = {cause: count for cause, count in requests["unanswered"].items() if count}
        if others or unanswered:
            raise Failed(f"posthaste bench: answers other than 202: {others}, none: {unanswered}")
    found = {"rate_per_s": told["rate_per_s"]}
    if cpu["gateway"] is not None:
        found["server_us"], found["redis_us"] = cpu["gateway"], cpu["store"] or 0.0
        found["cpu_us"] = found["server_us"] + found["redis_us"]
    for name in ("p50", "p99", "p99_9"):
        if name in latency:
            found[f"{name}_us"] = latency[name] * 1000
    if memory["gateway_after"] is not None:
        found["rss_mb"] = memory["gateway_after"] / 1e6
    generator = told["generator"]
    if generator is not None:
        found["generator_percent"] = generator["cpu_percent"]
        if generator["is_the_limit"]:
            found["generator_is_the_limit"] = True
    return found
