"""`backfill`: take over what the legacy system has booked. A dry run first; `--apply` writes it to the log."""

from collections import Counter
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
from appointments.migration.backfill import Backfill, Backfilled, Outcome, Standing
from appointments.migration.records import Defaults, Entry, from_lines, from_listing
from appointments.orchestrator import Orchestrator
from domain.commands import parse
from domain.errors import InvalidFields
from store.memory import MemoryStore

TOLD = (Outcome.REFUSED,)
"""The outcomes that get a line of their own."""


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
    fresh = not apply and settings.store != "memory:" and not bootstrap.store_path(settings).exists()
    with ExitStack() as stack:
        written = stack.enter_context(_new(report)) if report is not None else None
        async with Orchestrator.open(settings, store=MemoryStore("dry run") if fresh else None) as desk:
            provider = desk.provider(calendar)
            with ProgressReport(session, "taking over" if apply else "looking", _lines(path)) as progress:

                def tell(one: Backfilled) -> None:
                    if written is not None:
                        written.write(one.model_dump_json() + "\n")
                    if one.outcome in TOLD and not session.as_json:
                        progress.line(f"{one.where}: {one.outcome}: {one.reason}")
                    progress.advance()

                run = Backfill(desk, defaults, tell, apply=apply)
                if path is None:
                    counts = await run.run(from_listing(provider, defaults))
                else:
                    there = None if unchecked else await Standing.of(provider, calendar)
                    counts = await run.run(_async(from_lines(path, defaults)), there)
    session.answer({"applied": apply, "counts": {str(o): counts[o] for o in Outcome}}, _shown(counts, apply))
    if not apply and counts[Outcome.IMPORTED]:
        session.note("a dry run: nothing was written. With --apply it is")
    return ExitCode.DONE


def _shown(counts: Counter[Outcome], apply: bool) -> RenderableType:
    names = {Outcome.IMPORTED: "taken over" if apply else "to be taken over", Outcome.ALREADY_THERE: "already there"}
    return Group(
        render.pairs([(names.get(outcome, str(outcome)), str(counts[outcome])) for outcome in Outcome]), Text("")
    )


def _readable(file: str | None) -> Path | None:
    if file is None:
        return None
    path = Path(file)
    if not path.is_file():
        raise InvalidFields(f"{file}: there is no such file", (("/file", "no such file"),))
    return path


def _lines(path: Path | None) -> int | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file) or None


def _new(report: str) -> TextIO:
    try:
        return Path(report).open("x", encoding="utf-8")
    except OSError as fault:
        raise InvalidFields(f"--report {report}: {fault.strerror}; name a file that is not there yet") from None


async def _async(entries: Iterator[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry
