"""The life cycle: one table of legal moves. Every transition of every appointment is a row here, and nowhere else.

`MOVES[state][event]` is the state after the event. An event that is not in the table is illegal in that state: it
raises, and nothing happens. The diagram in the docs is drawn from this table.
"""

from enum import StrEnum

from domain import events as e
from domain.errors import HistoryError


class State(StrEnum):
    """The fine state. Parked is a flag beside it, not a state."""

    INIT = "init"
    REQUESTED = "requested"
    BOOKING = "booking"
    PENDING = "pending"
    CONFIRMED = "confirmed"
    RESCHEDULING = "rescheduling"
    COMPENSATING = "compensating"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """The coarse life cycle."""

    INIT = "init"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


PHASES: dict[State, Phase] = {
    State.INIT: Phase.INIT,
    State.REQUESTED: Phase.IN_PROGRESS,
    State.BOOKING: Phase.IN_PROGRESS,
    State.PENDING: Phase.IN_PROGRESS,
    State.CONFIRMED: Phase.COMPLETED,
    State.RESCHEDULING: Phase.IN_PROGRESS,
    State.COMPENSATING: Phase.IN_PROGRESS,
    State.FAILED: Phase.FAILED,
    State.CANCELLING: Phase.IN_PROGRESS,
    State.CANCELLED: Phase.CANCELLED,
}

ENDED = frozenset({State.FAILED, State.CANCELLED})
SETTLED = frozenset({State.CONFIRMED, State.FAILED, State.CANCELLED})
FORWARD = frozenset({State.REQUESTED, State.BOOKING, State.PENDING})
BACKWARD = frozenset({State.COMPENSATING, State.CANCELLING})


def _stay(state: State, *events: type[e.Event]) -> dict[type[e.Event], State]:
    return dict.fromkeys(events, state)


_LOOKS = (e.BookingFound, e.BookingMissing, e.LookupFailed)
_WAITS = (e.CallDeferred, e.RetryScheduled, e.StepInDoubt, e.OperatorActed, e.AppointmentParked, e.CallbackReceived)
_AFTER_THE_END = (e.BookingObserved, e.CallbackReceived, e.PersonalDataErased)
_CALLS = (e.StepStarted, e.StepAttemptFailed, e.CallInterrupted, e.StepSucceeded)

MOVES: dict[State, dict[type[e.Event], State]] = {
    State.INIT: {e.AppointmentRequested: State.REQUESTED, e.AppointmentImported: State.CONFIRMED},
    State.REQUESTED: {
        **_stay(State.REQUESTED, *_WAITS),
        e.StepStarted: State.BOOKING,
        e.CancellationRequested: State.CANCELLING,
        e.CompensationBegun: State.COMPENSATING,
        e.AppointmentConfirmed: State.CONFIRMED,
    },
    State.BOOKING: {
        **_stay(State.BOOKING, *_WAITS, *_CALLS, *_LOOKS),
        e.StepPending: State.PENDING,
        e.CancellationRequested: State.CANCELLING,
        e.CompensationBegun: State.COMPENSATING,
        e.AppointmentConfirmed: State.CONFIRMED,
    },
    State.PENDING: {
        **_stay(State.PENDING, *_WAITS, *_LOOKS),
        **_stay(State.BOOKING, e.StepSucceeded, e.StepAttemptFailed, e.StepStarted),
        e.CancellationRequested: State.CANCELLING,
        e.CompensationBegun: State.COMPENSATING,
        e.AppointmentConfirmed: State.CONFIRMED,
    },
    State.CONFIRMED: {
        **_stay(State.CONFIRMED, e.OperatorActed, e.AppointmentParked, *_AFTER_THE_END),
        e.RebookingRequested: State.BOOKING,
        e.RescheduleRequested: State.RESCHEDULING,
        e.CancellationRequested: State.CANCELLING,
    },
    State.RESCHEDULING: {
        **_stay(State.RESCHEDULING, *_WAITS, *_CALLS, *_LOOKS),
        e.AppointmentRescheduled: State.CONFIRMED,
        e.RescheduleFailed: State.CONFIRMED,
        e.CancellationRequested: State.CANCELLING,
    },
    State.COMPENSATING: {
        **_stay(State.COMPENSATING, *_WAITS, *_CALLS, *_LOOKS),
        e.AppointmentFailed: State.FAILED,
    },
    State.FAILED: {**_stay(State.FAILED, *_AFTER_THE_END), e.LateSuccess: State.COMPENSATING},
    State.CANCELLING: {
        **_stay(State.CANCELLING, *_WAITS, *_CALLS, *_LOOKS, e.StepPending),
        e.AppointmentCancelled: State.CANCELLED,
    },
    State.CANCELLED: {
        **_stay(State.CANCELLED, *_AFTER_THE_END),
        e.LateSuccess: State.CANCELLING,
    },
}


class IllegalMove(HistoryError):
    """An event that the table of moves does not allow in this state."""


def move(state: State, event: type[e.Event]) -> State:
    """The state after `event`; raises `IllegalMove` when the table has no such row."""
    try:
        return MOVES[state][event]
    except KeyError:
        raise IllegalMove(f"{event.type} is not legal in state {state}") from None
