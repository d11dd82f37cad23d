"""What the log says of one appointment, told event by event and kept as a compact record: texts as a hash, no state."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.evolve import evolve
from domain.lifecycle import SETTLED, State
from domain.personal import ERASED
from domain.provider import LIVE, BookingStatus
from projections.reconciliation.model import Attempted, Origin

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


def text_hash(text: str) -> bytes | None:
    """What a text is compared by, whatever its white space; None for one that was erased."""
    if text == ERASED:
        return None
    # Calendars may drop a byte order mark, and write a backslash before an N as a line break.
    plain = " ".join(text.replace("\\N", " ").replace("\ufeff", " ").split())
    return hashlib.blake2b(plain.encode(), digest_size=8).digest()


class Story:
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
        """Whether it is kept in the same calendar, whoever's it is, and by way of whomever it was booked."""
        assert self.state.details is not None
        kept_by = self.state.provider.partition("/")[0]
        return (self.state.details.calendar, kept_by) == (scope.calendar, scope.provider)

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
