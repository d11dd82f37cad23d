"""Events: what has happened to an appointment, past tense, immutable.

Facts come from outside (commands, answers, timers, callbacks); decisions are the process manager's. A decision can be
derived again from the facts before it; `FACTS` says which is which. Stored names are stable and versioned.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from domain.commands import OperatorAction, PolicyOverride, Repair, Traceparent
from domain.provider import BookingDetails, BookingStatus, ProviderBooking, Value


class EndReason(StrEnum):
    """Why an appointment failed or was cancelled: a closed list."""

    RETRY_EXHAUSTED = "retry_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    REJECTED = "rejected"
    CONFLICT = "conflict"
    DOWNSTREAM_FAILED = "downstream_failed"
    CANCELLED_BY_REQUEST = "cancelled_by_request"


class Operation(StrEnum):
    """What a step is asked to do."""

    ACTION = "action"
    COMPENSATION = "compensation"
    RESCHEDULE = "reschedule"


class Event(Value):
    """An event at an instant (UTC)."""

    type: ClassVar[str]
    at: datetime


class CommandFact(Event):
    """An accepted command: who asked, under which key, with what (as a fingerprint)."""

    actor: str = "anonymous"
    key: str
    fingerprint: str
    correlation_id: str | None = None
    traceparent: Traceparent | None = Field(default=None, exclude_if=lambda told: told is None)
    """The trace that the command came in, and that the calls because of it go on with; it decides nothing."""


class Beginning(CommandFact):
    """What every stream begins with: what is booked, and the definition under which it is done to the end."""

    tenant: str
    definition: str
    provider: str
    details: BookingDetails


class AppointmentRequested(Beginning):
    """Version 1 of a stream: what is wanted. Nothing is booked yet."""

    type: ClassVar[str] = "appointment-requested.v1"
    deadline_at: datetime
    policy: PolicyOverride | None = None
    action_label: str | None = None


class AppointmentImported(Beginning):
    """Version 1 of a stream: a booking that another system made, to be kept, moved and cancelled here from now on."""

    type: ClassVar[str] = "appointment-imported.v1"
    booking: ProviderBooking
    source: str
    skipped: tuple[str, ...] = ()
    """The other steps: whoever made the booking saw to them."""


class CancellationRequested(CommandFact):
    """Somebody wants it gone."""

    type: ClassVar[str] = "cancellation-requested.v1"
    reason: str = ""
    cleanup_until: datetime


class RescheduleRequested(CommandFact):
    """Somebody wants it at another time."""

    type: ClassVar[str] = "reschedule-requested.v1"
    start: datetime
    end: datetime
    time_zone: str
    deadline_at: datetime


class OperatorActed(CommandFact):
    """An operator did something by hand, and said why."""

    type: ClassVar[str] = "operator-acted.v1"
    action: OperatorAction
    reason: str
    step: str | None = None
    cleanup_until: datetime


class BookingObserved(CommandFact):
    """The booking was seen otherwise than the log says; `seen` is None where nothing was there.

    What the log says already is left out of `seen`: the client reference, and a summary that is the same.
    """

    type: ClassVar[str] = "booking-observed.v1"
    repair: Repair
    reason: str = ""
    seen: ProviderBooking | None = None


class RebookingRequested(Event):
    """The booking is gone and is to be made again: another operation, with time and attempts of its own."""

    type: ClassVar[str] = "rebooking-requested.v1"
    deadline_at: datetime


class StepStarted(Event):
    """A call is announced; only when this is durable does it leave. `operation_id` is the same for every attempt."""

    type: ClassVar[str] = "step-started.v1"
    step: str
    operation: Operation = Operation.ACTION
    operation_id: str
    attempt: int
    timeout_ms: int


class StepSucceeded(Event):
    """A step's operation is done, and known to be done."""

    type: ClassVar[str] = "step-succeeded.v1"
    step: str
    operation: Operation = Operation.ACTION
    booking: ProviderBooking | None = None
    replayed: bool = False
    via: Literal["call", "poll", "callback", "lookup", "operator"] = "call"


class StepPending(Event):
    """The provider took it and has not settled it."""

    type: ClassVar[str] = "step-pending.v1"
    step: str
    booking: ProviderBooking
    poll_at: datetime
    via: Literal["call", "lookup"] = "call"


class StepAttemptFailed(Event):
    """One attempt did not succeed. Kinds: see `domain/provider.py`."""

    type: ClassVar[str] = "step-attempt-failed.v1"
    step: str
    operation: Operation = Operation.ACTION
    kind: Literal["retryable", "unknown", "rejected"]
    reason: str
    retry_after_ms: int | None = None
    in_flight: bool = False
    conflict: bool = False


class CallInterrupted(Event):
    """The caller died, or was cut off, before the outcome was recorded: unknown, and no attempt is lost."""

    type: ClassVar[str] = "call-interrupted.v1"
    step: str
    operation: Operation = Operation.ACTION


class CallDeferred(Event):
    """The breaker let no call through; waiting until then. Not an attempt."""

    type: ClassVar[str] = "call-deferred.v1"
    step: str
    until: datetime
    reason: str


class BookingMissing(Event):
    """A look-up saw nothing. `trusted` once the provider's settle delay has passed since the last unknown answer."""

    type: ClassVar[str] = "booking-missing.v1"
    step: str
    trusted: bool
    look_at: datetime


class BookingFound(Event):
    """A look-up saw the booking, as it is there."""

    type: ClassVar[str] = "booking-found.v1"
    step: str
    booking: ProviderBooking


class LookupFailed(Event):
    """A read got no usable answer; looking again then."""

    type: ClassVar[str] = "lookup-failed.v1"
    step: str
    reason: str
    look_at: datetime


class CallbackReceived(Event):
    """The provider called back with something not known before."""

    type: ClassVar[str] = "callback-received.v1"
    step: str
    webhook_id: str
    status: BookingStatus
    provider_ref: str
    version: int


class LateSuccess(Event):
    """A booking that was given up has come to life at the provider after all; it will be taken away."""

    type: ClassVar[str] = "late-success.v1"
    step: str
    provider_ref: str
    version: int
    cleanup_until: datetime


class RetryScheduled(Event):
    """The same operation again, then."""

    type: ClassVar[str] = "retry-scheduled.v1"
    step: str
    operation: Operation = Operation.ACTION
    due_at: datetime


class StepInDoubt(Event):
    """No further attempt, and the outcome is not known: the booking is looked up before anything is decided.

    `reason` is the end reason if nothing is there; None when another attempt will follow.
    """

    type: ClassVar[str] = "step-in-doubt.v1"
    step: str
    operation: Operation = Operation.ACTION
    reason: EndReason | None = None


class CompensationBegun(Event):
    """Given up: what was done is undone, in reverse. `detail` says in words what went wrong."""

    type: ClassVar[str] = "compensation-begun.v1"
    reason: EndReason
    detail: str = ""
    cleanup_until: datetime


class AppointmentConfirmed(Event):
    """The end that was wanted."""

    type: ClassVar[str] = "appointment-confirmed.v1"
    forced: bool = False


class AppointmentFailed(Event):
    """Ended without a booking, and nothing is left at the provider."""

    type: ClassVar[str] = "appointment-failed.v1"
    reason: EndReason
    forced: bool = False


class AppointmentCancelled(Event):
    """Ended by request, and nothing is left at the provider."""

    type: ClassVar[str] = "appointment-cancelled.v1"
    reason: EndReason = EndReason.CANCELLED_BY_REQUEST
    forced: bool = False


class AppointmentRescheduled(Event):
    """It now stands at the new time."""

    type: ClassVar[str] = "appointment-rescheduled.v1"
    start: datetime
    end: datetime
    time_zone: str


class RescheduleFailed(Event):
    """It could not be moved, and stands at the old time."""

    type: ClassVar[str] = "reschedule-failed.v1"
    reason: EndReason
    detail: str = ""


class AppointmentParked(Event):
    """Stopped for an operator, and listed. `reason` says what is needed."""

    type: ClassVar[str] = "appointment-parked.v1"
    reason: str


class PersonalDataErased(Event):
    """A subject's key was destroyed: what this stream said of that person can no longer be read by anybody.

    `reference` is the request by its number; who was erased must not be told here.
    """

    type: ClassVar[str] = "personal-data-erased.v1"
    actor: str
    reference: str


class DefinitionRegistered(Event):
    """A saga's whole plan, as data: streams that name its digest finish under it."""

    type: ClassVar[str] = "definition-registered.v1"
    digest: str
    plan: dict[str, Any] = Field(default_factory=dict)


class OrphanCallbackReceived(Event):
    """A signed callback for a reference that nobody here knows: kept, not dropped."""

    type: ClassVar[str] = "orphan-callback-received.v1"
    provider: str
    webhook_id: str
    client_ref: str
    status: BookingStatus
    provider_ref: str
    version: int


class DeliveryAbandoned(Event):
    """A subscriber did not take an event however often it was told: kept, and told again when an operator asks."""

    type: ClassVar[str] = "delivery-abandoned.v1"
    sink: str
    tenant: str
    appointment: UUID
    version: int
    attempts: int
    reason: str


class RedeliveryRequested(Event):
    """An operator wants a subscriber to be told an event again; whoever relays finds this in the log."""

    type: ClassVar[str] = "redelivery-requested.v1"
    sink: str
    tenant: str
    appointment: UUID
    version: int
    actor: str
    reason: str = ""


FACTS: tuple[type[Event], ...] = (
    AppointmentRequested,
    AppointmentImported,
    CancellationRequested,
    RescheduleRequested,
    OperatorActed,
    BookingObserved,
    RebookingRequested,
    StepSucceeded,
    StepPending,
    StepAttemptFailed,
    CallInterrupted,
    CallDeferred,
    BookingMissing,
    BookingFound,
    LookupFailed,
    CallbackReceived,
    LateSuccess,
    PersonalDataErased,
)
DECISIONS: tuple[type[Event], ...] = (
    StepStarted,
    RetryScheduled,
    StepInDoubt,
    CompensationBegun,
    AppointmentConfirmed,
    AppointmentFailed,
    AppointmentCancelled,
    AppointmentRescheduled,
    RescheduleFailed,
    AppointmentParked,
)
OUTSIDE_APPOINTMENTS: tuple[type[Event], ...] = (
    DefinitionRegistered,
    OrphanCallbackReceived,
    DeliveryAbandoned,
    RedeliveryRequested,
)
REGISTRY: dict[str, type[Event]] = {event.type: event for event in (*FACTS, *DECISIONS, *OUTSIDE_APPOINTMENTS)}
