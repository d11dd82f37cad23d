"""`erase`: make a person's data unreadable for good. A dry run first; `--apply` destroys the key."""

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.read import uuid
from appointments.cli.session import Session
from appointments.orchestrator import Orchestrator
from appointments.privacy import Erasure, ErasureRequest
from domain.commands import parse
from domain.errors import InvalidFields

SHOWN_MAX = 20


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "erase", "appointments erase --email pat@example.org --reference request-2026-118 --apply")(erase)


async def erase(
    session: Session,
    reference: Annotated[str, typer.Option(help="The number of the request, for the audit trail; never a name.")],
    email: Annotated[str | None, typer.Option(help="Whom to erase: the address in the appointments.")] = None,
    appointment: Annotated[
        str | None, typer.Option(help="Or: an appointment that names nobody, by its id.", metavar="ID")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it. It cannot be undone.")] = False,
) -> ExitCode:
    """Make what the log says of a person unreadable for good. Shows what is concerned; nothing is done without --apply.

    The course of the appointments, their chains and their figures stay. What the provider's calendar holds is not ours
    to erase: cancel the appointments first.
    """
    if (email is None) == (appointment is None):
        raise InvalidFields("name one of them: --email, or --appointment for one that names nobody")
    parse(ErasureRequest, {"actor": session.settings.actor, "reference": reference})
    whom = {"email": email} if email is not None else {"appointment": uuid(str(appointment))}
    bootstrap.check_exists(session.settings)
    async with Orchestrator.open(session.settings) as desk:
        found = await desk.erase(**whom, reference=reference, dry_run=not apply)
    session.answer(found.model_dump(mode="json"), _shown(found))
    if not apply and not session.as_json and found.appointments:
        session.note("a dry run: nothing was erased. With --apply it is, and cannot be undone")
    return ExitCode.FAILED if found.unfinished else ExitCode.DONE


def _shown(found: Erasure) -> RenderableType:
    if not found.appointments:
        return Text("nothing is known of this person: nothing to erase")
    what = "erased in" if found.applied else "to be erased in"
    lines: list[Any] = [Text(f"{what} {len(found.appointments)} appointments")]
    lines += [Text(f"  {id}") for id in found.appointments[:SHOWN_MAX]]
    more = len(found.appointments) - SHOWN_MAX
    if more > 0:
        lines.append(Text(f"  and {more} more"))
    if found.unfinished:
        lines.append(Text(f"{len(found.unfinished)} of them are unfinished: cancel them, or wait for their end", "red"))
    return Group(*lines)
