"""Small charts and tables of the overview, from the figures. Pure: places, no markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from projections.figures_report import FiguresReport, HourFigures

HOURS = 48
WIDTH, HEIGHT = 480.0, 96.0
GAP = 2.0
CALLS_MAX = 8


@dataclass(frozen=True, slots=True)
class HourBar:
    """One hour: confirmed below, failed on top of it."""

    label: str
    good: int
    bad: int
    x: float
    width: float
    good_y: float
    good_height: float
    bad_y: float
    bad_height: float


@dataclass(frozen=True, slots=True)
class HourChart:
    """Two days in hours, the last bar is the present hour."""

    bars: tuple[HourBar, ...]
    most: int
    first: str
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True, slots=True)
class CallTimes:
    """How long the calls of one step took: p50, p95 and p99 in words, and as ends of a bar (the slowest is 100)."""

    name: str
    count: int
    words: tuple[str, ...]
    ends: tuple[float, ...]


def hour_chart(hours: Sequence[HourFigures], now: datetime) -> HourChart:
    """The last `HOURS` hours up to `now`."""
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    by_hour = {one.hour: one for one in hours}
    most = max((one.confirmed + one.failed for one in hours if one.hour >= first), default=0)
    wide, bars = WIDTH / HOURS, []
    for place in range(HOURS):
        at = first + timedelta(hours=place)
        one = by_hour.get(at)
        if one is None or not one.confirmed + one.failed:
            continue
        good, bad = (round(HEIGHT * n / most, 2) for n in (one.confirmed, one.failed))
        top = HEIGHT - good
        bars.append(
            HourBar(
                f"{at:%Y-%m-%d %H}:00",
                one.confirmed,
                one.failed,
                round(place * wide + GAP / 2, 2),
                round(wide - GAP, 2),
                round(top, 2),
                good,
                round(top - bad, 2),
                bad,
            )
        )
    return HourChart(tuple(bars), most, f"{first:%Y-%m-%d %H}:00 UTC")


def call_times(report: FiguresReport) -> tuple[CallTimes, ...]:
    """The busiest operations."""
    found = [
        (f"{step.step}{'' if one.operation == 'action' else f' ({one.operation})'} at {step.provider}", one.took.all)
        for step in report.steps
        for one in step.operations
        if one.took.all.count
    ]
    busiest = sorted(found, key=lambda one: -one[1].count)[:CALLS_MAX]
    slowest = max((took.p99_ms or 0.0 for _, took in busiest), default=0.0) or 1.0
    told = ((name, took.count, (took.p50_ms, took.p95_ms, took.p99_ms)) for name, took in busiest)
    return tuple(
        CallTimes(name, count, tuple(map(_short, times)), tuple(round(100 * (ms or 0.0) / slowest, 1) for ms in times))
        for name, count, times in told
    )


def _short(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.3g} ms" if milliseconds < 1_000 else f"{milliseconds / 1_000:.3g} s"
