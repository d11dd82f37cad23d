"""`checkpoint`: signs the log as it stands, to be kept where nobody who can change the log can change it."""

from pathlib import Path
from typing import Annotated

import typer

from appointments import bootstrap
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.settings import Settings
from domain.errors import InvalidFields
from saga.clock import WallClock
from store.checkpoint import Signer, append_checkpoint, checkpoints_path, fingerprint, last_checkpoint, signer
from store.checkpoint import take_checkpoint as take


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "checkpoint", "appointments checkpoint --output /media/safe/clinic.checkpoint")(checkpoint)


async def checkpoint(
    session: Session,
    output: Annotated[Path | None, typer.Option(help="Write it there too; a file that is there is added to.")] = None,
) -> ExitCode:
    """Sign the whole log as it stands: one line of JSON, also added to the checkpoints beside the log.

    Keep it elsewhere: with it, `check` tells whether anything up to there was changed since, and where.
    """
    async with reading(session) as store:
        by, log = signing(session), bootstrap.store_path(session.settings)
        last = last_checkpoint(log, by.public_key)
        with ProgressReport(
            session, "events signed", await store.position() - (last.position if last else 0)
        ) as report:
            taken = await take(store, by, WallClock().now(), last, lambda count: report.advance(by=count))
    append_checkpoint(checkpoints_path(log), taken)
    if output is not None:
        append_checkpoint(output, taken)
    session.answered = True
    session.out.file.write(taken.model_dump_json() + "\n")  # one line, however wide, and as it is in the files
    session.note(f"position {taken.position}, signed by the key {fingerprint(taken.public_key)}")
    return ExitCode.DONE


def signing(session: Session) -> Signer:
    """The key to sign with; says so when it was made just now. Raises `InvalidFields`."""
    if session.settings.store == "memory:":
        raise InvalidFields("a store in memory leaves nothing to sign; name one with --store")
    by = key_of(session.settings)
    assert by is not None
    if by.made_at is not None:
        session.note(
            f"made a key to sign with: {by.made_at}. Keep it away from the log: whoever has both can write the log anew"
        )
    return by


def key_of(settings: Settings, make: bool = True) -> Signer | None:
    """The key that the settings name, else the one beside the log. Raises `InvalidFields`."""
    configured = settings.signing_key.get_secret_value() if settings.signing_key is not None else None
    return signer(configured, bootstrap.store_path(settings), make)
