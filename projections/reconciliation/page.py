"""A report as one HTML file to read and to print: no script, nothing loaded, everything from outside escaped."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from projections.reconciliation.model import Finding, Kind, Report

HERE = Path(__file__).parent
ROWS_MAX = 5_000
"""Findings that a page shows; a browser takes no pleasure in more."""
WIDTH = 560
"""Of a chart, in its own units."""
BARS = 400
"""Of the longest bar where the bars have names before them and numbers after them."""
BAR = 26
HEIGHT = 130
BINS_MAX = 28
SPANS = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=28))
MEANINGS = {
    Kind.MATCHED: "as the log says",
    Kind.MISSING: "confirmed, but not in the calendar, or cancelled there",
    Kind.ORPHANED: "live in the calendar, without a live appointment",
    Kind.DRIFTED: "there, but with other fields",
    Kind.DUPLICATED: "more than one live booking under one reference",
    Kind.STUCK: "unfinished and overdue, or with nothing that would take it up",
    Kind.IN_DOUBT: "the outcome of a step is not known",
    Kind.PARKED: "stopped for an operator",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart, in the chart's own units."""

    label: str
    count: int
    at: float
    size: float
    kind: str = ""


def page(report: Report) -> str:
    """The whole document."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    shown = report.findings[:ROWS_MAX]
    by_kind = sorted(shown, key=lambda finding: list(Kind).index(finding.kind))
    bins, span = when_started(report.findings)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        report=report,
        style=Markup(style),  # noqa: S704 -- our own file, and its hash is what the policy lets in
        style_digest=digest,
        groups=[(kind, list(found)) for kind, found in groupby(by_kind, key=lambda finding: finding.kind)],
        left_out=len(report.findings) - len(shown),
        classes=by_class(report),
        bins=bins,
        span=span,
        meanings=MEANINGS,
        width=WIDTH,
        bar=BAR,
        height=HEIGHT,
    )


def by_class(report: Report) -> tuple[Bar, ...]:
    """A bar for each class but the matched, beside which nothing else would be seen, and for what is in progress."""
    classes = [kind for kind in Kind if kind is not Kind.MATCHED]
    counts = [*((str(kind), report.counts[kind]) for kind in classes), ("in_progress", report.in_progress)]
    most = max(1, *(count for _, count in counts))
    # A class that is there at all is seen, however many others there are.
    return tuple(
        Bar(name.replace("_", " "), count, place * BAR, max(3.0, BARS * count / most) if count else 0.0, name)
        for place, (name, count) in enumerate(counts)
    )


def when_started(findings: Sequence[Finding]) -> tuple[tuple[Bar, ...], str]:
    """How many differences started when, by the event that each started from; and how long a bar lasts, in words."""
    starts = sorted(f.event.at for f in findings if f.event is not None and f.kind is not Kind.MATCHED)
    if not starts:
        return (), ""
    span = next((span for span in SPANS if (starts[-1] - starts[0]) / span < BINS_MAX), None)
    span = span or (starts[-1] - starts[0]) / (BINS_MAX - 1)
    counts = [0] * (int((starts[-1] - starts[0]) / span) + 1)
    for start in starts:
        counts[int((start - starts[0]) / span)] += 1
    most, wide = max(counts), WIDTH / len(counts)
    bars = (
        Bar(_minute(starts[0] + place * span), count, place * wide, HEIGHT * count / most)
        for place, count in enumerate(counts)
    )
    return tuple(bars), _words(span)


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _words(span: timedelta) -> str:
    for unit, name in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        if span >= unit:
            count = round(span / unit)
            return f"{count} {name}s" if count > 1 else f"1 {name}"
    return "1 minute"
