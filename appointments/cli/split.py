"""`split`: show and set how much of what is new is led by this system, while the process that serves goes on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from appointments.migration.split import Change, Shares, Split, Standing, history, split_file
from domain.commands import parse
from domain.errors import InvalidFields
from saga.clock import WallClock

SHOWN_MAX = 10

Why = Annotated[str, typer.Option("--reason", help="Why, for those who read the file later.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(name="split", help="How much is led by this system, and how much by the legacy one.")
    group.info.no_args_is_help = True
    command(group, "show", "appointments split show")(show)
    command(group, "set", "appointments split set --writes 10 --reads 100 --reason 'gate 3 passed'")(set_)
    command(group, "stop", "appointments split stop --reason 'booked twice, see case 17'")(stop)
    command(group, "resume", "appointments split resume --reason 'fixed by release 12'")(resume)
    app.add_typer(group)


async def show(session: Session) -> ExitCode:
    """Show what is in force, since when and why, and the changes before it."""
    file = _file(session)
    return _told(session, file, Split(file).standing())


async def set_(
    session: Session,
    reason: Why,
    writes: Annotated[float | None, typer.Option(help="Per cent of new bookings that are ours.")] = None,
    reads: Annotated[float | None, typer.Option(help="Per cent of reads that our log answers; before writes.")] = None,
) -> ExitCode:
    """Set how much is ours; what is left out stays as it is. The kill switch stays as it is, too.

    A key that is ours stays ours when the figure is raised. Lowered, what has begun here ends here: it drains.
    """
    if writes is None and reads is None:
        raise InvalidFields("say what is to change: --writes, --reads, or both")
    return _change(session, reason, writes=writes, reads=reads)


async def stop(session: Session, reason: Why) -> ExitCode:
    """Kill switch: from now on nothing new is ours, whatever the figures say; what has begun ends where it began."""
    return _change(session, reason, stopped=True)


async def resume(session: Session, reason: Why) -> ExitCode:
    """Take the kill switch back: the figures that were set hold again."""
    return _change(session, reason, stopped=False)


def _change(session: Session, reason: str, **given: float | bool | None) -> ExitCode:
    file = _file(session)
    split = Split(file)
    before = split.standing()
    fields = before.shares.model_dump() | {name: value for name, value in given.items() if value is not None}
    shares = parse(Shares, fields)
    if before.change is not None and before.fault is None and shares == before.shares:
        session.note("this is in force already; the reason is noted")
    told = {"at": WallClock().now(), "actor": session.settings.actor, "reason": reason}
    split.change(parse(Change, shares.model_dump() | told))
    return _told(session, file, split.standing())


def _file(session: Session) -> Path:
    if session.settings.store == "memory:":
        raise InvalidFields("a log in memory has no split; name one with --store sqlite:///…", (("/store", "no file"),))
    bootstrap.check_exists(session.settings)
    return split_file(bootstrap.store_path(session.settings))


def _told(session: Session, file: Path, standing: Standing) -> ExitCode:
    if session.settings.legacy is None:
        session.note("no legacy system is set (APPOINTMENTS_LEGACY): everything is ours, whatever stands here")
    past = list(history(file))
    document = {
        "shares": standing.shares.model_dump(),
        "since": standing.change.model_dump(mode="json") if standing.change else None,
        "fault": standing.fault,
        "changes": [change.model_dump(mode="json") for change in past],
    }
    session.answer(document, _shown(standing, past))
    return ExitCode.FAILED if standing.fault else ExitCode.DONE


def _shown(standing: Standing, past: list[Change]) -> RenderableType:
    shares = standing.shares
    switch = Text("thrown: nothing new is ours", "bold red") if shares.stopped else Text("not thrown")
    facts = render.pairs(
        (
            ("new bookings", f"{shares.writes:g} % ours"),
            ("reads", f"{shares.reads:g} % ours"),
            ("kill switch", switch),
            ("fault", Text(standing.fault, "bold red") if standing.fault else None),
        )
    )
    if not past:
        return Group(facts, Text("nothing was set yet: the legacy system leads"))
    made = render.table("when", "writes", "reads", "kill switch", "who", "why")
    for change in past[:SHOWN_MAX]:
        when, stopped = render.local(change.at, "UTC", seconds=True), "thrown" if change.stopped else ""
        cells = (when, f"{change.writes:g} %", f"{change.reads:g} %", stopped, change.actor, change.reason)
        made.add_row(*(Text(cell) for cell in cells))
    return Group(facts, Text(""), made)
