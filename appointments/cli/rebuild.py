"""Rebuild: read models refilled from the log, beside the process that holds it and without stopping anybody."""

from typing import Annotated

import typer

from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading_views
from appointments.cli.session import Session
from appointments.orchestrator import rebuild as rebuild_views
from projections.view_file import unreadable
from projections.views import PROJECTIONS

NAMED_MAX = 20
"""Streams that are named when they cannot be read."""
NAMES = ", ".join(projection.name for projection in PROJECTIONS)

Name = Annotated[str | None, typer.Argument(help=f"One of {NAMES}; all of them without a name.", metavar="[NAME]")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "rebuild", "appointments rebuild current_state")(rebuild)


async def rebuild(session: Session, name: Name = None) -> ExitCode:
    """Refill read models from the log, while commands and reads go on against the old ones."""
    async with reading_views(session) as views:
        with ProgressReport(session, "events folded", await views.goal()) as report:
            done = await rebuild_views(views, (name,) if name else (), lambda n, _: report.advance(by=n - report.done))
        left_out, _ = await views.read(done.projections[0], unreadable)
    facts = (("rebuilt", ", ".join(done.projections)), ("as of position", str(done.position)))
    session.answer(done.model_dump(mode="json"), render.pairs(facts))
    if left_out:
        named = ", ".join(map(str, left_out[:NAMED_MAX])) + (", …" if len(left_out) > NAMED_MAX else "")
        session.note(f"{len(left_out)} cannot be read and are left out ({named}): `appointments check` says why")
    return ExitCode.DONE
