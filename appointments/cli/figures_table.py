"""The figures as people see them: a column for each provider, and a row with a small histogram for each operation."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from appointments.cli import render
from projections.figures_report import FiguresReport, ProviderFigures, Took
from projections.histogram import OCTAVES_MS, Latency

UTF_BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", ".:-=+*%#"
COLUMNS_MAX = 5
"""Providers that get a column, those with the most requests; all of them are in the total."""

Row = tuple[tuple[str, str, str], str, str, Latency]
"""(provider, step, operation), calls, retries, latency."""


def shown(report: FiguresReport, bars: str = UTF_BARS) -> RenderableType:
    """The whole report."""
    if not report.providers:
        return Text("no appointments")
    parts: list[RenderableType] = [Text(_window(report), style="bold"), _counts(report)]
    if rows := list(_rows(report)):
        parts += [Text(""), _durations(rows, bars)]
    return Group(*parts)


def _window(report: FiguresReport) -> str:
    def told(at: datetime) -> str:
        return at.strftime("%Y-%m-%d %H:%M UTC")

    since = f"from {told(report.since)}" if report.since else "from the beginning"
    until = f" until {told(report.until)}" if report.until else ""
    return f"{since}{until}, {'all tenants' if report.tenant is None else f'tenant {report.tenant}'}"


def _counts(report: FiguresReport) -> Table:
    busiest = sorted(report.providers, key=lambda one: (-one.requested, one.provider))[:COLUMNS_MAX]
    columns = busiest if len(report.providers) == 1 else [*busiest, report.total]
    made = render.table("", *("all" if one is report.total else one.provider for one in columns))
    for column in made.columns[1:]:
        column.justify = "right"
    facts = [_facts(one) for one in columns]
    for name in facts[0]:
        made.add_row(Text(name), *(Text(str(of_one[name])) for of_one in facts))
    for breaker in report.breakers:
        made.add_row(Text(f"breaker openings, {breaker.target}"), Text(str(breaker.openings)))
    return made


def _facts(one: ProviderFigures) -> dict[str, Any]:
    rate = "-" if one.success_rate is None else f"{one.success_rate:.2%}"
    return {
        "success rate": rate,
        "requested": one.requested,
        "taken over": one.imported,
        "confirmed": one.confirmed,
        "failed": _told(one.failed),
        "withdrawn": one.withdrawn,
        "cancelled": one.cancelled,
        "rescheduled": one.rescheduled,
        "made again": one.rebooked,
        "under way now": one.unfinished,
        "parked now": one.parked_now,
        "attempts": one.attempts,
        "retries": one.retries,
        "compensations": _told(one.compensations),
        "undo calls": one.undo_calls,
        "late successes": one.late_successes,
        "waits for a breaker": one.deferred,
    }


def _told(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    reasons = ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{total} ({reasons})" if total else "0"


def _rows(report: FiguresReport) -> Iterator[Row]:
    for one in report.providers:
        whole: Sequence[tuple[str, Took]] = (
            ("booking", one.booking),
            ("rebooking", one.rebooking),
            ("move", one.move),
            ("cancel", one.cancel),
        )
        for name, took in whole:
            if took.all.count:
                yield (one.provider, "request to end", name), str(took.all.count), "", took.all
        for step in report.steps:
            if step.provider == one.provider:
                for operation in step.operations:
                    where = (one.provider, step.step, operation.operation)
                    yield where, str(operation.attempts), str(operation.retries), operation.took.all


def _durations(rows: Sequence[Row], bars: str) -> Table:
    shares = [_by_octave(latency) for *_, latency in rows]
    seen = [octave for octave in range(len(OCTAVES_MS) + 1) if any(share[octave] for share in shares)] or [0]
    first, last = seen[0], seen[-1]
    axis = f"{_ms(OCTAVES_MS[first - 1]) if first else '0'} to {_ms(OCTAVES_MS[min(last, len(OCTAVES_MS) - 1)])}"
    made = render.table("provider", "step", "operation", "count", "retries", "p50", "p95", "p99", axis)
    for column in made.columns[3:8]:
        column.justify = "right"
    for (where, count, retries, latency), share in zip(rows, shares, strict=True):
        points = (_ms(ms) for ms in (latency.p50_ms, latency.p95_ms, latency.p99_ms))
        drawn = _bar(share[first : last + 1], bars)
        made.add_row(*(Text(cell) for cell in (*where, count, retries, *points, drawn)))
    return made


def _by_octave(latency: Latency) -> list[int]:
    """How often it took up to each power of two and longer than the one before; last, longer than all."""
    up_to = [0, *(n for _, n in latency.at_most), latency.count] if latency.count else [0] * (len(OCTAVES_MS) + 2)
    return [after - before for before, after in pairwise(up_to)]


def _bar(counts: Sequence[int], bars: str) -> str:
    """The smallest bar is kept for the few: what happened at all is seen."""
    highest = max(counts, default=0)
    return "".join(bars[n * (len(bars) - 1) // highest] if n else " " for n in counts)


def _ms(ms: float | None) -> str:
    if ms is None:
        return "-"
    if ms < 1_000:
        return f"{ms:.3g} ms"
    return f"{ms / 1_000:.3g} s" if ms < 60_000 else f"{ms / 60_000:.3g} min"
