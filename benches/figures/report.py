"""Figures: what is measured in rounds, what is read from the rounds, and how that is shown.

A figure has subjects, each of which a round measures once, in turn; and lines, each a number that is read from one round: a ratio is
one of two measurements that follow each other. What is told of a line is the median of its rounds, the least and the greatest.
"""

import dataclasses
import statistics
import sys
import time
import typing

from machine import Failed, Missing

NOTHING = "–"


@dataclasses.dataclass
class Line:
    """One number of a figure: how a round gives it, and what it should be."""

    label: str
    durability: str
    of: typing.Callable
    limit: tuple = None
    unit: str = ""


@dataclasses.dataclass
class Figure:
    name: str
    title: str
    subjects: dict
    lines: list
    note: str = ""
    # What lasts too long to be measured again.
    is_once: bool = False


def at_most(limit):
    return ("≤", limit)


def at_least(limit):
    return ("≥", limit)


def ratio(key, subject, base):
    """One measurement of a round over another."""
    return lambda round: round[subject][key] / round[base][key]


def value(key, subject):
    return lambda round: round[subject][key]


class Found:
    """What rounds gave."""

    def __init__(self, figure):
        self.figure, self.rounds, self.missing, self.remarks = figure, [], {}, set()

    def measure(self, rounds):
        rounds = 1 if self.figure.is_once else rounds
        for number in range(rounds):
            self.rounds.append({})
            for name, subject in self.figure.subjects.items():
                # What is not installed is not there in the next round either.
                if name in self.missing:
                    continue
                print(f"{self.figure.name}: round {number + 1} of {rounds}: {name}", file=sys.stderr)
                began = time.monotonic()
                try:
                    sample = subject()
                    sample["took_s"] = time.monotonic() - began
                    self.rounds[-1][name] = sample
                    if sample.pop("generator_is_the_limit", False):
                        self.remarks.add(f"{name}: the generator had no pause, so the figure may be about it")
                except Missing as missing:
                    self.missing[name] = f"{name} is missing: {missing}"
                except Failed as failed:
                    self.missing[name] = f"{name} failed: {failed}"
                    print(f"{self.figure.name}: {self.missing[name]}", file=sys.stderr)

    def line(self, line):
        """Median and spread of a line; why there is none, where there is none."""
        values, lacking = [], set()
        for one in self.rounds:
            try:
                values.append(line.of(one))
            except KeyError as error:
                lacking.add(str(error.args[0]))
            except ZeroDivisionError:
                lacking.add("a measurement is 0")
        shown = {"label": line.label, "durability": line.durability, "unit": line.unit, "rounds": len(values)}
        shown["limit"] = f"{line.limit[0]} {line.limit[1]}" if line.limit else None
        # Part of the rounds is no median of all.
        if lacking or not values:
            reasons = [self.missing.get(name, f"{name} was not measured") for name in sorted(lacking)]
            return {**shown, "median": None, "why": "; ".join(reasons)}
        median = statistics.median(values)
        shown.update(median=median, least=min(values), greatest=max(values), values=values)
        shown["verdict"] = verdict(median, line.limit)
        return shown

    def medians(self):
        """Of each subject the medians of what was measured of it."""
        found = {}
        for name in self.figure.subjects:
            samples = [one[name] for one in self.rounds if name in one]
            numbers = [key for key in (samples[0] if samples else {}) if isinstance(samples[0][key], (int, float))]
            found[name] = {key: statistics.median(one[key] for one in samples) for key in numbers}
        return found

    def as_json(self):
        lines = [self.line(line) for line in self.figure.lines]
        kept = {"name": self.figure.name, "title": self.figure.title, "lines": lines, "missing": self.missing, "remarks": sorted(self.remarks)}
        return {**kept, "medians": self.medians(), "rounds": self.rounds}


def verdict(median, limit):
    """`ok`, or how far it is from that."""
    if limit is None:
        return NOTHING
    word, number = limit
    if (median <= number) if word == "≤" else (median >= number):
        return "ok"
    return f"{median / number:.2f} × the limit" if number else "not reached"


def short(number):
    """Three digits, as a table has them."""
    if number is None:
        return NOTHING
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def reached(shown):
    if shown["median"] is None:
        return NOTHING
    text = short(shown["median"])
    if shown["rounds"] > 1:
        text += f" ({short(shown['least'])}–{short(shown['greatest'])})"
    return f"{text} {shown['unit']}".strip()


HEAD = ["figure", "durability", "reached", "limit", ""]
# What a table shows of a subject, and what that is called there.
COLUMNS = {
    "rate_per_s": "per second",
    "p50_us": "p50, µs",
    "p99_us": "p99, µs",
    "p99_9_us": "p99.9, µs",
    "server_us": "server, µs",
    "redis_us": "Redis, µs",
    "cpu_us": "CPU, µs",
    "lease_us": "lease + settle, one a call, µs",
    "lease_hundred_us": "a hundred a call, µs",
    "rss_mb": "RSS, MB",
    "per_pending_b": "Redis over payload and headers, B",
    "idle_rss_mb": "RSS before, MB",
    "generator_percent": "generator, % of a core",
    "post_to_function_p50_ms": "until it starts p50, ms",
    "post_to_function_p99_ms": "p99, ms",
    "post_to_202_p50_ms": "until 202 p50, ms",
    "post_to_202_p99_ms": "p99, ms",
    "floor_p50_ms": "one write and fsync p50, ms",
    "floor_p99_ms": "p99, ms",
}


def rows_of_lines(found):
    for line in found.figure.lines:
        shown = found.line(line)
        limit = shown["limit"] or NOTHING
        yield [f"{found.figure.name}: {line.label}", line.durability, reached(shown), limit, shown.get("verdict", "not measured")]


def table_of_subjects(found):
    medians = found.medians()
    columns = [key for key in COLUMNS if any(key in one for one in medians.values())]
    rows = []
    for name, one in medians.items():
        word = "not measured" if name in found.missing else ""
        rows.append([name, *(short(one.get(key)) for key in columns), word])
    return ["", *(COLUMNS[key] for key in columns), ""], rows


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def plain(head, rows):
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in [head, *rows]]
    return "\n".join(lines)


def show(all_found, versions, rounds, as_markdown, is_ended=False):
    """Everything as text."""
    table = markdown if as_markdown else plain
    parts = [f"Medians of {rounds} rounds (least–greatest), ratios within a round."]
    if is_ended:
        parts[0] += " ENDED EARLY: what is here may be of fewer."
    elif rounds < 5:
        parts[0] += " FEWER THAN FIVE ROUNDS: a trial of the script, no figures to quote."
    rows = [[name, text] for name, text in versions.items()]
    parts.append(table(["what", "version"], rows))
    rows = [row for found in all_found for row in rows_of_lines(found)]
    if rows:
        parts.append(table(HEAD, rows))
    for found in all_found:
        title = f"{found.figure.name}: {found.figure.title}"
        parts.append(f"### {title}" if as_markdown else title)
        parts.append(" ".join(filter(None, [found.figure.note, f"Measured with {versions['posthaste']}."])))
        parts.append(table(*table_of_subjects(found)))
        remarks = [*found.missing.values(), *sorted(found.remarks)]
        if remarks:
            parts.append("\n".join(f"- {remark}" for remark in remarks))
    return "\n\n".join(parts)
