"""The store port: an append-only log with open work beside it. Written once as a contract, run on every backend.

Owns the vocabulary between the runtime and a backend. One contract suite (`tests/contract/test_store.py`) holds
every backend to it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from domain.errors import StoreUnavailable

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
    keeps_owner: bool = False
    """On a shared store the row stays with the owner and the epoch that it has: a call of theirs is in flight."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process at work on a shared store."""

    owner: str
    beat_at: datetime
    """When it last said that it lives, by the store's clock."""
    runs: tuple[str, ...] = ()
    """What it can carry out."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What all workers know together of one target: its breaker, and when its next call is due (GCRA)."""

    target: str
    failures: int = 0
    """In a row."""
    failed_at: datetime | None = None
    """When the last of them was heard of."""
    opened: int = 0
    open_until: datetime | None = None
    probe_until: datetime | None = None
    """Until then one worker's probe has the right of way."""
    theoretical_at: datetime | None = None
    version: int = 0
    """How often it was changed; 0: not stored yet."""


class Store(Protocol):
    """An event log. Every method may raise `StoreUnavailable`; an append that raised it may still be stored.

    A store belongs to one process (`lease_s` is None), or many workers share it: then each is known by the name that
    it last gave to `claim`, until it was silent for `lease_s`. From then on whatever it writes raises `LeaseLost` and
    changes nothing; a write is judged by the name that its worker had when it was asked for. A handle that has never
    claimed writes freely, under the name that it was opened with.
    """

    lease_s: float | None = None
    """None: one process has this store. Else how long a worker may be silent before it is declared dead (seconds)."""
    owner: str = ""
    """The name under which this handle works; another one as soon as its worker was declared dead and came back."""

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
        """Rows with `due_at <= now`, ordered by `starts_at`; not those in a closed lane unless `deadline_at <= now`.

        On a store of one process it reads only. A shared store hands each row to one worker at a time (`FOR UPDATE SKIP
        LOCKED`): the rows come back with this worker as their owner, epoch + 1 and `due_at` = `now` + lease, and are
        stored so; what their worker does not get done in that time comes back by itself.
        """
        ...

    async def hand_back(self, rows: Sequence[OpenWork], due_at: datetime) -> None:
        """Rows that `due` handed to this worker and that it has not touched are due again at `due_at`, owned by nobody.

        Only those that still have this owner and this epoch; the others are somebody else's by now.
        """
        return

    async def overdue(self, before: datetime, limit: int) -> Sequence[OpenWork]:
        """Rows with `due_at <= before`, ordered by `starts_at`. Reads only, also on a shared store."""
        return await self.due(before, limit)

    async def next_due(self, after: datetime) -> datetime | None:
        """The earliest `due_at` later than `after`."""
        ...

    async def claim(self, owner: str, now: datetime, runs: Sequence[str] = ()) -> int:
        """Tell that this owner lives, and take over every row that a dead owner left in flight (epoch + 1, due now).

        Returns how many. On a store of one process, once, at start: every other owner is dead. On a shared store at
        start and then every third of a lease: the name joins the workers (`runs`: what it can carry out), those who
        were silent for longer than a lease are struck from them, and dead is whoever is not among them. It judges by
        the store's own clock, `now` only where that has none. Raises `LeaseLost` when this handle had joined under
        this very name and was struck meanwhile: it must come back under a new one.
        """
        ...

    async def leave(self) -> None:
        """This worker goes: what it has in flight is due at once, owned by nobody (epoch + 1); it writes no more."""
        return

    async def workers(self) -> Sequence[Worker]:
        """Those at work on a shared store, in order of their names; none on a store of one process."""
        return ()

    async def now(self) -> datetime | None:
        """The instant by the store's own clock, by which all its workers live; None where it has none."""
        return None

    async def lanes(self) -> Sequence[Lane]:
        """What the workers of a shared store know together of every target that was ever changed."""
        return ()

    async def change_lane(self, lane: Lane) -> bool:
        """Store a lane in place of that of the same target with the same version (0: none yet), as version + 1.

        False, and nothing is stored, when another worker was quicker. One small write, outside the order of the log.
        """
        return False

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

    def after_commit(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` run, in whatever thread, soon after a commit; returns a function that ends this.

        A hint, for those who would else only look now and then: a store tells of its own commits, of other processes'
        where it hears of them, and of many at once where they come fast.
        """
        return _nothing

    async def position(self) -> int:
        """The position of the last event, 0 in an empty log."""
        ...

    async def checkpoint(self, consumer: str) -> int | None:
        """Up to which position a consumer has dealt with the log; None for one that never told."""
        return None

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        """Keep how far a consumer has come; durable when it returns. The last one told stands, whatever was before."""
        raise StoreUnavailable("this store keeps no checkpoints")

    def exclusive(self, name: str) -> AbstractAsyncContextManager[bool]:
        """Whether this process alone holds that name, from here to the end of the block.

        On a store of one process always. On a shared store at most one worker holds it; who asks for it asks once, and
        asks again later where it was told False. A worker that dies holds nothing any more.
        """
        return nullcontext(True)

    async def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        ...


async def whole_log(store: Store, after: int = 0, page: int = 1_000) -> AsyncIterator[RecordedEvent]:
    """Walk the log page by page in order of position."""
    while batch := await store.log(after, page):
        for event in batch:
            yield event
        after = batch[-1].position


def _nothing() -> None:
    """There is nothing to end."""
