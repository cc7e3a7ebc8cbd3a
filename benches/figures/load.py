"""Loading what is measured: wrk for what is compared with the peers, `posthaste bench` for the rest."""

import json
import pathlib
import urllib.parse

import machine
from machine import Failed, last_json, need, output

SCRIPT = pathlib.Path(__file__).resolve().parent / "post.lua"
# What is posted where no size is said: 200 bytes that every peer takes.
MESSAGE = json.dumps(
    {
        "type": "order.created",
        "order": {"id": 184467, "customer": "c_9f31", "total": 129.95, "items": [{"sku": "A-1"}, {"sku": "B-7"}]},
        "at": "2026-11-22T09:30:00Z",
        "source": "checkout, second attempt",
        "currency": "EUR",
    },
    separators=(",", ":"),
)


def message_of(payload_bytes):
    """A JSON text of exactly so many bytes."""
    return '{"x":"' + "x" * (payload_bytes - 8) + '"}'


def post(subject, connections, seconds, warmup, message=MESSAGE, queues=0):
    """Posts in a closed loop; gives the rate, latencies, and processor time of each message.

    What is refused or breaks spoils the figure, so it fails.
    """
    wrk = need("wrk")
    with machine.folder() as folder:
        body = folder / "body"
        body.write_text(message)
        url = subject.url()
        words = [body, queues, urllib.parse.urlsplit(url).path]
        if subject.server.name == "webdis":
            # It takes a command as a path, in the body of a POST to the root.
            body.write_text("LPUSH/messages/" + urllib.parse.quote(message, safe=""))
            words = [body, 0, "/"]

        def load(lasting):
            command = [wrk, "-t1", f"-c{connections}", f"-d{lasting}s", "--timeout", "10s", "-s", SCRIPT, url, "--", *words]
            return last_json(output(command, timeout=lasting + 60), "wrk")

        if warmup:
            load(warmup)
        before = subject.cpu_s()
        found = load(seconds)
        after = subject.cpu_s()
    count = found["requests"]
    if count == 0 or found["refused"] or found["broken"]:
        raise Failed(f"{subject.server.name}: of {count} posts {found['refused']} were refused, {found['broken']} broke")
    server, store = ((late - early) * 1e6 / count for early, late in zip(before, after))
    return {
        "rate_per_s": count / found["seconds"],
        "p50_us": found["p50_us"],
        "p99_us": found["p99_us"],
        "server_us": server,
        "redis_us": store,
        "cpu_us": server + store,
        "rss_mb": subject.server.memory_mb(),
    }


def bench(program, scenario, *words):
    """`posthaste bench` with those flags; what it prints as JSON."""
    with machine.folder() as folder:
        # Where another one is measured there is no folder of its own.
        own = [] if "--url" in words else ["--folder", folder]
        command = [program, "bench", scenario, "--json", *own, *words]
        return last_json(output(command, timeout=7200), f"posthaste bench {scenario}")
