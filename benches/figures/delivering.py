"""Figures of what follows a 202: draining, delivering, how soon processing begins, and the soak."""

import subprocess
import time

import load
import machine
import subjects
import tools
from accepting import from_bench
from machine import Failed, Missing, last_json, need, output
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
        jobs = max(bench.drained // 5, 1_000)
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
        Line("rate over the client's bare loop, one thread each", "no fsync", ratio("rate_per_s", single, own), at_least(0.8)),
        Line("rate over reqwest's bare loop, one thread each", "no fsync", ratio("rate_per_s", single, other), at_least(1.1)),
        Line("rate over the client's bare loop, default settings", "no fsync", ratio("rate_per_s", default, own)),
        Line("rate over reqwest's bare loop, default settings", "no fsync", ratio("rate_per_s", default, other)),
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
    """Steady load for long, by the bench that is built in; once, whatever the rounds."""
    done = []

    def measure():
        if not done:
            with machine.folder():
                with subjects.redis_alone("always") as redis:
                    words = ["--minutes", str(bench.soak_minutes), "--store", redis.url]
                    try:
                        told = load.bench(bench.tools.posthaste, "soak", *words)
                    except Failed as failed:
                        if "invalid value 'soak'" in str(failed):
                            raise Missing("this posthaste has no `bench soak`") from failed
                        raise
            done.append({**from_bench(told), **over_time(told["soak"])})
        return dict(done[0])

    growth = value("rss_growth_percent", "posthaste")
    tail = value("p99_9_last_over_first", "posthaste")
    lines = [
        Line("RSS growth", "always", growth, at_most(2), "%"),
        Line("p99.9 until 202 of the last five minutes over the first", "always", tail, at_most(1.2)),
        Line("lost", "always", value("lost", "posthaste"), at_most(0)),
    ]
    return Figure("soak", f"{bench.soak_minutes} minutes at half of the knee, one run", {"posthaste": measure}, lines)


def over_time(told):
    """What a soak says of its begin and its end; what it could not tell is left out."""
    rss = told["watched"].get("gateway_rss_bytes") or {}
    found = {
        "rss_growth_percent": rss.get("growth_percent"),
        "p99_9_last_over_first": told["until_202_p99_9_ms"].get("ratio"),
        "lost": told.get("lost"),
    }
    return {name: number for name, number in found.items() if number is not None}
