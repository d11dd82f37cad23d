"""One read model in a file: its checkpoint, and the one connection of this process that writes and reads it.

It is no truth: what is damaged, or belongs to another log, is thrown away and refilled.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from domain.errors import StoreUnavailable
from projections.following import Folded
from projections.generations import Generations
from projections.projection import Change, Projection

T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0
"""How long another process's batch is waited for."""
CACHE_KIB = 16_384
WAL_BYTES_KEPT = 16 * 2**20
TRIES_MAX = 10
"""How often a file that is damaged, or replaced at this moment, is opened anew."""

_SHARED = ("journal_mode=WAL", "synchronous=NORMAL", f"journal_size_limit={WAL_BYTES_KEPT}")
_ALONE = ("journal_mode=MEMORY", "synchronous=OFF")
"""Nobody else sees it yet, and after a crash it is built anew."""
# Personal data may have to vanish: a row that is overwritten leaves nothing behind in free pages.
_ALWAYS = ("secure_delete=ON", "temp_store=MEMORY", f"cache_size=-{CACHE_KIB}")

_metadata = MetaData()
_checkpoint = Table(
    "checkpoint",
    _metadata,
    Column("position", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)
_unreadable = Table(
    "unreadable", _metadata, Column("stream_id", LargeBinary(16), primary_key=True), sqlite_with_rowid=False
)


class Checkpoint(NamedTuple):
    """How far a read model has come; the digest of the event there tells in which log."""

    position: int = 0
    digest: bytes = b""


class ViewFile:
    """The read model of one projection, opened when it is first used. For any thread, one at a time.

    `generations` None: in memory. `building`: the next generation, which nobody else sees yet.
    """

    def __init__(self, projection: Projection, generations: Generations | None, building: bool = False) -> None:
        self.projection = projection
        self.verified = False
        """The checkpoint was found in the log since this generation was opened."""
        self._generations, self._building = generations, building
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closed = False
        self._opened = (0, 0)

    def checkpoint(self) -> Checkpoint:
        """How far it has come."""
        return self._run(_read_checkpoint)

    def read(self, query: Callable[[Connection], T]) -> tuple[T, int]:
        """What a query says, and the position as of which it is true."""
        return self._run(lambda connection: (query(connection), _read_checkpoint(connection).position))

    def apply(self, after: Checkpoint, folded: Folded, reached: Checkpoint) -> bool:
        """Write a batch and its checkpoint as one. False: somebody else has moved on, and nothing was written."""

        def write(connection: Connection) -> bool:
            if _read_checkpoint(connection) != after:
                return False
            self._write(connection, folded)
            connection.execute(update(_checkpoint).values(reached._asdict()))
            return True

        written = self._run(write, "BEGIN IMMEDIATE")
        if written and folded.erased:
            # The pages from before the erasure are still in the write-ahead log.
            self._run(lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all(), None)
        return written

    def throw_away(self) -> None:
        """Go on with an empty one."""
        with self._lock, self._told():
            self._throw_away()

    def successor(self) -> "ViewFile":
        """An empty one, to be filled beside this one; one at a time in a folder."""
        made = ViewFile(self.projection, self._generations, building=True)
        made.throw_away()
        made._each_index(Index.drop)
        return made

    def replace_by(self, successor: "ViewFile") -> None:
        """Go on with what `successor` holds, all at once; other processes turn to it at their next call."""
        # Of all rows at once an index is made in half the time that they take one by one.
        successor._each_index(lambda index, connection: index.create(connection, checkfirst=True))
        with self._lock, successor._lock, self._told():
            self._check_open()
            self._let_go()
            if self._generations is None:
                self._connection, successor._connection = successor._connection, None
            else:
                successor._let_go()
                self._generations.publish()

    def close(self) -> None:
        """Let go of the file, for good: what comes later is refused, for nobody would close it again."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _write(self, connection: Connection, folded: Folded) -> None:
        known = _known_unreadable(connection, folded)
        changes: Sequence[Change] = folded.changes
        if known:
            changes = [change for change in changes if change.recorded.stream_id.bytes not in known]
        self.projection.apply(connection, changes)
        if found := [id for id in folded.unreadable if id.bytes not in known]:
            connection.execute(insert(_unreadable), [{"stream_id": id.bytes} for id in found])
            if forget := getattr(self.projection, "forget", None):
                forget(connection, found)

    def _each_index(self, change: Callable[[Index, Connection], None]) -> None:
        def run(connection: Connection) -> None:
            for table in self.projection.metadata.sorted_tables:
                for index in table.indexes:
                    change(index, connection)

        self._run(run)

    def _told(self) -> AbstractContextManager[None]:
        return told_as_unavailable(self._generations.folder) if self._generations else nullcontext()

    def _run(self, work: Callable[[Connection], T], begin: str | None = "BEGIN") -> T:
        with self._lock, self._told():
            for _ in range(TRIES_MAX):
                try:
                    return _transaction(self._current(), work, begin)
                except (DatabaseError, ValidationError) as fault:
                    if isinstance(fault, OperationalError):
                        name = self.projection.name
                        raise StoreUnavailable(f"the read model {name} cannot be used: {fault.orig}") from fault
                    if isinstance(fault, DatabaseError) and not _is_damage(fault):
                        raise
                    self._throw_away()
        raise StoreUnavailable(f"the read model {self.projection.name} is damaged as soon as it is made")

    def _current(self) -> Connection:
        """The connection to the newest generation. Looks again once it is open: by then it may have been replaced."""
        self._check_open()
        generations = self._generations
        if generations is None or self._building:
            if self._connection is None:
                address = ":memory:" if generations is None else _address(generations.building)
                self._connection = _open(address, self.projection, _ALONE)
            return self._connection
        for _ in range(TRIES_MAX):
            newest = generations.current()
            if self._connection is not None and self._opened == newest:
                return self._connection
            self._let_go()
            self._opened = newest
            path = generations.path(newest[0] or 1)
            self._connection = _open(_address(path), self.projection, _SHARED)
            if not newest[0]:
                generations.sweep()
        raise StoreUnavailable(f"the read model {self.projection.name} is replaced faster than it can be opened")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the read models are closed")

    def _throw_away(self) -> None:
        self._let_go()
        if self._generations is None:
            return
        if self._building:
            self._generations.building.unlink(missing_ok=True)
        else:
            self._generations.begin(self._opened[0] + 1)

    def _let_go(self) -> None:
        self.verified = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def told_as_unavailable(folder: Path) -> Iterator[None]:
    """What a file system refuses, in words that say what to do."""
    try:
        yield
    except OSError as fault:
        raise StoreUnavailable(
            f"the read models in {folder} cannot be used ({fault.strerror}): make room, or give back the right to "
            "write there; nothing of the log is lost"
        ) from fault


def _address(path: Path) -> str:
    return f"file:{quote(str(path.absolute()))}?mode=rwc"


def _open(address: str, projection: Projection, pragmas: tuple[str, ...]) -> Connection:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            address, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=address != ":memory:"
        )

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    connection = engine.connect()
    try:
        for pragma in (*_ALWAYS, *pragmas):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        if not connection.exec_driver_sql("PRAGMA user_version").scalar_one():
            _transaction(connection, lambda opened: _create(opened, projection), "BEGIN IMMEDIATE")
        connection.rollback()
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: Connection, projection: Projection) -> None:
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one():
        return  # another process was faster
    _metadata.create_all(connection)
    projection.metadata.create_all(connection)
    connection.execute(insert(_checkpoint).values(Checkpoint()._asdict()))
    connection.exec_driver_sql("PRAGMA user_version=1")


def _transaction(connection: Connection, work: Callable[[Connection], T], begin: str | None) -> T:
    try:
        if begin is not None:
            connection.exec_driver_sql(begin)
        result = work(connection)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return result


def _read_checkpoint(connection: Connection) -> Checkpoint:
    return Checkpoint(*connection.execute(select(_checkpoint.c.position, _checkpoint.c.digest)).one())


def unreadable(connection: Connection) -> tuple[UUID, ...]:
    """The streams that are left out because they cannot be read, in order of id."""
    found = select(_unreadable.c.stream_id).order_by(_unreadable.c.stream_id)
    return tuple(UUID(bytes=id) for id in connection.execute(found).scalars())


def _known_unreadable(connection: Connection, folded: Folded) -> frozenset[bytes]:
    """The streams of a batch that were found unreadable before: they stay so until the read model is rebuilt."""
    if connection.execute(select(_unreadable.c.stream_id).limit(1)).first() is None:
        return frozenset()
    streams = {change.recorded.stream_id.bytes for change in folded.changes}
    streams.update(id.bytes for id in folded.unreadable)
    found = select(_unreadable.c.stream_id).where(_unreadable.c.stream_id.in_(streams))
    return frozenset(connection.execute(found).scalars())


def _is_damage(fault: DatabaseError) -> bool:
    code = getattr(fault.orig, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
