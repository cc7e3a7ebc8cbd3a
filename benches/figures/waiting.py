"""Figures of what waits: memory, what a backlog or many queues cost, and how cost grows."""

import time

import load
import subjects
from accepting import Accepting
from machine import Failed
from report import Figure, Line, at_most, ratio, value

PAYLOAD_BYTES = 200
# The durability of a figure that does not depend on it.
NONE = "–"
# How the fsync of each store is called.
STORES = {"Redis": ("redis", "no fsync"), "SQLite": ("sqlite", "FULL")}
# Messages that are leased and settled, and how many a call takes: among many queues each has few.
LEASED = {1: 2_000, 100: 50_000}


def pending(bench):
    """Memory of the gateway and of Redis while messages wait."""

    def measure(store, lookup="true"):
        def run():
            kind, durability = STORES[store]
            with subjects.gateway(bench.tools.posthaste, kind, durability, [f"queue_defaults.lookup={lookup}"]) as subject:
                used = lambda: int(subject.redis.info("memory")["used_memory"]) if subject.redis else 0
                before, idle = used(), subject.server.memory_mb()
                subject.fill(bench.pending, PAYLOAD_BYTES)
                # Until buffers of the last batches are gone.
                time.sleep(1)
                counts = subject.counts()
                found = {"rss_mb": subject.server.memory_mb(), "idle_rss_mb": idle}
                if subject.redis:
                    found["per_pending_b"] = (used() - before - counts["bytes"]) / counts["pending"]
                return found

        return run

    measured = {
        "Redis, lookup on": measure("Redis"),
        "Redis, lookup off": measure("Redis", "false"),
        "SQLite": measure("SQLite"),
    }
    count = f"{bench.pending:,} pending"
    memory = "Redis memory of a message over payload and headers, lookup"
    lines = [
        Line(f"{memory} off", NONE, value("per_pending_b", "Redis, lookup off"), at_most(60), "B"),
        Line(f"{memory} on", NONE, value("per_pending_b", "Redis, lookup on"), at_most(150), "B"),
        Line(f"RSS of the gateway, Redis, {count}", NONE, value("rss_mb", "Redis, lookup on"), at_most(48), "MB"),
        Line(f"RSS of the gateway, SQLite, {count}", NONE, value("rss_mb", "SQLite"), at_most(160), "MB"),
    ]
    return Figure("pending", f"memory with {count}, 200 B each", measured, lines)



class Beside:
    """Publishing, then leasing and settling, beside what waits already."""

    def __init__(self, bench):
        self.bench = bench

    def measure(self, store, waiting=0, queues=1, used=None):
        """With so many messages in the first queue, and so many queues, of which so many are used: all, if that is not said."""

        def made(action):
            kind, durability = STORES[store]
            with subjects.gateway(self.bench.tools.posthaste, kind, durability) as subject:
                names = [f"bench-{number}" for number in range(queues)]
                for name in names:
                    subject.make_queue(name)
                # Many new queues are looked at once, soon after they were made.
                quiet(subject)
                if waiting:
                    subject.fill(waiting, PAYLOAD_BYTES, names[0])
                return action(subject, names[:used])

        def post_and_lease(subject, names):
            message = load.message_of(PAYLOAD_BYTES)
            found = load.post(subject, 64, self.bench.seconds, self.bench.warmup, message, len(names))
            return {**found, "lease_us": lease(subject, names, 1)}

        def lease_hundreds(subject, names):
            # Nothing but these waits beside what waits anyway.
            subject.fill(LEASED[100], PAYLOAD_BYTES, names[0])
            return {"lease_hundred_us": lease(subject, names[:1], 100)}

        return lambda: {**made(post_and_lease), **made(lease_hundreds)}


def quiet(subject):
    """Waits until the gateway and its store take less than 5 % of a core."""
    before, until = sum(subject.cpu_s()), time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.5)
        now = sum(subject.cpu_s())
        if now - before < 0.025:
            return
        before = now
    raise Failed("the gateway was not quiet within a minute of making its queues")


def lease(subject, names, at_once):
    """Leases and settles, so many a call; gives processor time of a message."""
    before, leased = sum(subject.cpu_s()), 0
    for turn in range(LEASED[at_once] // at_once):
        base = f"/v1/queues/{names[turn * 7919 % len(names)]}/leases"
        receipts = [item["receipt"] for item in subject.ask("POST", base, {"max": at_once})["items"]]
        if receipts:
            subject.ask("POST", f"{base}/settle", {"ack": receipts})
        leased += len(receipts)
    return (sum(subject.cpu_s()) - before) * 1e6 / max(leased, 1)


def backlog(bench):
    """What one message costs beside many, over what it costs alone."""
    beside = Beside(bench)
    measured = {
        "one empty queue": beside.measure("Redis"),
        f"{bench.pending:,} pending": beside.measure("Redis", waiting=bench.pending),
        f"{bench.queues:,} queues, one used": beside.measure("Redis", queues=bench.queues, used=1),
        f"{bench.queues:,} queues, all used": beside.measure("Redis", queues=bench.queues),
    }
    alone, waiting, one_used, all_used = measured
    lines = [
        Line(f"CPU of {word} with {name}, over {alone}", "no fsync", ratio(key, name, alone), at_most(1.15))
        for name, at_once in ((waiting, "lease_hundred_us"), (one_used, "lease_hundred_us"), (all_used, "lease_us"))
        for word, key in (("accepting", "cpu_us"), ("lease and settle", at_once))
    ]
    note = (
        "A hundred a call are taken from a gateway to which nothing else was posted, one a call behind the posts. All used: each "
        "post, and each call that leases and settles one message, is of another queue than the one before."
    )
    return Figure("backlog", "a message beside many that wait, and among many queues", measured, lines, note)


def growth_queues(bench):
    beside = Beside(bench)
    measured = {
        f"{store}, {queues:,}": beside.measure(store, queues=queues)
        for store in STORES
        for queues in (1, 100, bench.queues)
    }
    lines = over_first(measured, [(store, [f"{store}, {queues:,}" for queues in (1, 100, bench.queues)]) for store in STORES])
    return Figure("growth-queues", "cost by queues that are used in turn, 64 connections", measured, lines)


def growth_backlog(bench):
    beside = Beside(bench)
    measured = {
        f"{store}, {waiting:,}": beside.measure(store, waiting=waiting)
        for store in STORES
        for waiting in (0, bench.pending)
    }
    lines = over_first(measured, [(store, [f"{store}, {waiting:,}" for waiting in (0, bench.pending)]) for store in STORES])
    return Figure("growth-backlog", "cost by what waits already, 64 connections", measured, lines)


def over_first(measured, stores):
    """What publishing costs in all of a store's subjects but the first, over that one."""
    return [
        Line(f"{name}: CPU over {names[0]}", STORES[store][1], ratio("cpu_us", name, names[0]))
        for store, names in stores
        for name in names[1:]
        if name in measured
    ]


def growth_payload(bench):
    """A message by its size."""
    accepting, measured, lines = Accepting(bench), {}, []
    for size, name in ((100, "100 B"), (1 << 10, "1 KiB"), (10 << 10, "10 KiB"), (100 << 10, "100 KiB")):
        message = load.message_of(size)
        measured[f"bare, {name}"] = accepting.bare(64, message=message)
        for store, (kind, durability) in STORES.items():
            measured[f"{store}, {name}"] = accepting.gateway(kind, durability, 64, message=message)
            of = ratio("cpu_us", f"{store}, {name}", f"bare, {name}")
            lines.append(Line(f"{store}, {name}: CPU over bare", durability, of))
    return Figure("growth-payload", "cost by size of the payload, 64 connections", measured, lines)


def growth_connections(bench):
    """A message by how many are posted at once."""
    accepting, measured, lines = Accepting(bench), {}, []
    for connections in (1, 16, 64, 512, 4_096):
        measured[f"bare, {connections:,}"] = accepting.bare(connections)
        for store, (kind, durability) in STORES.items():
            name = f"{store}, {connections:,}"
            # More than the default lets in.
            settings = [f"server.limits.connections_max={max(connections * 2, 1_000)}"]
            measured[name] = accepting.gateway(kind, durability, connections, settings)
            of = ratio("cpu_us", name, f"bare, {connections:,}")
            lines.append(Line(f"{name} connections: CPU over bare", durability, of))
    return Figure("growth-connections", "cost by connections", measured, lines)


def growth_durability(bench):
    """A message by what its 202 promises."""
    accepting = Accepting(bench)
    levels = {
        "memory, none": ("memory", "none"),
        "Redis, appendonly no": ("redis", "no fsync"),
        "Redis, appendfsync everysec": ("redis", "everysec"),
        "Redis, appendfsync always": ("redis", "always"),
        "SQLite, relaxed": ("sqlite", "relaxed"),
        "SQLite, strict (FULL)": ("sqlite", "FULL"),
    }
    measured = {"bare": accepting.bare(64)}
    measured.update({name: accepting.gateway(*level, 64) for name, level in levels.items()})
    lines = [Line(f"{name}: CPU over bare", level[1], ratio("cpu_us", name, "bare")) for name, level in levels.items()]
    return Figure("growth-durability", "cost by durability, 64 connections", measured, lines)
