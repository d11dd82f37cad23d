"""The SQLite file: who may open it, whether it is ours, and how its connections are set up.

Owns the lock file, the schema check and the pragmas. One process writes a file; within it one connection writes and
checkpoints (two that do so can corrupt the log in SQLite 3.7.0 to 3.51.2).
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from domain.errors import StoreLocked, StoreRefused, StoreUnavailable
from store.tables import APPLICATION_ID, SCHEMA_VERSION, metadata

READERS_MAX = 2
"""Threads, and connections, that read at once."""
SYNCHRONOUS = "FULL"
"""The log is synced at each commit: with NORMAL, what was acknowledged is lost when the power goes."""
BUSY_TIMEOUT_S = 1.0
"""How long a foreign tool's lock on the file is waited for."""
WAL_PAGES_MAX = 2_000
"""Pages (4 KiB each) in the log before they are checkpointed into the file."""
WAL_BYTES_KEPT = 64 * 2**20
WRITER_CACHE_KIB = 16_384


class FileLock:
    """Held by the one process that may write; the system lets go of it when the process dies."""

    def __init__(self, path: Path) -> None:
        lock_path = path.with_name(path.name + ".lock")
        try:
            self._file = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnavailable(f"{lock_path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreLocked(
                f"{path} is held by process {holder}: stop that process, send the work to it,"
                " or open the store read-only"
            ) from None
        except OSError as error:
            os.close(self._file)
            raise StoreUnavailable(f"{lock_path} cannot be locked and written: {error.strerror}") from error

    def release(self) -> None:
        """Let go; the lock file stays, because removing it would race with the next holder."""
        os.close(self._file)


def writing_connection(path: Path) -> Connection:
    """The connection of the journal, with tables made where the file is new. Raises StoreRefused."""
    engine = _engine(path, "rwc", poolclass=NullPool)
    connection = engine.connect()
    try:
        check_ours(connection, path)
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={SYNCHRONOUS}",
            "fullfsync=1",
            "checkpoint_fullfsync=1",
            f"wal_autocheckpoint={WAL_PAGES_MAX}",
            f"journal_size_limit={WAL_BYTES_KEPT}",
            f"cache_size=-{WRITER_CACHE_KIB}",
            "temp_store=MEMORY",
            "secure_delete=ON",  # from the first row on: a page that is split keeps copies of rows that moved
        ):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        if not _pragma(connection, "user_version"):
            _create(connection)
        connection.rollback()
    except BaseException:
        connection.close()
        raise
    return connection


def reading_engine(path: Path) -> Engine:
    """Connections that cannot write and never checkpoint; each statement is a read transaction of its own."""
    return _engine(path, "ro", poolclass=QueuePool, pool_size=READERS_MAX, max_overflow=0)


def check_ours(connection: Connection, path: Path) -> None:
    """Raise StoreRefused unless the file is a store of a known version, or empty."""
    try:
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
    except DBAPIError as error:
        if "not a database" in str(error.orig):
            raise StoreRefused(f"{path} is not a SQLite file: choose another path") from error
        raise
    if application == 0 and version == 0 and tables == 0:
        return
    if application != APPLICATION_ID:
        raise StoreRefused(f"{path} is a SQLite file of another application: choose another path")
    if version != SCHEMA_VERSION:
        raise StoreRefused(
            f"{path} has schema version {version}, this program knows {SCHEMA_VERSION}: use the version that wrote it"
        )


def _create(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.commit()


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _engine(path: Path, mode: str, **pool: Any) -> Engine:
    address = f"file:{quote(str(path))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)

    return create_engine("sqlite+pysqlite://", creator=connect, **pool)
