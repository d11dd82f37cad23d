"""The store port: an append-only log with open work beside it. Written once as a contract, run on every backend.

Owns the vocabulary between the runtime and a backend. One contract suite (`tests/contract/test_store.py`) holds
every backend to it.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Private:
    """What an event holds about somebody: readable as long as the key of each of its subjects is kept."""

    subjects: tuple[str, ...]
    """Whom it is about, when it is written; on reading nobody needs to know."""
    body: bytes | None
    """JSON; None once a key was destroyed."""
    damaged: bool = False
    """It cannot be opened although its keys are there."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as stored. `position` is its place in the whole log, `version` (1-based) its place in the stream.

    `at` is when it was recorded (UTC, whole microseconds). The store adds `sealed` (the private parts as stored, see
    `store/sealing.py`) and `digest` (see `store/chain.py`).
    """

    stream_id: UUID
    version: int
    type: str
    body: bytes
    position: int = 0
    at: datetime = BEGINNING
    private: tuple[Private, ...] = ()
    sealed: bytes = b""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """The row of one unfinished appointment: timer, queue and recovery list at once. Times are UTC instants."""

    stream_id: UUID
    tenant: str
    lane: str
    """Whom the next call goes to (a provider or another target of a step); "" when only a timer is waited for."""
    due_at: datetime | None
    """When it wants a turn; None while parked."""
    starts_at: datetime
    """The appointment's start: due rows are handed out in this order."""
    deadline_at: datetime | None
    """From when on it wants a turn even if its lane is closed."""
    in_flight: bool = False
    """A call was announced and its outcome is not recorded."""
    parked: bool = False
    version: int = 0
    """The stream's version when the row was written."""
    owner: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """One turn's result: events that follow `expected_version`, and the open work after them (None: finished)."""

    stream_id: UUID
    expected_version: int
    events: tuple[RecordedEvent, ...]
    work: OpenWork | None = None
    touches_work: bool = True
    """False leaves the open-work row as it is."""


class Store(Protocol):
    """An event log. Every method may raise `StoreUnavailable`; an append that raised it may still be stored."""

    async def append(self, entry: Append) -> int:
        """Make it durable, then return the position of its last event (0 when it has none).

        Events, and the open-work change, are one transaction; many entries may share it (group commit), yet a
        conflict fails its own entry only. Raises `ConcurrencyConflict` when the stream is not at `expected_version`.
        An entry without events still checks the version, and changes the open work.
        """
        ...

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        """One stream in order, from version `after + 1`."""
        ...

    async def streams(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[UUID]:
        """The ids of all streams that have an event, in order."""
        ...

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        """The whole log in order of position, from position `after + 1`. Never skips an event that comes later."""
        ...

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        """Rows with `due_at <= now`, ordered by `starts_at`; not those in a closed lane unless `deadline_at <= now`."""
        ...

    async def next_due(self, after: datetime) -> datetime | None:
        """The earliest `due_at` later than `after`."""
        ...

    async def claim(self, owner: str, now: datetime) -> int:
        """At start: take over every row that another owner left in flight (epoch + 1, due now); return how many."""
        ...

    async def work(self, stream_id: UUID) -> OpenWork | None:
        """The row of one appointment."""
        ...

    async def open_work(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[OpenWork]:
        """All rows, in order of stream id (for health and lists)."""
        ...

    async def sealed_for(self, subject: str) -> Sequence[UUID]:
        """The streams that hold something about a subject, in order of id; none when its key is not there."""
        ...

    async def erase(self, subject: str, told: Sequence[Append]) -> None:
        """Destroy a subject's key for good, and append what tells of it to each stream concerned, in one transaction.

        Raises `ConcurrencyConflict`, and has done nothing, when one of them is not at its expected version, or when a
        stream that is not told of it holds something about the subject.
        """
        ...

    async def position(self) -> int:
        """The position of the last event, 0 in an empty log."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        ...


async def whole_log(store: Store, after: int = 0, page: int = 1_000) -> AsyncIterator[RecordedEvent]:
    """Walk the log page by page in order of position."""
    while batch := await store.log(after, page):
        for event in batch:
            yield event
        after = batch[-1].position
