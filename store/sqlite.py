"""The store on one SQLite file. One process to a file; others may read."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self
from uuid import UUID

from sqlalchemy import Engine, update
from sqlalchemy.exc import DBAPIError

from domain.errors import StoreUnavailable
from store import reads
from store.journal import Journal
from store.log_writer import LogWriter
from store.port import OpenWork
from store.rows import microseconds
from store.sql import SqlStore
from store.sqlite_file import READERS_MAX, FileLock, check_ours, reading_engine, writing_connection
from store.sqlite_writer import SqliteLogWriter
from store.tables import IN_FLIGHT, open_work


class SqliteStore(SqlStore):
    """The log in one file. Make it by `open`, end it by `close`."""

    def __init__(self, owner: str, readers: Engine, journal: Journal | None, lock: FileLock | None) -> None:
        super().__init__(owner, readers, journal, READERS_MAX)
        self._lock = lock

    @classmethod
    def open(cls, path: str | Path, owner: str, *, read_only: bool = False) -> Self:
        """Open the file, made when new; `owner` is written into every row of open work.

        `read_only` takes no lock and writes nothing, so that it works beside the process that holds the file.
        Raises StoreLocked (another process holds it), StoreRefused (not ours), StoreUnavailable (cannot be opened).
        """
        path = Path(os.path.realpath(path))  # the lock lies beside the file itself, whatever link leads there
        readers = reading_engine(path)
        lock = None if read_only else FileLock(path)
        journal: Journal | None = None
        try:
            journal = None if read_only else Journal(lambda: SqliteLogWriter(writing_connection(path)))
            with readers.connect() as connection:
                check_ours(connection, path)
        except BaseException as error:
            readers.dispose()
            if journal is not None:
                journal.close()
            if lock is not None:
                lock.release()
            if isinstance(error, DBAPIError):
                raise StoreUnavailable(f"{path} cannot be opened: {error.orig}") from error
            raise
        return cls(owner, readers, journal, lock)

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        return await self._read(reads.due, now, limit, closed_lanes, skip)

    async def claim(self, owner: str, now: datetime, runs: Sequence[str] = ()) -> int:
        statement = (
            update(open_work)
            .where(IN_FLIGHT, open_work.c.owner != owner)
            .values(owner=owner, epoch=open_work.c.epoch + 1, due_at=microseconds(now))
        )

        def take_over(writer: LogWriter) -> int:
            return writer.connection.execute(statement).rowcount

        return await self._write(take_over)

    def close_now(self) -> None:
        super().close_now()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
