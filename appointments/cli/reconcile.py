"""`reconcile`: a calendar against the log, as a table, JSON, CSV or a page; and what would mend it, dry run first."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.reconciling import bookmarks
from domain.commands import parse
from domain.errors import InvalidFields
from projections.reconciliation import healing
from projections.reconciliation.model import Finding, Kind, Policy, Report
from projections.reconciliation.page import page
from projections.reconciliation.run import Wanted
from projections.reconciliation.run import reconcile as compare
from projections.reconciliation.survey import Sides
from projections.reconciliation.table import to_csv
from saga.clock import WallClock

ROWS_MAX = 200
"""Findings in the table; the other formats hold all of them."""


class Format(StrEnum):
    """How the report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "reconcile", "appointments reconcile main --format html --output report.html")(reconcile)


async def reconcile(
    session: Session,
    calendar: Annotated[str, typer.Argument(help="The calendar, such as main.", metavar="CALENDAR")],
    format: Annotated[Format, typer.Option(help="How the report is written.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    changes: Annotated[bool, typer.Option("--changes", help="Only what has changed since the last time.")] = False,
    classes: Annotated[list[Kind] | None, typer.Option("--class", help="Only these; give it once for each.")] = None,
    policy: Annotated[Policy, typer.Option(help="What is proposed for an edit in the calendar.")] = Policy.PARK,
    heal: Annotated[bool, typer.Option("--heal", help="Show the commands that would mend it.")] = False,
) -> ExitCode:
    """Compare a calendar with the log: intended, attempted, there. Exit 0 when all is matched or in progress."""
    wanted = parse(
        Wanted,
        {
            "calendar": calendar,
            "tenant": session.settings.tenant,
            "policy": policy,
            "changes": changes,
            "with_matched": Kind.MATCHED in (classes or ()),
        },
    )
    _check_places(session, format, output)
    report = await _compared(session, wanted)
    shown = report.model_copy(update={"findings": _of(report.findings, classes)})
    cures = healing.plan(shown.findings) if heal else None
    _write(session, shown, format, output, cures)
    return ExitCode.DONE if report.agrees else ExitCode.FAILED


def _check_places(session: Session, format: Format, output: Path | None) -> None:
    if output is not None and not output.parent.is_dir():
        raise InvalidFields(f"--output {output}: there is no folder {output.parent}", (("/output", "no such folder"),))
    if output is not None and format is Format.TABLE:
        raise InvalidFields(f"--output {output}: add --format json, csv or html", (("/format", "no table in a file"),))
    if session.as_json and output is None and format in (Format.CSV, Format.HTML):
        raise InvalidFields(f"--json answers as JSON; for {format} add --output FILE", (("/output", "Field required"),))


async def _compared(session: Session, wanted: Wanted) -> Report:
    settings = session.settings
    kept_by = settings.calendars.get(wanted.calendar, settings.provider_name)
    if settings.provider == "local:" or kept_by != settings.provider_name:
        raise InvalidFields(
            f"calendar {wanted.calendar!r} cannot be read from here: its provider lives in another process; "
            "name the one that keeps it with --provider",
            (("/provider", "cannot be read from here"),),
        )
    clock = WallClock()
    store = await bootstrap.open_store(settings, read_only=True)
    try:
        provider = bootstrap.make_provider(settings, clock)
        try:
            with Shown(session) as shown:
                sides = Sides(store, provider, clock.now)
                return await compare(sides, wanted, bookmarks(settings), shown.told)
        finally:
            await provider.close()
    finally:
        await store.close()


class Shown:
    """The progress of a reconciliation: one bar after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._title = ""
        self._bar: ProgressReport | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, fault, trace)

    def told(self, title: str, done: int, total: int) -> None:
        """So far it is."""
        if title != self._title or self._bar is None:
            self.__exit__(None, None, None)
            self._title, self._bar = title, ProgressReport(self._session, title, total).__enter__()
        self._bar.advance(by=done - self._bar.done)


def _of(findings: Sequence[Finding], classes: list[Kind] | None) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if not classes or finding.kind in classes)


def _write(
    session: Session, report: Report, format: Format, output: Path | None, cures: Sequence[healing.Cure] | None
) -> None:
    document = report.model_dump(mode="json")
    if cures is not None:
        document["healing"] = [_planned(cure) for cure in cures]
    if output is not None:
        output.write_text(_text(report, document, format), encoding="utf-8", newline="")
    if session.as_json or (output is None and format is Format.TABLE):
        session.answer(document, Group(_shown(report), _cures(cures)))
        return
    if output is None:
        session.answered = True
        session.out.file.write(_text(report, document, format))
    else:
        session.out.print(_verdict(report))
        session.note(f"written to {output}")
    session.err.print(_cures(cures))


def _text(report: Report, document: dict[str, Any], format: Format) -> str:
    match format:
        case Format.CSV:
            return to_csv(report)
        case Format.HTML:
            return page(report)
        case Format.JSON | Format.TABLE:
            return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _planned(cure: healing.Cure) -> dict[str, Any]:
    return {"appointment": str(cure.appointment), "command": cure.word, "reason": cure.reason, "key": cure.key}


def _shown(report: Report) -> RenderableType:
    counts = [(str(kind).replace("_", " "), str(count)) for kind, count in report.counts.items() if count]
    facts = render.pairs((*counts, ("in progress", report.in_progress or None), ("listed", report.listed)))
    made = render.table("class", "appointment", "what is wrong", "started from", "repair")
    for finding in report.findings[:ROWS_MAX]:
        made.add_row(*map(Text, _cells(finding)))
    left = len(report.findings) - ROWS_MAX
    more = [Text(f"{left} more: --format csv --output FILE holds all of them")] if left > 0 else []
    more += [Text(f"not checked: {one.appointment or one.provider_ref}: {one.reason}") for one in report.unchecked[:20]]
    if report.note:
        more.append(Text(f"note: {report.note}"))
    return Group(*((made, Text("")) if report.findings else ()), facts, *more, _verdict(report))


def _cells(finding: Finding) -> tuple[str, ...]:
    event = finding.event
    return (
        finding.kind.replace("_", " "),
        str(finding.appointment or finding.provider_ref),
        "\n".join((finding.detail, *map(str, finding.fields))),
        f"{event.type}, version {event.version}" if event else "not in the log",
        finding.repair.replace("_", " "),
    )


def _verdict(report: Report) -> Text:
    style = "green" if report.agrees else "bold red"
    return Text(f"calendar agrees: {'yes' if report.agrees else 'no'}", style=style)


def _cures(cures: Sequence[healing.Cure] | None) -> RenderableType:
    if cures is None:
        return Group()
    made = render.table("command", "appointment", "because", title="Would be done (--apply does it)")
    for cure in cures:
        made.add_row(Text(cure.word), Text(str(cure.appointment)), Text(cure.reason))
    return made if cures else Text("nothing that a command could mend")
