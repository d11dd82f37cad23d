"""The log's side: a compact record for each appointment of a calendar. Texts are kept as a hash, whole states not.

Memory is bounded by the records and by what is unfinished at one place of the log: an appointment that rests is
packed, and one that goes on later is read again by itself.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.errors import HistoryError
from domain.evolve import evolve
from domain.lifecycle import SETTLED, State
from domain.personal import ERASED
from domain.provider import LIVE, BookingStatus
from projections.reconciliation.model import Attempted, Origin
from store.mapper import decode
from store.port import OpenWork, RecordedEvent, Store, whole_log

NOTHING_YET = Origin(0, "", datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Scope:
    """Which appointments are compared."""

    calendar: str
    provider: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Intended:
    """What the log says about one appointment. Times are UTC instants."""

    id: UUID
    version: int
    state: State
    start: datetime
    end: datetime
    summary: bytes | None
    """A hash of the text; None where it was erased."""
    provider_ref: str | None
    etag: str | None
    status: BookingStatus
    """Accepted, unless the log knows of another live status and lives with it."""
    changed_at: datetime
    origin: Origin
    """The event that the present state started from; of a doubt or a park, the event that began it."""
    parked: bool = False
    stopped: bool = False
    """Parked by the process itself."""
    doubt: bool = False
    work: bool = False
    due_at: datetime | None = None
    foreign_ref: str | None = None
    """Of a booking that was taken over: its client reference at the provider, "" where it has none."""

    @property
    def client_ref(self) -> str:
        """The reference under which its booking is told."""
        return self.foreign_ref or str(self.id)


@dataclass(frozen=True, slots=True)
class Record:
    """An appointment as intended, and the calls that were made for it."""

    intended: Intended
    attempted: Attempted
    within: bool = True
    """It is one of those that are compared."""


@dataclass
class Log:
    """What was folded: the records in scope. `elsewhere`: known here, but of another tenant, calendar or provider."""

    records: dict[UUID, Record] = field(default_factory=dict)
    elsewhere: set[UUID] = field(default_factory=set)
    places: dict[str, UUID] = field(default_factory=dict)
    """Whose a booking of this calendar is, by the provider's reference: one taken over may bear none of ours."""
    unreadable: set[UUID] = field(default_factory=set)

    def knows(self, id: UUID | None) -> bool:
        """Whether it is an appointment of this log."""
        return id in self.records or id in self.elsewhere or id in self.unreadable


def text_hash(text: str) -> bytes | None:
    """What a text is compared by, whatever its white space; None for one that was erased."""
    if text == ERASED:
        return None
    # Calendars may drop a byte order mark, and write a backslash before an N as a line break.
    plain = " ".join(text.replace("\\N", " ").replace("\ufeff", " ").split())
    return hashlib.blake2b(plain.encode(), digest_size=8).digest()


async def read_log(store: Store, scope: Scope) -> Log:
    """Fold the whole log in one pass."""
    log, stories = Log(), dict[UUID, _Story]()
    async for recorded in whole_log(store):
        id = recorded.stream_id
        try:
            story = await _next(store, recorded, stories.get(id), log.records.get(id))
        except HistoryError:
            # Of a first event that cannot be read nobody knows the calendar; whose booking it is, is known by its id.
            log.unreadable.add(id)
            stories.pop(id, None)
            log.records.pop(id, None)
            continue
        if story is None or id in log.unreadable:
            continue
        if story.state.booking is not None and story.shares(scope):
            log.places[story.state.booking.provider_ref] = id
        if not story.within(scope):
            log.elsewhere.add(id)
        elif story.state.state in SETTLED:
            stories.pop(id, None)
            log.records[id] = story.record()
        else:
            log.records.pop(id, None)
            stories[id] = story
    log.records.update((id, story.record()) for id, story in stories.items())
    await _add_work(store, log.records)
    return log


async def read_one(store: Store, id: UUID, scope: Scope) -> Record | None:
    """One appointment as it stands now, also one out of scope; None when there is none. Raises `HistoryError`."""
    story = await _whole(store, id)
    if story is None:
        return None
    # The row is written with the events: where the stream has not moved on after this, both belong together.
    row = await store.work(id)
    record = replace(story.record(), within=story.within(scope))
    return record if row is None else _with_work(record, row)


class _Story:
    """An appointment while its events are read."""

    __slots__ = ("_attempted", "_began", "_doubt", "_last", "_parked", "state")

    def __init__(self, id: UUID) -> None:
        self.state = Appointment(id)
        self._attempted = Attempted()
        self._last = self._began = self._doubt = self._parked = NOTHING_YET

    def tell(self, event: e.Event) -> None:
        """Take in the next event; raises `HistoryError` where it cannot follow."""
        before = self.state
        self.state = now = evolve(before, event)
        self._last = origin = Origin(now.version, event.type, event.at)
        if now.state is not before.state or now.details is not before.details:
            self._began = origin
        if now.parked and not before.parked:
            self._parked = origin
        if _doubtful(now) and not _doubtful(before):
            self._doubt = origin
        self._attempted = _attempted(self._attempted, event, now)

    def within(self, scope: Scope) -> bool:
        """Whether it is one of those that are compared."""
        return self.state.tenant == scope.tenant and self.shares(scope)

    def shares(self, scope: Scope) -> bool:
        """Whether it is kept in the same calendar, whoever's it is."""
        assert self.state.details is not None
        return (self.state.details.calendar, self.state.provider) == (scope.calendar, scope.provider)

    def record(self) -> Record:
        """What is kept of it."""
        state, doubt = self.state, _doubtful(self.state)
        assert state.details is not None
        assert state.updated_at is not None
        booking = state.booking
        origin = self._began if state.state in SETTLED else self._last
        intended = Intended(
            id=state.id,
            version=state.version,
            state=state.state,
            start=state.details.start,
            end=state.details.end,
            summary=text_hash(state.details.summary),
            provider_ref=booking.provider_ref if booking else None,
            etag=booking.etag if booking else None,
            status=booking.status if booking and booking.status in LIVE else BookingStatus.ACCEPTED,
            changed_at=state.updated_at,
            origin=self._parked if state.parked else self._doubt if doubt else origin,
            parked=state.parked,
            stopped=state.stopped,
            doubt=doubt,
            foreign_ref=state.foreign_ref if state.foreign else None,
        )
        return Record(intended, self._attempted)


async def _next(store: Store, recorded: RecordedEvent, story: _Story | None, packed: Record | None) -> _Story | None:
    """The story with this event in it; None where the event says nothing about the scope, or is told already."""
    if packed is not None:
        return await _whole(store, recorded.stream_id) if recorded.version > packed.intended.version else None
    if story is None:
        if recorded.version > 1:
            return None
        story = _Story(recorded.stream_id)
    if recorded.version <= story.state.version:
        return None
    event = decode(recorded)
    if isinstance(event, e.OUTSIDE_APPOINTMENTS):
        return None
    story.tell(event)
    return story


async def _whole(store: Store, id: UUID) -> _Story | None:
    story = _Story(id)
    for recorded in await store.events(id):
        event = decode(recorded)
        if isinstance(event, e.OUTSIDE_APPOINTMENTS):
            return None
        story.tell(event)
    return story if story.state.version else None


async def _add_work(store: Store, records: dict[UUID, Record]) -> None:
    after: UUID | None = None
    while batch := await store.open_work(after):
        for row in batch:
            if row.stream_id in records:
                records[row.stream_id] = _with_work(records[row.stream_id], row)
        after = batch[-1].stream_id


def _with_work(record: Record, row: OpenWork) -> Record:
    return replace(record, intended=replace(record.intended, work=True, due_at=row.due_at))


def _doubtful(state: Appointment) -> bool:
    if state.state in SETTLED:
        return False
    steps = (*state.actions, *state.undos, *((state.move_step,) if state.move_step else ()))
    return any(step.doubt_since is not None for step in steps)


def _attempted(before: Attempted, event: e.Event, state: Appointment) -> Attempted:
    if getattr(event, "step", None) != state.booking_step.name:
        return before
    match event:
        case e.StepStarted():
            return Attempted(before.calls + 1, event.operation, state.version, "in_flight")
        case e.StepSucceeded():
            return replace(before, outcome="succeeded")
        case e.StepPending():
            return replace(before, outcome="pending")
        case e.StepAttemptFailed():
            return replace(before, outcome=event.kind)
        case e.CallInterrupted():
            return replace(before, outcome="interrupted")
        case _:
            return before
