"""Figures of what follows a 202: draining, delivering, how soon processing begins, and the soak."""

import subprocess
import time

import load
import machine
import subjects
import tools
from accepting import from_bench
from machine import Failed, last_json, need, output
from report import Figure, Line, at_least, at_most, ratio, value

PAYLOAD_BYTES = 200


def drain(bench):
    """Workers that do nothing, over those of BullMQ."""

    def gateway(lookup):
        def measure():
            with subjects.redis_alone("no fsync") as redis:
                words = ["--store", redis.url, "--durability", "relaxed", "--messages", str(bench.drained)]
                words += ["--payload-bytes", str(PAYLOAD_BYTES), "--set", f"queue_defaults.lookup={lookup}"]
                return from_bench(load.bench(bench.tools.posthaste, "drain", *words))

        return measure

    def bullmq():
        script = tools.node_script("bullmq_drain.js")
        jobs = max(bench.drained // 20, 1_000)
        with subjects.redis_alone("no fsync") as redis:
            words = [need("node"), script, redis.port, jobs, PAYLOAD_BYTES]
            told = last_json(output(words, timeout=600), "BullMQ")
        return {"rate_per_s": told["drain_per_s"]}

    measured = {"BullMQ": bullmq, "posthaste, lookup on": gateway("true"), "posthaste, lookup off": gateway("false")}
    on, off = (ratio("rate_per_s", f"posthaste, lookup {word}", "BullMQ") for word in ("on", "off"))
    lines = [
        Line("no-op drain over BullMQ's, lookup on", "no fsync", on, at_least(20)),
        Line("no-op drain over BullMQ's, lookup off", "no fsync", off, at_least(30)),
    ]
    note = "The gateway's processor is `log`, which writes ten lines a second at most; BullMQ's an empty function, 100 at once."
    return Figure("drain", "a backlog of 200 B taken by workers that do nothing", measured, lines, note)


class Receiver:
    """Answers each POST with 200 in a process of its own, and tells when it has so many."""

    def __init__(self, program, messages):
        words = [program, "--receiver", str(messages)]
        self.child = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.url = f"http://{self.line()}/"

    def line(self):
        line = self.child.stdout.readline()
        if not line:
            raise Failed("the receiver ended")
        return line.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


def deliver(bench):
    """Pushing a backlog, over what clients do in a bare loop."""
    messages = bench.delivered

    def loop(word):
        def measure():
            with Receiver(bench.tools.path, messages) as receiver:
                began = time.monotonic()
                child = subprocess.Popen(
                    [bench.tools.path, word, receiver.url, "64", str(messages)],
                    stdout=subprocess.PIPE,
                    stdin=subprocess.DEVNULL,
                    text=True,
                )
                receiver.line()
                took = time.monotonic() - began
                cpu_ns = int(child.communicate(timeout=60)[0].split()[0])
            return {"rate_per_s": messages / took, "server_us": cpu_ns / 1000 / messages}

        return measure

    def gateway(*settings):
        def measure():
            with Receiver(bench.tools.path, messages) as receiver:
                with subjects.gateway(bench.tools.posthaste, "redis", "no fsync", settings) as subject:
                    subject.make_queue("pushed", processor="http", destination=receiver.url)
                    subject.ask("POST", "/v1/queues/pushed/pause")
                    subject.fill(messages, PAYLOAD_BYTES, "pushed")
                    before = subject.cpu_s()
                    began = time.monotonic()
                    subject.ask("POST", "/v1/queues/pushed/resume")
                    receiver.line()
                    took = time.monotonic() - began
                    server, redis = ((late - early) * 1e6 / messages for early, late in zip(before, subject.cpu_s()))
            return {"rate_per_s": messages / took, "server_us": server, "redis_us": redis, "cpu_us": server + redis}

        return measure

    measured = {
        "bare loop of the client": loop("--loop"),
        "bare loop of reqwest": loop("--reqwest-loop"),
        "posthaste, one worker thread": gateway("workers.threads=1"),
        "posthaste": gateway(),
    }
    own, other, single, default = measured
    lines = [
        Line("rate over the client's bare loop, one thread each", "no fsync", ratio("rate_per_s", single, own)),
        Line("rate over reqwest's bare loop, one thread each", "no fsync", ratio("rate_per_s", single, other)),
        Line("rate over the client's bare loop, default settings", "no fsync", ratio("rate_per_s", default, own), at_least(0.8)),
        Line("rate over reqwest's bare loop, default settings", "no fsync", ratio("rate_per_s", default, other), at_least(1.1)),
    ]
    note = "All post 200 B to one receiver, at most 64 at a time, which is what a lane has; the loops have one thread."
    return Figure("deliver", "a backlog pushed over HTTP", measured, lines, note)


def latency(bench):
    """How soon an idle gateway begins."""

    def measure():
        # Cargo's word for a bench that is to measure.
        words = [bench.tools.path, "--bench", "latency-relaxed", "--json", "--posts", str(bench.posts)]
        told = last_json(output(words, timeout=600), "latency-relaxed")["figures"]
        found = {}
        for name in ("post_to_function", "post_to_202", "floor"):
            for part in ("p50", "p99"):
                found[f"{name}_{part}_ms"] = told[f"redis_{name}_{part}_ms"]
        return found

    limits = {"p50": 1, "p99": 5}
    lines = [
        Line(f"publish until processing starts, idle, {part}", "no fsync", value(f"post_to_function_{part}_ms", "gateway"), at_most(limit), "ms")
        for part, limit in limits.items()
    ]
    lines += [
        Line(f"publish until 202, idle, {part}", "no fsync", value(f"post_to_202_{part}_ms", "gateway"), None, "ms")
        for part in limits
    ]
    return Figure("latency", "a message to an idle gateway, 25 a second", {"gateway": measure}, lines)


def soak(bench):
    """Steady load for long, by the bench that is built in."""

    def measure():
        with machine.folder(), subjects.redis_alone("always") as redis:
            words = ["--minutes", str(bench.soak_minutes), "--store", redis.url]
            told = load.bench(bench.tools.posthaste, "soak", *words)
        return {**from_bench(told), **over_time(told["soak"])}

    gateway = lambda key: value(key, "posthaste")
    lines = [
        Line("RSS growth", "always", gateway("gateway_rss_bytes_growth"), at_most(2), "%"),
        Line("p99.9 until 202 of the last five minutes over the first", "always", gateway("until_202_p99_9"), at_most(1.2)),
        Line("p99.9 until received of the last five minutes over the first", "always", gateway("until_received_p99_9")),
        Line("lost", "always", gateway("lost"), at_most(0)),
        Line("open files beside connections, more in the end", "always", gateway("fds_other_more"), at_most(0)),
        Line("threads, more in the end", "always", gateway("threads_more"), at_most(0)),
        Line("actors, more in the end", "always", gateway("actors_more"), at_most(0)),
        Line("faults that the bench found", "always", gateway("faults"), at_most(0)),
    ]
    note = "The latencies are those until a message is received."
    title = f"{bench.soak_minutes} minutes at half of the knee, one run"
    return Figure("soak", title, {"posthaste": measure}, lines, note, is_once=True)


def over_time(told):
    """What a soak says of its begin and its end; what it could not tell is left out."""
    found = {"lost": told["lost"], "faults": len(told["faults"])}
    for name in ("until_202_p99_9", "until_received_p99_9"):
        found[name] = told[f"{name}_ms"]["ratio"]
    for name, watched in told["watched"].items():
        if watched is not None:
            found[f"{name}_growth"] = watched["growth_percent"]
            found[f"{name}_more"] = watched["last"] - watched["first_most"]
    return {name: number for name, number in found.items() if number is not None}
