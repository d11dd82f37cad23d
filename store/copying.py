"""A log copied whole, from any store to any other: what a backup is, and how a log moves to another database.

Owns which tables are copied and in which order. What is a cache is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select
from sqlalchemy.exc import DBAPIError

from domain.errors import InvalidFields, StoreUnavailable
from store.sqlite_file import FileLock, check_ours, reading_engine, writing_connection
from store.tables import checkpoints, events, open_work, subject_keys

ROWS_AT_ONCE = 1_000
Progress = Callable[[int], None]
"""Called with how many more events are copied."""


def copy_log(source: Connection, target: Connection, told: Progress) -> int:
    """Add the log, its open work and its checkpoints to `target`; the position of the last event.

    Within the transaction that `target` is in. Raises `InvalidFields` where it holds some already.
    """
    last = 0
    for table in (events, open_work, checkpoints):
        for rows in _copied(source, target, table):
            if table is events:
                last = rows[-1].position
                told(len(rows))
    return last


def copy_keys(source: Connection, target: Connection) -> int:
    """Add the persons' keys; how many there are. As `copy_log`."""
    return sum(len(rows) for rows in _copied(source, target, subject_keys))


def _copied(source: Connection, target: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    if target.execute(select(table).limit(1)).first() is not None:
        raise InvalidFields(f"there are {table.name} already: copy into a store that is new")
    for rows in _pages(source, table):
        target.execute(insert(table), [row._asdict() for row in rows])
        yield rows


def _pages(source: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    """In order of the primary key, each page from where the one before ended: nothing is held open in between."""
    (key,) = table.primary_key.columns
    query = select(table).order_by(key).limit(ROWS_AT_ONCE)
    page = source.execute(query).all()
    while page:
        yield page
        page = source.execute(query.where(key > getattr(page[-1], key.name))).all()


@contextmanager
def as_one_moment(connection: Connection) -> Iterator[Connection]:
    """Have everything that is read by this connection be as it is now."""
    at_once = "BEGIN" if connection.dialect.name == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    connection.exec_driver_sql(at_once)
    try:
        yield connection
    finally:
        connection.rollback()


@contextmanager
def file_to_fill(path: Path) -> Iterator[Connection]:
    """A new SQLite store, written in one transaction. Nothing is left of it when the block raises."""
    if path.exists():
        raise InvalidFields(f"{path} is there already: name a file that is not")
    part = path.with_name(path.name + ".part")
    lock = FileLock(part)
    try:
        _remove(part)  # what a copy that was killed has left
        part.touch(mode=0o600)  # it holds the keys
        connection = writing_connection(part)
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
            connection.exec_driver_sql("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        finally:
            connection.close()
        part.replace(path)
    except DBAPIError as fault:
        raise StoreUnavailable(f"{path} cannot be written: {fault.orig}") from fault
    finally:
        _remove(part)
        part.with_name(part.name + ".lock").unlink(missing_ok=True)
        lock.release()


@contextmanager
def file_to_read(path: Path) -> Iterator[Connection]:
    """A SQLite store to copy from. Raises `InvalidFields` where there is none, `StoreRefused` for another file."""
    if not path.is_file():
        raise InvalidFields(f"there is no file {path}")
    readers = reading_engine(path)
    try:
        with readers.connect() as connection:
            check_ours(connection, path)
            yield connection
    except DBAPIError as fault:
        raise StoreUnavailable(f"{path} cannot be read: {fault.orig}") from fault
    finally:
        readers.dispose()


def _remove(part: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + end).unlink(missing_ok=True)
