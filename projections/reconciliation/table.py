"""A report as rows: for CSV, and for whatever shows one finding to a line."""

import csv
import io
from collections.abc import Iterator

from projections.reconciliation.model import Finding, Report, Unchecked

COLUMNS = (
    *("class", "appointment", "version", "provider_ref", "event_version", "event_type", "event_at"),
    *("detail", "fields", "calls", "last_call", "last_outcome", "repair"),
)
UNCHECKED = "unchecked"
"""Stands in the place of a class where a difference could not be checked again."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(report: Report) -> str:
    """The findings, and what could not be checked, as CSV (RFC 4180) that no spreadsheet takes for formulas."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_harmless(cell) for cell in row] for row in rows(report))
    return text.getvalue()


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """One row of texts for each finding, in the order of `COLUMNS`."""
    for finding in report.findings:
        yield _row(finding)
    for unchecked in report.unchecked:
        yield _unchecked(unchecked)


def _row(finding: Finding) -> tuple[str, ...]:
    event, attempted = finding.event, finding.attempted
    return (
        finding.kind,
        str(finding.appointment or ""),
        str(finding.version or ""),
        finding.provider_ref or "",
        str(event.version) if event else "",
        event.type if event else "",
        event.at.isoformat() if event else "",
        finding.detail,
        "; ".join(map(str, finding.fields)),
        str(attempted.calls),
        attempted.operation or "",
        attempted.outcome,
        finding.repair,
    )


def _unchecked(unchecked: Unchecked) -> tuple[str, ...]:
    about = (UNCHECKED, str(unchecked.appointment or ""), "", unchecked.provider_ref or "", "", "", "")
    return (*about, unchecked.reason, "", "", "", "", "")


def _harmless(cell: str) -> str:
    # A spreadsheet runs what begins like a formula, also behind quotes or white space; an apostrophe makes it text.
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) or cell.startswith(_FORMULA) else cell
