"""`export`: the history of an appointment, or all of it, for somebody who does not trust this program."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from appointments.cli.checkpoint import signing
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading, uuid
from appointments.cli.session import Session
from appointments.orchestrator import as_it_was
from domain.errors import InvalidFields
from projections.export import export as lines_of
from saga.clock import WallClock
from store.checkpoint import fingerprint


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "export", "appointments export --all --output history.jsonl")(export)


async def export(
    session: Session,
    id: Annotated[str | None, typer.Argument(help="The appointment's id.", metavar="ID")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole log, of all tenants.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where to write; else standard output.")] = None,
    personal: Annotated[
        bool, typer.Option("--personal/--no-personal", help="Tell events in clear, with what is about people.")
    ] = True,
) -> ExitCode:
    """Export the history of an appointment, or of all, as JSON lines that anybody can verify.

    The last line signs them. docs/audit.md says how, docs/verify_history.py does it.
    """
    if (id is None) is not everything:
        raise InvalidFields("give the ID of an appointment, or --all for the whole log", (("/id", "one of both"),))
    async with reading(session) as store:
        one = None if id is None else uuid(id)
        if one is not None:
            await as_it_was(store, one, session.settings.tenant, None, None)  # is it there, and this tenant's?
        by = signing(session)
        with (
            _writing(output) as file,
            ProgressReport(session, "events walked", await store.position()) as report,
        ):
            session.answered = output is None
            made = lines_of(store, by, WallClock().now(), one, personal, lambda count: report.advance(by=count))
            async for line in made:
                file.write(line)
    session.note(f"signed by the key {fingerprint(by.public_key)}")
    return ExitCode.DONE


@contextmanager
def _writing(output: Path | None) -> Iterator[BinaryIO]:
    """Where the lines go. A file is there under its name only once it is whole, and for its owner alone."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()  # here it can still be told that the reader has gone
        return
    output = Path(os.path.realpath(output))
    if output.exists() and not output.is_file():
        raise InvalidFields(f"{output} is no file; without --output the lines go to standard output")
    part = output.with_name(output.name + ".part")
    part.unlink(missing_ok=True)  # of an export that was killed
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(part, output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
