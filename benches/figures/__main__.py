"""Measures every figure of docs/PERFORMANCE.md, and what it was measured with.

    python3 benches/figures                     all of it, five rounds: some hours
    python3 benches/figures accept-redis peers  some of it
    python3 benches/figures --quick             one short round of each: whether the script works here, no figures

It needs Linux, Python 3.9 or newer, Rust and redis-server; wrk where requests are compared; and the peers to compare with. What is
not installed is said, with the line that installs it, and what needs it is "not measured". Only --install installs anything.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import signal
import sys

if sys.version_info < (3, 9):
    sys.exit("benches/figures needs Python 3.9 or newer")
# A checkout stays as it is.
sys.dont_write_bytecode = True

import accepting
import delivering
import report
import tools
import waiting
from machine import Failed

FIGURES = {
    "accept-redis": accepting.over_bare,
    "peers": accepting.over_peers,
    "accept-sqlite": accepting.over_sqlite,
    "batch": accepting.in_batches,
    "drain": delivering.drain,
    "deliver": delivering.deliver,
    "tail": accepting.tail,
    "latency": delivering.latency,
    "pending": waiting.pending,
    "backlog": waiting.backlog,
    "growth-payload": waiting.growth_payload,
    "growth-rate": accepting.growth_rate,
    "growth-connections": waiting.growth_connections,
    "growth-queues": waiting.growth_queues,
    "growth-backlog": waiting.growth_backlog,
    "growth-durability": waiting.growth_durability,
    "soak": delivering.soak,
}


@dataclasses.dataclass
class Bench:
    """How much is measured."""

    tools: tools.Tools
    seconds: int = 5
    warmup: int = 1
    pending: int = 1_000_000
    queues: int = 10_000
    drained: int = 1_000_000
    delivered: int = 100_000
    posts: int = 1_000
    soak_minutes: int = 30


# Enough to see that each figure comes out.
QUICK = {"seconds": 1, "warmup": 0, "pending": 20_000, "queues": 200, "drained": 20_000, "delivered": 10_000}
QUICK.update(posts=50, soak_minutes=1)


def arguments():
    parser = argparse.ArgumentParser(
        prog="python3 benches/figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, help="how often each subject is measured, in turn (5)")
    parser.add_argument("--quick", action="store_true", help="one short round: a trial")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything to it, every round too")
    parser.add_argument("--markdown", action="store_true", help="print tables for docs/PERFORMANCE.md")
    parser.add_argument("--install", action="store_true", help="first install what is missing, by apt-get and npm")
    for name, what in (("binary", "posthaste"), ("bare", "the yardstick"), ("path", "the bench `path`")):
        parser.add_argument(f"--{name}", type=pathlib.Path, metavar="PATH", help=f"{what}, instead of building it")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure is called {unknown[0]}; there are {', '.join(FIGURES)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds is 1 or more")
    return given


def raise_open_files():
    """As many as the system allows: thousands of connections are a figure."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end(*_):
    # What was started is ended on the way out.
    raise KeyboardInterrupt


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, end)
    raise_open_files()
    if given.install:
        tools.install()
    built = tools.build(given.binary, given.bare, given.path)
    bench = Bench(built, **(QUICK if given.quick else {}))
    rounds = given.rounds or (1 if given.quick else 5)
    versions = tools.versions(built)
    all_found, is_ended = [], False
    try:
        for name in given.names or FIGURES:
            found = report.Found(FIGURES[name](bench))
            all_found.append(found)
            found.measure(rounds)
            keep(given.json, versions, rounds, all_found)
    except KeyboardInterrupt:
        is_ended = True
    print(report.show(all_found, versions, rounds, given.markdown, is_ended))
    if is_ended:
        return 130
    failed = [why for found in all_found for why in found.missing.values() if " failed: " in why]
    return 1 if failed else 0


def keep(path, versions, rounds, all_found):
    """Writes after each figure what there is: hours are not lost with the last one."""
    if path is not None:
        everything = {"versions": versions, "rounds": rounds, "figures": [found.as_json() for found in all_found]}
        path.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit(f"benches/figures: {failed}")
