"""Writes one batch of entries inside the transaction that the journal has opened.

Owns the order of positions, the versions of streams, the chain of digests and the seals; how rows are read and written
is a backend's (`store/sqlite_writer.py`, `store/postgres_writer.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError

from domain.errors import ConcurrencyConflict
from store.chain import START, link
from store.port import Private
from store.rows import EventRow, WorkRow, uuid_of
from store.sealing import SubjectKey, forget_ciphers, hashed, seal
from store.tables import events, subject_keys

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
    keeps_owner: bool = False
    worker: str | None = None
    """On a shared store: who writes; None for a handle that is no worker."""
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


class LogWriter(ABC):
    """Turns entries into statements on one connection; the caller begins and commits."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.first_written: EventRow | None = None
        """The batch's first event: whether it is there tells whether an ambiguous commit was stored."""
        self._heads: dict[bytes, tuple[int, bytes]] = {}
        """Version and digest of the last event, of every stream that was looked up."""
        self._last_position = 0

    # -- what a backend does ---------------------------------------------------------------------------------------

    @abstractmethod
    def begin(self) -> None:
        """Open a transaction in which nobody else writes to the log."""

    @abstractmethod
    def is_stored(self, row: EventRow) -> bool:
        """Whether exactly this event is stored for good; asked on a new connection after a commit that failed."""

    @abstractmethod
    def clean_up(self, wait: bool) -> bool:
        """Have what was deleted be gone from the files; False while a reader is in the way."""

    @abstractmethod
    def _look_up(self, streams: Sequence[bytes], subjects: Iterable[str]) -> None:
        """Know the last position, the heads of these streams and the keys of these subjects."""

    @abstractmethod
    def _key_of(self, subject: str) -> SubjectKey:
        """A subject's key that was looked up; made in this very transaction when there is none."""

    @abstractmethod
    def _put(self, rows: Sequence[EventRow], works: Sequence[tuple[WorkRow, bool]], finished: Sequence[bytes]) -> None:
        """Store events, rows of open work (and whether each keeps its owner), and delete those of finished streams."""

    @abstractmethod
    def _forget(self) -> None:
        """Nothing that was looked up or written is held to be true any more."""

    def _refusal(self, entry: AppendEntry) -> Exception | None:
        """Why its writer may not write any more."""
        return None

    # -- what all do alike -----------------------------------------------------------------------------------------

    def write(self, batch: Sequence[Entry]) -> None:
        """Write every entry or set its `error`; raises only when the store fails as a whole."""
        self.first_written = None
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
        self._look_up([stream for stream, _ in rows], _subjects(event for _, event in rows))
        numbered = []
        for position, (stream, event) in enumerate(rows, start=self._last_position + 1):
            version, digest = self._heads[stream]
            numbered.append(self._row(position, stream, digest if event[0] == version + 1 else START, event))
            self._heads[stream] = event[0], numbered[-1][-1]
        self._write(numbered, (), ())
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
        """Delete a subject's key."""
        self.connection.execute(delete(subject_keys).where(subject_keys.c.name == hashed(subject)))
        forget_ciphers()

    def _append(self, entries: Sequence[AppendEntry]) -> None:
        if not entries:
            return
        subjects = _subjects(event for entry in entries for event in entry.events)
        self._look_up([entry.stream for entry in entries], subjects)
        position = self._last_position
        rows: list[EventRow] = []
        works: dict[bytes, tuple[WorkRow, bool] | None] = {}
        for entry in entries:
            stream, expected = entry.stream, entry.expected
            head, digest = self._heads[stream]
            entry.error = self._refusal(entry)
            if entry.error is None and head != expected:
                entry.error = ConcurrencyConflict(f"stream {stream.hex()} is at version {head}, not {expected}")
            if entry.error is not None:
                continue
            for event in entry.events:
                position += 1
                rows.append(self._row(position, stream, digest, event))
                digest = rows[-1][-1]
            if entry.events:
                self._heads[stream] = expected + len(entry.events), digest
                entry.result = position
            if entry.touches_work:
                works[stream] = None if entry.work is None else (entry.work, entry.keeps_owner)
        kept = [work for work in works.values() if work is not None]
        self._write(rows, kept, [stream for stream, work in works.items() if work is None])

    def _row(self, position: int, stream: bytes, before: bytes, event: NewEvent) -> EventRow:
        version, type, at, body, private = event
        sealed = seal(private, self._key_of, uuid_of(stream), version) if private else b""
        digest = link(before, position, stream, version, type, at, body, sealed)
        return position, stream, version, type, at, body, sealed, digest

    def _write(
        self, rows: Sequence[EventRow], works: Sequence[tuple[WorkRow, bool]], finished: Sequence[bytes]
    ) -> None:
        self._put(rows, works, finished)
        if rows:
            self._last_position = rows[-1][0]
            self.first_written = self.first_written or rows[0]

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
        self.first_written = None
        self._forget()

    def _stored_row(self, position: int) -> tuple[Any, ...] | None:
        found = self.connection.execute(select(events).where(events.c.position == position)).first()
        return None if found is None else tuple(found)


def _subjects(events: Iterable[NewEvent]) -> set[str]:
    return {name for event in events for part in event[4] for name in part.subjects}
