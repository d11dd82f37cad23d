"""Backup and restore: the log copied into one file, and from there into a new store, of whatever kind.

A backup is a store of its own: `check`, `audit` and `export` read it where it lies. Read models are not in it, for they
are refilled from the log; nor is the key that signs, which is to be kept elsewhere.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from appointments.access.tokens import token_file
from appointments.migration.split import split_file
from domain.provider import Value
from store.checkpoint import checkpoints_path
from store.copying import Progress, as_one_moment, copy_keys, copy_log, file_to_fill, file_to_read
from store.log_writer import LogWriter, TaskEntry
from store.sql import SqlStore


class Copied(Value):
    """What was copied: every event up to `position`, and what lies beside the log."""

    position: int
    keys: int
    """Of persons: without theirs, nothing that names them can be read."""
    beside: tuple[str, ...]


def backup(store: SqlStore, log: Path, to: Path, keys: Path | None, with_keys: bool, told: Progress) -> Copied:
    """Copy a log, as it is at one moment, into a new file, while it is used; blocks. `keys`: these into another file.

    `log` names what lies beside it. Raises `InvalidFields` for a file that is there already, and leaves none that is
    half done.
    """
    count = 0
    with store.readers.connect() as connection, as_one_moment(connection), file_to_fill(to) as target:
        position = copy_log(connection, target, told)
        if keys is not None:
            with file_to_fill(keys) as apart:
                count = copy_keys(connection, apart)
        elif with_keys:
            count = copy_keys(connection, target)
    return Copied(position=position, keys=count, beside=tuple(_copy_beside(log, to)))


async def restore(store: SqlStore, log: Path, given: Path, keys: Path | None, told: Progress) -> Copied:
    """Copy a backup into a store that is new: all of it, or nothing. Raises `InvalidFields`."""

    def fill(writer: LogWriter) -> tuple[int, int]:
        with file_to_read(given) as source, file_to_read(keys or given) as apart:
            return copy_log(source, writer.connection, told), copy_keys(apart, writer.connection)

    future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    store.journal.submit(TaskEntry(fill, future))
    position, count = await future
    return Copied(position=position, keys=count, beside=tuple(_copy_beside(given, log)))


def _copy_beside(log: Path, to: Path) -> Iterator[str]:
    """The signed checkpoints, the tokens and the split; their names, once each is copied."""
    for place in (checkpoints_path, split_file):
        if place(log).exists():
            shutil.copyfile(place(log), place(to))
            yield place(to).name
    if token_file(log).exists():
        token_file(to).unlink(missing_ok=True)
        token_file(to).touch(mode=0o600)
        with closing(sqlite3.connect(f"file:{token_file(log)}?mode=ro", uri=True)) as tokens:
            tokens.execute("VACUUM INTO ?", (str(token_file(to)),))
        yield token_file(to).name
