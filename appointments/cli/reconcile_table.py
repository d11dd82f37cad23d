"""What `reconcile` shows on a terminal: the findings, the verdict, and what came of each command."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from appointments.cli import render
from appointments.reconciling import Healed
from projections.reconciliation.model import Finding, Report

ROWS_MAX = 200
"""Findings in the table; the other formats hold all of them."""
UNCHECKED_MAX = 20


def report(report: Report) -> RenderableType:
    """All of it."""
    counts = [(str(kind).replace("_", " "), str(count)) for kind, count in report.counts.items() if count]
    facts = render.pairs((*counts, ("in progress", report.in_progress or None), ("listed", report.listed)))
    made = render.table("class", "appointment", "what is wrong", "started from", "repair")
    for finding in report.findings[:ROWS_MAX]:
        made.add_row(*(Text(_harmless(cell)) for cell in _cells(finding)))
    left = len(report.findings) - ROWS_MAX
    more = [Text(f"{left} more: --format csv --output FILE holds all of them")] if left > 0 else []
    more += [
        Text(_harmless(f"not checked: {one.appointment or one.provider_ref}: {one.reason}"))
        for one in report.unchecked[:UNCHECKED_MAX]
    ]
    if report.note:
        more.append(Text(f"note: {report.note}"))
    return Group(*((made, Text("")) if report.findings else ()), facts, *more, verdict(report))


def _harmless(text: str) -> str:
    # A reference is a stranger's text, and a terminal obeys control characters.
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _cells(finding: Finding) -> tuple[str, ...]:
    event = finding.event
    return (
        finding.kind.replace("_", " "),
        str(finding.appointment or finding.provider_ref),
        "\n".join((finding.detail, *map(str, finding.fields))),
        f"{event.type}, version {event.version}" if event else "not in the log",
        finding.repair.replace("_", " "),
    )


def verdict(report: Report) -> Text:
    """Does the calendar agree?"""
    style = "green" if report.agrees else "bold red"
    return Text(f"calendar agrees: {'yes' if report.agrees else 'no'}", style=style)


def healing(healed: Sequence[Healed] | None) -> RenderableType:
    """The commands of a plan and what came of them; None: there was no plan."""
    if healed is None:
        return Group()
    if not healed:
        return Text("nothing that a command could mend")
    made = render.table("command", "appointment", "because", "came to", title="Healing")
    for one in healed:
        came_to = "planned; --apply gives it" if one.outcome == "planned" else f"{one.outcome}: {one.detail}"
        made.add_row(*map(Text, (one.command, str(one.appointment), one.reason, came_to)))
    return made
