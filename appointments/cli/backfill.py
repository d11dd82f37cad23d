"""`backfill`: take over what the legacy system has booked. A dry run first; `--apply` writes it to the log."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.migration.backfill import Backfill, Backfilled, Outcome
from appointments.migration.records import Defaults, Entry, from_lines, from_listing, lines
from appointments.migration.standing import Standing
from appointments.orchestrator import Orchestrator
from domain.commands import parse
from domain.errors import InvalidFields
from store.memory import MemoryStore


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    example = "appointments backfill legacy.jsonl --calendar main --time-zone Europe/Berlin --apply"
    command(app, "backfill", example)(backfill)


async def backfill(
    session: Session,
    file: Annotated[str | None, typer.Argument(help="JSON Lines of records; without, the provider's listing.")] = None,
    calendar: Annotated[str, typer.Option(help="Which calendar they stand in.")] = "main",
    source: Annotated[str, typer.Option(help="The system that made them: a short name.")] = "legacy",
    time_zone: Annotated[str, typer.Option(help="The zone that people read their times in.")] = "UTC",
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Believe records without a look at the provider's listing.")
    ] = False,
    report: Annotated[str | None, typer.Option(help="Every entry and what became of it, as JSON Lines.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, nothing is written.")] = False,
) -> ExitCode:
    """Take over bookings that another system made. Shows what would come of it; nothing is written without --apply.

    Each becomes an appointment that is confirmed, once, however often this is run. Nothing is booked, moved or
    cancelled at the provider. A record whose booking does not stand in the calendar as it says is refused.
    """
    defaults = parse(Defaults, {"source": source, "calendar": calendar, "time_zone": time_zone})
    path = _readable(file)
    settings = session.settings
    fresh = not apply and bootstrap.is_new(settings)
    with ExitStack() as stack:
        written = stack.enter_context(_new(report)) if report is not None else None
        async with Orchestrator.open(settings, store=MemoryStore("dry run") if fresh else None) as desk:
            with ProgressReport(session, "taking over" if apply else "looking", _count(path)) as progress:
                listing = _Listing(session, progress, written)
                run = Backfill(desk, defaults, listing.tell, apply=apply)
                try:
                    if path is None:
                        await run.run(from_listing(desk.provider(calendar), defaults, settings.tenant))
                    else:
                        await run.run(_async(from_lines(path, defaults)), None if unchecked else Standing(desk))
                finally:
                    listing.end(run, apply)
    if not session.as_json:
        session.out.print(_shown(run, apply))
    if not apply and run.counts[Outcome.IMPORTED]:
        session.note("a dry run: nothing was written. With --apply it is")
    return ExitCode.DONE


class _Listing:
    """Tells of each entry: refusals as lines, or in one JSON document that is written as it grows; all in a report."""

    def __init__(self, session: Session, progress: ProgressReport, report: TextIO | None) -> None:
        self._session, self._progress, self._report = session, progress, report
        session.answered = True
        self._separator = '{"refused": ['

    def tell(self, one: Backfilled) -> None:
        """One entry has come to its outcome."""
        if self._report is not None:
            self._report.write(one.model_dump_json() + "\n")
        if one.outcome is Outcome.REFUSED:
            if self._session.as_json:
                self._session.out.file.write(self._separator + one.model_dump_json())
                self._separator = ","
            else:
                self._progress.line(f"{one.where}: {one.outcome}: {one.reason}")
        self._progress.advance()

    def end(self, run: Backfill, apply: bool) -> None:
        """Close the document, with the counts, also where the run broke off."""
        if self._session.as_json:
            begun = "" if self._separator == "," else self._separator
            counts = {"applied": apply, "counts": {str(o): run.counts[o] for o in Outcome}, "skipped": run.skipped}
            self._session.out.file.write(f"{begun}], {json.dumps(counts)[1:]}\n")


def _shown(run: Backfill, apply: bool) -> RenderableType:
    names = {Outcome.IMPORTED: "taken over" if apply else "to be taken over", Outcome.ALREADY_THERE: "already there"}
    rows = []
    for outcome in Outcome:
        rows.append((names.get(outcome, str(outcome)), str(run.counts[outcome])))
        if outcome is Outcome.SKIPPED:
            rows += [(f"  {reason}", str(count)) for reason, count in sorted(run.skipped.items())]
    return Group(render.pairs(rows), Text(""))


def _readable(file: str | None) -> Path | None:
    if file is None:
        return None
    path = Path(file)
    if not path.is_file():
        raise InvalidFields(f"{file}: there is no such file", (("/file", "no such file"),))
    return path


def _count(path: Path | None) -> int | None:
    return None if path is None else sum(1 for _ in lines(path)) or None


def _new(report: str) -> TextIO:
    try:
        return Path(report).open("x", encoding="utf-8")
    except OSError as fault:
        raise InvalidFields(f"--report {report}: {fault.strerror}; name a file that is not there yet") from None


async def _async(entries: Iterator[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry
