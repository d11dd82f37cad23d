"""`backup` and `restore`: the log in one file, made while work goes on, and a new store made of it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.backup import Copied
from appointments.backup import backup as copy_out
from appointments.backup import restore as copy_in
from appointments.cli import render
from appointments.cli.check import examine, shown
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.settings import Settings
from domain.errors import InvalidFields
from projections.ownership import tenant_of
from store.port import Store
from store.sql import SqlStore


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    command(app, "backup", "appointments backup /media/safe/2026-11-25.db --keys /media/keys/2026-11-25.db")(backup)
    command(app, "restore", "appointments restore /media/safe/2026-11-25.db --store sqlite:///data/new.db")(restore)


async def backup(
    session: Session,
    to: Annotated[Path, typer.Argument(help="The file to write; it must not be there.", metavar="FILE")],
    keys: Annotated[Path | None, typer.Option(help="Write the persons' keys into a file of their own.")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Leave the persons' keys out.")] = False,
) -> ExitCode:
    """Copy the log into one file, as it is at one moment, while work goes on.

    The file is a store: `check` and `audit` read it by --store. A copy that holds keys undoes an erasure that comes
    later: keep the keys apart (--keys), and of these the newest file alone.
    """
    if no_keys and keys is not None:
        raise InvalidFields("--keys and --no-keys at once: give one of them")
    async with reading(session) as store:
        with ProgressReport(session, "events copied", await store.position()) as report:
            copied = await asyncio.to_thread(
                copy_out,
                _in_tables(store),
                bootstrap.store_path(session.settings),
                to,
                keys,
                not no_keys,
                lambda count: report.advance(by=count),
            )
    if keys is None and not no_keys:
        of_copy = session.settings.model_copy(update={"store": f"sqlite:///{to}"})
        return await _checked(replace(session, settings=of_copy), session, copied)
    session.answer(copied.model_dump(mode="json"), _shown(copied))
    return ExitCode.DONE


async def restore(
    session: Session,
    given: Annotated[Path, typer.Argument(help="What `backup` wrote.", metavar="FILE")],
    keys: Annotated[Path | None, typer.Option(help="The file that --keys of `backup` wrote.")] = None,
) -> ExitCode:
    """Copy a backup into a new store (--store), of whatever kind, then check it. All of it is there, or nothing.

    So a log also moves to another database. Nothing may go on with the old one: what was booked after the backup is at
    the providers and not in the log; `reconcile` shows it.
    """
    for file in filter(None, (given, keys)):
        if not file.is_file():
            raise InvalidFields(f"there is no file {file}")
    if session.settings.shard is not None:
        await _check_kept_here(session.settings, given)
    store = await bootstrap.open_store(session.settings)
    try:
        with ProgressReport(session, "events copied", None) as report:
            copied = await copy_in(
                _in_tables(store),
                bootstrap.store_path(session.settings),
                given,
                keys,
                lambda count: report.advance(by=count),
            )
    finally:
        await store.close()
    return await _checked(session, session, copied)


async def _check_kept_here(settings: Settings, given: Path) -> None:
    """Raise `InvalidFields` for a copy with appointments that another shard keeps: two would carry them out."""
    copy = await bootstrap.open_store(settings.model_copy(update={"store": f"sqlite:///{given}"}), read_only=True)
    try:
        after = None
        while ids := await copy.streams(after):
            for id in ids:
                if (tenant := await tenant_of(copy, id)) is not None:
                    settings.check_kept_here(tenant)
            after = ids[-1]
    finally:
        await copy.close()


def _in_tables(store: Store) -> SqlStore:
    if not isinstance(store, SqlStore):
        raise InvalidFields("a store in memory is copied by nobody; name one with --store")
    return store


async def _checked(copy: Session, session: Session, copied: Copied) -> ExitCode:
    """Answer with what was copied, and what a check of the copy finds."""
    found, by = await examine(copy)
    both = {**copied.model_dump(mode="json"), "check": {**found.model_dump(mode="json"), "signed_by": by}}
    session.answer(both, Group(_shown(copied), Text(""), shown(found, by)))
    return ExitCode.DONE if found.ok else ExitCode.FAILED


def _shown(copied: Copied) -> RenderableType:
    return render.pairs(
        (
            ("copied up to position", str(copied.position)),
            ("persons' keys", str(copied.keys)),
            ("beside it", ", ".join(copied.beside) or "nothing"),
        )
    )
