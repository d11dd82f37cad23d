"""Writes one batch of entries inside the transaction that the journal has opened.

Owns the order of positions and the versions of streams. It runs on the only writing connection, so what it remembers
(the last position, the heads of recent streams) is true until a transaction is rolled back.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError

from domain.errors import ConcurrencyConflict
from store.chain import START, link
from store.port import Private
from store.rows import EventRow, WorkRow, uuid_of
from store.sealing import SubjectKey, forget_ciphers, hashed, seal
from store.tables import events, open_work, subject_keys

HEADS_MAX = 32_768
"""Heads of streams remembered, about 6 MB; the head of any other stream is read from the index."""
HEADS_PER_QUERY = 64
KEYS_MAX = 16_384
"""Subjects' keys remembered, about 4 MB."""

_dialect = sqlite_dialect(paramstyle="qmark")


def _text(statement: Any) -> str:
    return str(statement.compile(dialect=_dialect))


INSERT_EVENT = _text(insert(events))
PUT_WORK = _text(insert(open_work).prefix_with("OR REPLACE"))
DELETE_WORK = _text(delete(open_work).where(open_work.c.stream_id == bindparam("stream_id")))
LAST_POSITION = _text(select(func.max(events.c.position)))
HEADS = _text(
    # SQLite gives the other columns of the row that holds the maximum.
    select(events.c.stream_id, func.max(events.c.version), events.c.digest)
    .where(events.c.stream_id.in_([bindparam(f"id_{n}") for n in range(HEADS_PER_QUERY)]))
    .group_by(events.c.stream_id)
)
KEY_OF = _text(select(subject_keys.c.ref, subject_keys.c.key).where(subject_keys.c.name == bindparam("name")))
INSERT_KEY = _text(insert(subject_keys))
DELETE_KEY = _text(delete(subject_keys).where(subject_keys.c.name == bindparam("name")))
EVENT_AT = _text(select(events).where(events.c.position == bindparam("position")))


NewEvent = tuple[int, str, int, bytes, tuple[Private, ...]]
"""Version, type, microseconds since 1970, open body and private parts of an event to write."""


@dataclass(slots=True)
class AppendEntry:
    """An `Append` as rows. `result` is the position of its last event, or `error` says why it alone failed."""

    stream: bytes
    expected: int
    events: list[NewEvent]
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
    clean: bool = False
    """What it deletes must be gone from the files as well when it is acknowledged."""
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
        self._heads: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._keys: OrderedDict[str, SubjectKey] = OrderedDict()
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

    def insert_events(self, rows: Sequence[tuple[bytes, NewEvent]]) -> list[int]:
        """Add events to streams, unchecked but for the unique key, and return their positions.

        One that does not follow the last of its stream begins a chain of its own.
        """
        self._load_heads([stream for stream, _ in rows])
        numbered = []
        for position, (stream, event) in enumerate(rows, start=self._last_position + 1):
            version, digest = self._heads[stream]
            numbered.append(self._row(position, stream, digest if event[0] == version + 1 else START, event))
            self._heads[stream] = event[0], numbered[-1][-1]
        self._insert(numbered)
        for stream, _ in rows:
            self._heads.pop(stream, None)
        return [row[0] for row in numbered]

    def append_all(self, entries: Sequence[AppendEntry]) -> None:
        """Write these entries, or raise `ConcurrencyConflict`: all of them or none."""
        self._append(entries)
        for entry in entries:
            if entry.error is not None:
                raise entry.error

    def destroy_key(self, subject: str) -> None:
        """Delete a subject's key; its bytes are overwritten in the page."""
        self.connection.exec_driver_sql(DELETE_KEY, (hashed(subject),))
        self._keys.pop(subject, None)
        forget_ciphers()

    def clean_up(self, wait: bool) -> bool:
        """Copy the write-ahead log into the file and cut it to nothing; False while a reader is in the way."""
        patience_ms = self.connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        try:
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms if wait else 0}")
            busy = self.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
        finally:
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms}")
            self.connection.rollback()
        return not busy

    def holds(self, row: EventRow) -> bool:
        """Whether exactly this event is stored."""
        stored = self.connection.exec_driver_sql(EVENT_AT, (row[0],)).first()
        self.connection.rollback()
        return stored is not None and tuple(stored) == row

    def _append(self, entries: Sequence[AppendEntry]) -> None:
        self._load_heads([entry.stream for entry in entries])
        position = self._last_position
        rows: list[EventRow] = []
        works: dict[bytes, WorkRow | None] = {}
        for entry in entries:
            stream, expected = entry.stream, entry.expected
            entry.error, (head, digest) = None, self._heads[stream]
            if head != expected:
                entry.error = ConcurrencyConflict(f"stream {stream.hex()} is at version {head}, not {expected}")
                continue
            for event in entry.events:
                position += 1
                rows.append(self._row(position, stream, digest, event))
                digest = rows[-1][-1]
            if entry.events:
                self._heads[stream] = expected + len(entry.events), digest
                entry.result = position
            if entry.touches_work:
                works[stream] = entry.work
        self._insert(rows)
        self._change_work(works)

    def _row(self, position: int, stream: bytes, before: bytes, event: NewEvent) -> EventRow:
        version, type, at, body, private = event
        sealed = seal(private, self._key_of, uuid_of(stream), version) if private else b""
        digest = link(before, position, stream, version, type, at, body, sealed)
        return position, stream, version, type, at, body, sealed, digest

    def _key_of(self, subject: str) -> SubjectKey:
        """A subject's key; made in this very transaction when there is none."""
        known = self._keys.get(subject)
        if known is not None:
            self._keys.move_to_end(subject)
            return known
        name = hashed(subject)
        stored = self.connection.exec_driver_sql(KEY_OF, (name,)).first()
        key = SubjectKey.new() if stored is None else SubjectKey(stored.ref, stored.key)
        if stored is None:
            self.connection.exec_driver_sql(INSERT_KEY, (name, key.ref, key.key))
        self._keys[subject] = key
        if len(self._keys) > KEYS_MAX:
            self._keys.popitem(last=False)
        return key

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

    def _load_heads(self, streams: Sequence[bytes]) -> None:
        """Read the heads that are not remembered; none of these streams' own is let go of."""
        missing: dict[bytes, None] = {}
        for stream in streams:
            if stream in self._heads:
                self._heads.move_to_end(stream)
            else:
                missing[stream] = None
        unread = list(missing)
        for start in range(0, len(unread), HEADS_PER_QUERY):
            some = unread[start : start + HEADS_PER_QUERY]
            padded = some + some[-1:] * (HEADS_PER_QUERY - len(some))
            found = self.connection.exec_driver_sql(HEADS, tuple(padded)).all()
            self._heads.update(dict.fromkeys(some, (0, START)))
            self._heads.update((stream, (version, digest)) for stream, version, digest in found)
        while len(self._heads) > max(HEADS_MAX, len(streams)):
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
        self._keys.clear()
        self._last_position = self.connection.exec_driver_sql(LAST_POSITION).scalar_one() or 0
