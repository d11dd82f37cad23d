"""`reconcile`: a calendar against the log, as a table, JSON, CSV or a page; and what would mend it, dry run first."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Group

from appointments import bootstrap
from appointments.cli import reconcile_table
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.orchestrator import Orchestrator
from appointments.reconciling import Healed, bookmarks, planned
from domain.commands import parse
from domain.errors import InvalidFields
from projections.reconciliation import healing
from projections.reconciliation.model import Kind, Policy, Report
from projections.reconciliation.page import page
from projections.reconciliation.run import Wanted
from projections.reconciliation.run import reconcile as compare
from projections.reconciliation.survey import Sides, Told
from projections.reconciliation.table import to_csv
from saga.clock import WallClock

WAIT_S = 30.0
"""How long each command of a healing is waited for; what takes longer goes on when the store is next open."""


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
    apply: Annotated[bool, typer.Option("--apply", help="With --heal: give these commands.")] = False,
) -> ExitCode:
    """Compare a calendar with the log: intended, attempted, there. Exit 0 when nothing is left to mend."""
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
    _check(session, wanted, format, output)
    if apply and not heal:
        raise InvalidFields("--apply is for --heal", (("/apply", "needs --heal"),))
    with Shown(session) as shown:
        report, healed = await (_healed if apply else _compared)(session, wanted, classes, shown.told)
    _write(session, report, format, output, healed if heal else None)
    mended = apply and not report.unchecked and len(healed) == report.differences and all(h.well for h in healed)
    return ExitCode.DONE if report.agrees or mended else ExitCode.FAILED


def _check(session: Session, wanted: Wanted, format: Format, output: Path | None) -> None:
    if output is not None and not output.parent.is_dir():
        raise InvalidFields(f"--output {output}: there is no folder {output.parent}", (("/output", "no such folder"),))
    if output is not None and output.is_dir():
        raise InvalidFields(f"--output {output}: it is a folder; name a file in it", (("/output", "is a folder"),))
    if output is not None and format is Format.TABLE:
        raise InvalidFields(f"--output {output}: add --format json, csv or html", (("/format", "no table in a file"),))
    if session.as_json and output is None and format in (Format.CSV, Format.HTML):
        raise InvalidFields(f"--json answers as JSON; for {format} add --output FILE", (("/output", "Field required"),))
    settings = session.settings
    kept_by = settings.calendars.get(wanted.calendar, settings.provider_name)
    if settings.provider == "local:" or kept_by != settings.provider_name:
        raise InvalidFields(
            f"calendar {wanted.calendar!r} cannot be read from here: its provider lives in another process; "
            "name the one that keeps it with --provider",
            (("/provider", "cannot be read from here"),),
        )


async def _compared(
    session: Session, wanted: Wanted, classes: list[Kind] | None, told: Told
) -> tuple[Report, tuple[Healed, ...]]:
    """Beside whoever has the store open; what would be done about it is only planned."""
    settings, clock = session.settings, WallClock()
    store = await bootstrap.open_store(settings, read_only=True)
    try:
        provider = bootstrap.make_provider(settings, clock)
        try:
            report = await compare(Sides(store, provider, clock.now), wanted, bookmarks(settings), told)
        finally:
            await provider.close()
    finally:
        await store.close()
    report = _of(report, classes)
    return report, tuple(planned(cure) for cure in healing.plan(report.findings))


async def _healed(
    session: Session, wanted: Wanted, classes: list[Kind] | None, told: Told
) -> tuple[Report, tuple[Healed, ...]]:
    """Needs the store for itself, as every command does."""
    bootstrap.check_exists(session.settings)
    async with Orchestrator.open(session.settings) as desk:
        asked = wanted.model_dump(exclude={"calendar"})
        report = _of(await desk.reconcile(wanted.calendar, **asked, told=told), classes)
        return report, await desk.heal(report, dry_run=False, wait=WAIT_S, told=told)


def _of(report: Report, classes: list[Kind] | None) -> Report:
    shown = tuple(finding for finding in report.findings if not classes or finding.kind in classes)
    return report.model_copy(update={"findings": shown})


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


def _write(
    session: Session, report: Report, format: Format, output: Path | None, healed: Sequence[Healed] | None
) -> None:
    document = report.model_dump(mode="json")
    if healed is not None:
        document["healing"] = [one.model_dump(mode="json") for one in healed]
    if output is not None:
        output.write_text(_text(report, document, format), encoding="utf-8", newline="")
    if session.as_json or (output is None and format is Format.TABLE):
        session.answer(document, Group(reconcile_table.report(report), reconcile_table.healing(healed)))
        return
    if output is None:
        session.answered = True
        session.out.file.write(_text(report, document, format))
    else:
        session.out.print(reconcile_table.verdict(report))
        session.note(f"written to {output}")
    session.err.print(reconcile_table.healing(healed))


def _text(report: Report, document: dict[str, Any], format: Format) -> str:
    match format:
        case Format.CSV:
            return to_csv(report)
        case Format.HTML:
            return page(report)
        case Format.JSON | Format.TABLE:
            return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
