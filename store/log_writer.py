"""Writes one batch of entries inside the transaction that the journal has opened.

Owns the order of positions and the versions of streams. It runs on the only writing connection, so what it remembers
(the last position, the heads of recent streams) is true until a transaction is rolled back.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError

from domain.errors import ConcurrencyConflict
from store.rows import EventRow, WorkRow
from store.tables import events, open_work

HEADS_MAX = 32_768
"""Heads of streams remembered, about 6 MB; the head of any other stream is read from the index."""
HEADS_PER_QUERY = 64

_dialect = sqlite_dialect(paramstyle="qmark")


def _text(statement: Any) -> str:
    return str(statement.compile(dialect=_dialect))


INSERT_EVENT = _text(insert(events))
PUT_WORK = _text(insert(open_work).prefix_with("OR REPLACE"))
DELETE_WORK = _text(delete(open_work).where(open_work.c.stream_id == bindparam("stream_id")))
LAST_POSITION = _text(select(func.max(events.c.position)))
HEADS = _text(
    select(events.c.stream_id, func.max(events.c.version))
    .where(events.c.stream_id.in_([bindparam(f"id_{n}") for n in range(HEADS_PER_QUERY)]))
    .group_by(events.c.stream_id)
)
EVENT_AT = _text(select(events).where(events.c.position == bindparam("position")))


@dataclass(slots=True)
class AppendEntry:
    """An `Append` as rows. `result` is the position of its last event, or `error` says why it alone failed."""

    stream: bytes
    expected: int
    events: list[tuple[int, str, bytes]]
    work: WorkRow | None
    touches_work: bool
    future: Any
    result: int = 0
    error: Exception | None = None


@dataclass(slots=True)
class TaskEntry:
    """Any other change: a function that writes by the writer's connection, within a savepoint of its own."""

    run: Callable[["LogWriter"], Any]
    future: Any
    result: Any = None
    error: Exception | None = None


Entry = AppendEntry | TaskEntry


def is_store_failure(error: Exception) -> bool:
    """Whether the file is at fault (full, locked, broken): then the whole batch failed. Otherwise the entry is."""
    entry_at_fault = (IntegrityError, DataError, ProgrammingError, InterfaceError, NotSupportedError)
    return isinstance(error, DBAPIError) and not isinstance(error, entry_at_fault)


class LogWriter:
    """Turns entries into statements on one connection; the caller begins and commits."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.first_written: EventRow | None = None
        """The batch's first event: whether it is there tells whether an ambiguous commit was stored."""
        self._heads: OrderedDict[bytes, int] = OrderedDict()
        self._last_position = 0
        self._forget()
        connection.rollback()

    def begin(self) -> None:
        """Take the write lock at once: a transaction that upgrades later fails whatever the timeout."""
        self.connection.exec_driver_sql("BEGIN IMMEDIATE")
        self.first_written = None

    def write(self, batch: Sequence[Entry]) -> None:
        """Write every entry or set its `error`; raises only when the store fails as a whole."""
        appends = [entry for entry in batch if isinstance(entry, AppendEntry)]
        try:
            self._append(appends)
        except Exception as error:
            if is_store_failure(error):
                raise
            self._start_over()
            for append in appends:
                self._alone(append, lambda append=append: self._append([append]))  # type: ignore[misc]
        for entry in batch:
            if isinstance(entry, TaskEntry):
                self._alone(entry, lambda entry=entry: entry.run(self))  # type: ignore[misc]

    def insert_events(self, rows: Iterable[tuple[bytes, int, str, bytes]]) -> list[int]:
        """Add (stream, version, type, body) unchecked but for the unique key, and return their positions."""
        numbered = [(self._last_position + n, *row) for n, row in enumerate(rows, start=1)]
        self._insert(numbered)
        for _, stream, *_rest in numbered:
            self._heads.pop(stream, None)
        return [row[0] for row in numbered]

    def holds(self, row: EventRow) -> bool:
        """Whether exactly this event is stored."""
        stored = self.connection.exec_driver_sql(EVENT_AT, (row[0],)).first()
        self.connection.rollback()
        return stored is not None and tuple(stored) == row

    def _append(self, entries: Sequence[AppendEntry]) -> None:
        self._load_heads(entries)
        position = self._last_position
        rows: list[EventRow] = []
        works: dict[bytes, WorkRow | None] = {}
        for entry in entries:
            stream, expected = entry.stream, entry.expected
            entry.error, head = None, self._heads[stream]
            if head != expected:
                entry.error = ConcurrencyConflict(f"stream {stream.hex()} is at version {head}, not {expected}")
                continue
            for version, type, body in entry.events:
                position += 1
                rows.append((position, stream, version, type, body))
            if entry.events:
                self._heads[stream] = expected + len(entry.events)
                entry.result = position
            if entry.touches_work:
                works[stream] = entry.work
        self._insert(rows)
        self._change_work(works)

    def _insert(self, rows: list[EventRow]) -> None:
        if not rows:
            return
        self.connection.exec_driver_sql(INSERT_EVENT, rows)
        self._last_position = rows[-1][0]
        self.first_written = self.first_written or rows[0]

    def _change_work(self, works: dict[bytes, WorkRow | None]) -> None:
        if kept := [row for row in works.values() if row is not None]:
            self.connection.exec_driver_sql(PUT_WORK, kept)
        if finished := [(stream,) for stream, row in works.items() if row is None]:
            self.connection.exec_driver_sql(DELETE_WORK, finished)

    def _load_heads(self, entries: Sequence[AppendEntry]) -> None:
        """Read the heads that are not remembered; a batch is smaller than HEADS_MAX, so none is evicted in use."""
        missing: dict[bytes, None] = {}
        for entry in entries:
            if entry.stream in self._heads:
                self._heads.move_to_end(entry.stream)
            else:
                missing[entry.stream] = None
        unread = list(missing)
        for start in range(0, len(unread), HEADS_PER_QUERY):
            some = unread[start : start + HEADS_PER_QUERY]
            padded = some + some[-1:] * (HEADS_PER_QUERY - len(some))
            found = self.connection.exec_driver_sql(HEADS, tuple(padded)).all()
            self._heads.update(dict.fromkeys(some, 0))
            self._heads.update((stream, version) for stream, version in found)
        while len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)

    def _alone(self, entry: Entry, write: Callable[[], Any]) -> None:
        """Write one entry under a savepoint, so that its failure is its own."""
        first_written = self.first_written
        self.connection.exec_driver_sql("SAVEPOINT entry")
        try:
            result = write()
        except Exception as error:
            if is_store_failure(error):
                raise
            self.connection.exec_driver_sql("ROLLBACK TO entry")
            self.first_written = first_written
            self._forget()
            conflict = isinstance(error, IntegrityError) and isinstance(entry, AppendEntry)
            entry.error = ConcurrencyConflict(f"{error.orig}") if conflict else error  # type: ignore[attr-defined]
        else:
            if isinstance(entry, TaskEntry):
                entry.result = result
        self.connection.exec_driver_sql("RELEASE entry")

    def _start_over(self) -> None:
        self.connection.rollback()
        self.begin()
        self._forget()

    def _forget(self) -> None:
        self._heads.clear()
        self._last_position = self.connection.exec_driver_sql(LAST_POSITION).scalar_one() or 0
