"""From events to figures: what each event counts as, and how long what it ends has taken. Pure; adds up in any batches.

Nothing that a person typed is kept: names of steps, providers and tenants, and words of closed lists.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.definition import SagaPlan
from domain.lifecycle import FORWARD, State
from projections.histogram import bucket_of
from projections.projection import Change
from store.rows import microseconds

HOUR_US = 3_600_000_000

Counter = tuple[int, str, str, str, str, str]
"""hour, tenant, provider, step, what, detail."""
Where = tuple[int, str, str]
"""hour, tenant, provider."""
Timed = tuple[int, str, str, str, str, str, int]
"""hour, tenant, provider, step, operation, outcome, bucket."""
Standing = tuple[str, str, str, bool]
"""tenant, provider, state, parked."""
Deferral = tuple[str, str, str, int]
"""tenant, definition, step, until."""
Span = tuple[UUID, str]
"""Whose, and which: its call in flight, or the whole of a move, a cancel or a clean-up."""

CALL, WHOLE = "call", "whole"
BOOKING, MOVE, CANCEL, WITHDRAWAL, CLEANUP = "booking", "move", "cancel", "withdrawal", "cleanup"
"""What a whole span is. A withdrawal is a cancel that came before the booking had ended."""

COUNTED: dict[type[e.Event], Callable[[Any], tuple[str, str, str]]] = {
    e.AppointmentRequested: lambda _: ("", "requested", ""),
    e.CancellationRequested: lambda _: ("", "cancellations_requested", ""),
    e.RescheduleRequested: lambda _: ("", "reschedules_requested", ""),
    e.OperatorActed: lambda event: ("", "operator_actions", event.action),
    e.StepStarted: lambda event: (event.step, "retries" if event.attempt > 1 else "first_attempts", event.operation),
    e.StepSucceeded: lambda event: (event.step, "succeeded", event.via),
    e.StepPending: lambda event: (event.step, "pending", event.via),
    e.StepAttemptFailed: lambda event: (event.step, "attempts_failed", event.kind),
    e.CallInterrupted: lambda event: (event.step, "interrupted", event.operation),
    e.CallDeferred: lambda event: (event.step, "deferred", ""),
    e.BookingMissing: lambda event: (event.step, "lookups", "missing"),
    e.BookingFound: lambda event: (event.step, "lookups", "found"),
    e.LookupFailed: lambda event: (event.step, "lookups", "failed"),
    e.CallbackReceived: lambda event: ("", "callbacks", event.status),
    e.LateSuccess: lambda _: ("", "late_successes", ""),
    e.RetryScheduled: lambda event: (event.step, "retries_scheduled", event.operation),
    e.StepInDoubt: lambda event: (event.step, "in_doubt", event.operation),
    e.CompensationBegun: lambda event: ("", "compensations", event.reason),
    e.AppointmentConfirmed: lambda _: ("", "confirmed", ""),
    e.AppointmentRescheduled: lambda _: ("", "rescheduled", ""),
    e.RescheduleFailed: lambda event: ("", "reschedules_failed", event.reason),
    e.OrphanCallbackReceived: lambda event: ("", "orphan_callbacks", event.status),
}
"""What an event is counted as: step, what, detail. Ends and parks are counted by what they change: see `Fold`."""

OUTCOMES: dict[type[e.Event], Callable[[Any], str]] = {
    e.StepSucceeded: lambda _: "succeeded",
    e.StepPending: lambda _: "pending",
    e.StepAttemptFailed: lambda event: event.kind,
    e.CallInterrupted: lambda _: "interrupted",
}
"""The events that end a call in flight, and the outcome that its time is kept under."""


@dataclass(slots=True)
class Fold:
    """What a batch adds. `spans`: what was under way before the batch; afterwards, what is under way still."""

    spans: dict[Span, tuple[str, int]]
    counters: dict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    timed: dict[Timed, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    standing: dict[Standing, int] = field(default_factory=lambda: defaultdict(int))
    deferrals: dict[Deferral, int] = field(default_factory=dict)
    targets: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, changes: Sequence[Change]) -> None:
        """Fold the changes, in order of position."""
        for change in changes:
            event, after = change.event, change.after
            at = microseconds(event.at)
            if change.before is None or after is None:
                self._outside(event, at)
                continue
            kind = type(event)
            where = (at // HOUR_US, after.tenant, after.provider)
            if kind in COUNTED:
                self.counters[(*where, *COUNTED[kind](event))] += 1
            if kind in OUTCOMES:
                self._answered(where, change, at)
            elif kind in _SPANNING:
                self._spans(where, change, at)
            if change.before.state is not after.state or change.before.parked is not after.parked:
                self._stands(where, change.before, after, event)

    def _outside(self, event: e.Event, at: int) -> None:
        if isinstance(event, e.DefinitionRegistered):
            for step in SagaPlan.model_validate(event.plan).steps:
                self.targets[event.digest, step.name] = step.target
        elif isinstance(event, e.OrphanCallbackReceived):
            self.counters[(at // HOUR_US, "", event.provider, *COUNTED[type(event)](event))] += 1

    def _answered(self, where: Where, change: Change, at: int) -> None:
        flight = change.before.in_flight if change.before else None
        if flight is not None:  # otherwise a look-up, a poll or a callback told it: no call was out
            _, since = self.spans.pop((change.recorded.stream_id, CALL))
            self._time(where, (flight.step, flight.operation, OUTCOMES[type(change.event)](change.event)), at - since)

    def _spans(self, where: Where, change: Change, at: int) -> None:
        assert change.before is not None
        id, before, event = change.recorded.stream_id, change.before, change.event
        match event:
            case e.StepStarted():
                self.spans[id, CALL] = ("", at)
            case e.AppointmentConfirmed():
                self._time(where, ("", BOOKING, "confirmed"), at - _created(before))
                self._forced(where, event)
            case e.AppointmentFailed() | e.AppointmentCancelled():
                self._ended(where, change, event, at)
            case e.CancellationRequested():
                self.spans[id, WHOLE] = (WITHDRAWAL if before.state in FORWARD else CANCEL, at)
            case e.LateSuccess():
                self.spans[id, WHOLE] = (CLEANUP, at)
            case e.RescheduleRequested():
                self.spans[id, WHOLE] = (MOVE, at)
            case e.AppointmentRescheduled() | e.RescheduleFailed():
                _, since = self.spans.pop((id, WHOLE))
                outcome = "rescheduled" if isinstance(event, e.AppointmentRescheduled) else "failed"
                self._time(where, ("", MOVE, outcome), at - since)
            case e.CallDeferred(reason="circuit_open"):
                deferral = (before.tenant, before.definition, event.step, microseconds(event.until))
                self.deferrals.setdefault(deferral, at // HOUR_US)

    def _ended(
        self, where: Where, change: Change, event: e.AppointmentFailed | e.AppointmentCancelled, at: int
    ) -> None:
        """The first end of an appointment is its end; what a late success begins, and how that ends, is a clean-up."""
        assert change.before is not None
        span, since = self.spans.pop((change.recorded.stream_id, WHOLE), (BOOKING, 0))
        booked = at - _created(change.before)
        self._forced(where, event)
        match span:
            case "cleanup":
                self._time(where, ("", CLEANUP, "done"), at - since)
            case "withdrawal":
                self.counters[(*where, "", "withdrawn", event.reason)] += 1
                self._time(where, ("", BOOKING, "withdrawn"), booked)
                self._time(where, ("", CANCEL, "done"), at - since)
            case "cancel":
                self.counters[(*where, "", "cancelled", event.reason)] += 1
                self._time(where, ("", CANCEL, "done"), at - since)
            case _:
                self.counters[(*where, "", "failed", event.reason)] += 1
                self._time(where, ("", BOOKING, "failed"), booked)

    def _forced(
        self, where: Where, event: e.AppointmentConfirmed | e.AppointmentFailed | e.AppointmentCancelled
    ) -> None:
        if event.forced:
            self.counters[(*where, "", "forced", "")] += 1

    def _time(self, where: Where, what: tuple[str, str, str], taken_us: int) -> None:
        taken_us = max(taken_us, 0)
        row = self.timed[(*where, *what, bucket_of(taken_us))]
        row[0] += 1
        row[1] += taken_us

    def _stands(self, where: Where, before: Appointment, after: Appointment, event: e.Event) -> None:
        _, tenant, provider = where
        if before.state is not State.INIT:
            self.standing[tenant, provider, before.state, before.parked] -= 1
        self.standing[tenant, provider, after.state, after.parked] += 1
        if after.parked and not before.parked:
            by = "process" if isinstance(event, e.AppointmentParked) else "operator"
            self.counters[(*where, "", "parked", by)] += 1


_SPANNING: frozenset[type[e.Event]] = frozenset(
    {
        e.StepStarted,
        e.AppointmentConfirmed,
        e.AppointmentFailed,
        e.AppointmentCancelled,
        e.CancellationRequested,
        e.LateSuccess,
        e.RescheduleRequested,
        e.AppointmentRescheduled,
        e.RescheduleFailed,
        e.CallDeferred,
    }
)


def _created(state: Appointment) -> int:
    assert state.created_at is not None
    return microseconds(state.created_at)
