"""The report for people, from the figures of a run; the words that stand around them are in `report.md.j2`."""

from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appointments.cases import Result
from Shared.harness.latency import FAST_MS
from Shared.harness.metrics import told
from Shared.harness.models import LegacyResult, Metrics

TEMPLATE = "report.md.j2"
RANKED = 100
"""Samples from which on a 99th percentile is more than the greatest sample."""


def report(metrics: Metrics, legacy: list[LegacyResult], ours: list[Result]) -> str:
    """`compare_report.md`."""
    environment = Environment(  # noqa: S701 -- Markdown from our own figures, no HTML from outside
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(
        m=metrics,
        pairs=list(zip(legacy, ours, strict=True)),
        told=told,
        fast_ms=FAST_MS,
        ranked=RANKED,
        passed_by_a=[a for a in legacy if a.verdict == "passed"],
        right_in_the_end=[a for a in legacy if a.verdict != "passed" and a.end_right],
        told_truly=[a for a in legacy if a.verdict != "passed" and not a.end_right and _true(a)],
        left_behind=[(a, b) for a, b in zip(legacy, ours, strict=True) if _live_told(a)],
        faster=_faster(metrics),
        errors=Counter(call.told for a in legacy for call in a.calls if call.told != "booked"),
        reasons=Counter(str(b.reason) for b in ours if b.reason),
    )


def _true(result: LegacyResult) -> bool:
    """Every click was answered, and "booked" was told as often as there is a booking."""
    answered = all(call.told in ("booked", "error") for call in result.calls)
    return answered and result.told_booked == result.live_bookings and not result.told_too_early


def _live_told(result: LegacyResult) -> bool:
    return any(difference.startswith("live bookings") for difference in result.differences)


def _faster(metrics: Metrics) -> list[str]:
    """The cases of which A's median is the lower one."""
    if metrics.a.latency is None or metrics.b.latency is None:
        return []
    return [id for id, a in metrics.a.latency.cases.items() if a.p50 < metrics.b.latency.cases[id].p50]
