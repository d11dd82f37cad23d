"""What a stream recorded of the world outside: who asked what and when, and what each call was answered.

Owns the way from a stream back to the inputs and answers that it came from. No personal text is carried along.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment, Progress
from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    Command,
    ReportBooking,
    Request,
    RescheduleAppointment,
)
from domain.definition import SagaPlan, StepPlan
from domain.evolve import evolve
from domain.lifecycle import SETTLED, State
from domain.provider import (
    BookingStatus,
    Confirmed,
    Found,
    Missing,
    Pending,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    Unknown,
    Value,
    WriteOutcome,
)
from saga.inputs import Asked, CalledBack

MILLISECOND = timedelta(milliseconds=1)
WITHHELD = "-"
"""Stands for every text: what somebody wrote decides nothing."""
THROTTLED = ("429", "423")
FOLLOWED = (e.OperatorActed, e.BookingObserved)
"""Commands that another command may follow from."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a read shows from so long after its call on."""

    after: timedelta
    outcome: ReadOutcome
    took: timedelta = timedelta(0)


@dataclass(slots=True)
class Answer:
    """One recorded answer to a write, and what reads showed until the next one."""

    began: datetime
    took: timedelta
    timeout_ms: int
    outcome: WriteOutcome
    sights: list[Sight] = field(default_factory=list)


class End(Value):
    """How an appointment stood at last."""

    state: State
    reason: e.EndReason | None = None
    parked: bool = False

    @classmethod
    def of(cls, state: Appointment) -> "End":
        """As a state has it."""
        return cls(state=state.state, reason=state.reason, parked=state.parked)

    @property
    def final(self) -> bool:
        """Nothing was left to do without somebody's word."""
        return self.parked or self.state in SETTLED

    def __str__(self) -> str:
        told = f"{self.state} ({self.reason})" if self.reason else str(self.state)
        return f"{told}, parked" if self.parked else told


@dataclass(slots=True)
class Recording:
    """One appointment, as the world outside had to do with it."""

    id: UUID
    definition: str
    calendar: str
    asked: list[tuple[datetime, Asked | CalledBack]] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    """By operation id. A call that the process itself cut off by dying has none: the next one stands in its place."""
    targets: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Operation id to (target, operation)."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls announced, by step and operation."""
    end: End = field(default_factory=lambda: End(state=State.INIT))
    ended_after: timedelta | None = None
    """From the request to the first end, or to being parked."""

    @property
    def began(self) -> datetime:
        """When it was asked for."""
        return self.asked[0][0]


def record(id: UUID, events: Sequence[e.Event], plan: SagaPlan) -> Recording:
    """Read a stream. Raises `HistoryError` when it cannot be folded."""
    first = events[0]
    state = evolve(Appointment(id), first)
    assert isinstance(first, e.AppointmentRequested)
    reading = _Reading(Recording(id, first.definition, first.details.calendar), plan, first.tenant)
    reading.ask(first, 1, _book(first, plan))
    for version, event in enumerate(events[1:], 2):
        before, state = state, evolve(state, event)
        reading.take(before, event, version)
        if reading.into.ended_after is None and End.of(state).final:
            reading.into.ended_after = event.at - first.at
    reading.into.end = End.of(state)
    return reading.into


def call_name(event: e.StepStarted) -> str:
    """How reports name a call."""
    return f"{event.step} {event.operation}"


class _Reading:
    def __init__(self, into: Recording, plan: SagaPlan, tenant: str) -> None:
        self.into, self.plan, self.tenant = into, plan, tenant
        self.called: e.StepStarted | None = None
        self.last: dict[str, Answer] = {}
        """The last answer to a step's calls: what is seen afterwards is seen of that."""
        self.previous: e.Event | None = None

    def take(self, before: Appointment, event: e.Event, version: int) -> None:
        after, self.previous = self.previous, event
        match event:
            case e.BookingMissing() if isinstance(after, e.BookingFound):
                pass  # not where it was to be moved to: that is what was made of the sight, not another sight
            case e.CommandFact() if isinstance(after, FOLLOWED) and after.at == event.at:
                pass  # it followed from the command before it, and will do so again
            case e.CommandFact():
                command = _command(event)
                if command is not None:
                    self.ask(event, version, command)
                if isinstance(event, e.BookingObserved):
                    sight = Missing() if event.seen is None else Found(booking=_whole(before, event.seen))
                    self._sight(self.plan.booking_step.name, event.at, sight)
            case e.StepStarted():
                self._announced(event)
            case e.CallInterrupted():
                self.called = None
            case e.StepSucceeded() | e.StepPending() | e.StepAttemptFailed() if before.in_flight is not None:
                self._answered(before, event)
            case e.StepSucceeded(via="poll") | e.StepAttemptFailed():
                self._polled(before, event)
            case e.BookingFound() | e.BookingMissing() | e.LookupFailed():
                self._looked(before, event)
            case e.CallbackReceived():
                told = CalledBack(event.webhook_id, event.provider_ref, event.status, event.version)
                self.into.asked.append((event.at, told))
                known = before.action(event.step).booking
                seen = known or ProviderBooking(provider_ref=event.provider_ref, status=event.status)
                fresh = seen.model_copy(update={"status": event.status, "version": event.version, "etag": None})
                self._sight(event.step, event.at, Found(booking=_whole(before, fresh)))

    def ask(self, event: e.CommandFact, version: int, command: Command) -> None:
        callback_url = event.details.callback_url if isinstance(event, e.AppointmentRequested) else None
        # The version is a key of its own: what a key said may have been erased.
        request = Request.model_construct(tenant=self.tenant, key=str(version), callback_url=callback_url)
        self.into.asked.append((event.at, Asked(command, request)))

    def _announced(self, event: e.StepStarted) -> None:
        self.called = event
        self.into.calls[call_name(event)] += 1
        self.into.targets[event.operation_id] = (self._step(event.step).target, event.operation)

    def _answered(self, before: Appointment, event: e.StepSucceeded | e.StepPending | e.StepAttemptFailed) -> None:
        call = self.called
        if call is None or call.step != event.step:
            return
        answer = Answer(call.at, event.at - call.at, call.timeout_ms, _outcome(before, event))
        self.into.answers.setdefault(call.operation_id, []).append(answer)
        self.last[call.step] = answer
        self.called = None

    def _polled(self, before: Appointment, event: e.StepSucceeded | e.StepAttemptFailed) -> None:
        step = before.action(event.step)
        if step.progress is not Progress.PENDING or step.booking is None:
            return
        if isinstance(event, e.StepSucceeded):
            booking = event.booking or step.booking.model_copy(update={"status": BookingStatus.ACCEPTED})
        else:
            cancelled = event.reason.startswith(BookingStatus.CANCELLED)
            status = BookingStatus.CANCELLED if cancelled else BookingStatus.REJECTED
            booking = step.booking.model_copy(update={"status": status})
        # It came at some time since the poll before, which brought no news and left no event.
        since = event.at - timedelta(milliseconds=self._step(event.step).poll_ms)
        self._sight(event.step, max(since, step.due_at or since), Found(booking=_whole(before, booking)))

    def _looked(self, before: Appointment, event: e.BookingFound | e.BookingMissing | e.LookupFailed) -> None:
        step = before.move_step if before.state is State.RESCHEDULING else before.action(event.step)
        due_at = step.due_at if step is not None and step.progress is Progress.DOUBT else None
        since = min(max(filter(None, (due_at, before.deferred_until)), default=event.at), event.at)
        patience = timedelta(milliseconds=self._step(event.step).timeout_ms)
        outcome: ReadOutcome = Missing()
        if isinstance(event, e.BookingFound):
            outcome = Found(booking=_whole(before, event.booking))
        elif isinstance(event, e.LookupFailed):
            outcome = Unknown(reason=event.reason, retry_after_ms=(event.look_at - event.at) // MILLISECOND)
        self._sight(event.step, since, outcome, min(event.at - since, patience))

    def _sight(self, step: str, since: datetime, outcome: ReadOutcome, took: timedelta = timedelta(0)) -> None:
        answer = self.last.get(step)
        if answer is not None:
            answer.sights.append(Sight(since - answer.began, outcome, took))

    def _step(self, name: str) -> StepPlan:
        return self.plan.step(name)


def _outcome(before: Appointment, event: e.StepSucceeded | e.StepPending | e.StepAttemptFailed) -> WriteOutcome:
    match event:
        case e.StepSucceeded():
            booking = _whole(before, event.booking) if event.booking is not None else None
            return Confirmed(booking=booking, replayed=event.replayed)
        case e.StepPending():
            poll_ms = max((event.poll_at - event.at) // MILLISECOND, 0)
            return Pending(booking=_whole(before, event.booking), poll_after_ms=poll_ms)
        case e.StepAttemptFailed(kind="rejected"):
            return Rejected(reason=event.reason, conflict=event.conflict)
        case e.StepAttemptFailed(kind="retryable"):
            throttled = event.reason.startswith(THROTTLED) or "quota" in event.reason.lower()
            return Retryable(reason=event.reason, retry_after_ms=event.retry_after_ms, throttled=throttled)
        case _:
            known = before.booking
            if event.reason == "pending" and known is not None:
                return Pending(booking=_whole(before, known), poll_after_ms=event.retry_after_ms)
            return Unknown(reason=event.reason, in_flight=event.in_flight, retry_after_ms=event.retry_after_ms)


def _whole(state: Appointment, booking: ProviderBooking) -> ProviderBooking:
    """A booking with what its event left out because the stream says it already."""
    details = state.details
    assert details is not None
    return booking.model_copy(
        update={
            "client_ref": booking.client_ref or state.client_ref,
            "start": booking.start or details.start,
            "end": booking.end or details.end,
            "summary": WITHHELD,
        }
    )


def _command(event: e.CommandFact) -> Command | None:
    match event:
        case e.CancellationRequested():
            return CancelAppointment()
        case e.RescheduleRequested():
            return RescheduleAppointment.model_construct(start=event.start, end=event.end, time_zone=event.time_zone)
        case e.BookingObserved():
            return ReportBooking.model_construct(seen=event.seen, repair=event.repair, reason=WITHHELD)
        case e.OperatorActed():
            return Act.model_construct(action=event.action, reason=WITHHELD, step=event.step)
        case _:
            return None


def _book(event: e.AppointmentRequested, plan: SagaPlan) -> BookAppointment:
    """The command; a deadline only where the booking had one of its own."""
    details = event.details
    patience = event.deadline_at - event.at
    usual = event.deadline_at == details.start or patience == timedelta(milliseconds=plan.deadline_ms)
    return BookAppointment.model_construct(
        calendar=details.calendar,
        start=details.start,
        end=details.end,
        time_zone=details.time_zone,
        summary=WITHHELD,
        deadline_ms=None if usual else ceil(patience / MILLISECOND),
        policy=event.policy,
    )
