"""From events to figures: what each event counts as, and how long what it ends has taken. Pure; adds up in any batches.

Nothing that a person typed is kept: names of steps, providers and tenants, and words of closed lists.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from domain import events as e
from domain.appointment import Appointment
from domain.definition import SagaPlan, patience
from domain.lifecycle import FORWARD, SETTLED, State
from projections.histogram import bucket_of
from projections.projection import Change
from store.rows import microseconds

HOUR_US = 3_600_000_000
_HOUR, _MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)

Where = tuple[int, str, str]
"""hour, tenant, provider."""
Told = tuple[str, str, str]
"""step, what, detail; of a duration: step, operation, outcome."""
Standing = tuple[str, str, str, bool]
"""tenant, provider, state, parked."""
Deferral = tuple[str, str, str, datetime]
"""tenant, definition, step, until."""
Span = tuple[int, str]
"""Whose (a stream's id as a number, which hashes fast), and which: a call, or the whole of what is asked or undone."""

CALL, WHOLE = "call", "whole"
BOOKING, REBOOKING, MOVE = "booking", "rebooking", "move"
CANCEL, WITHDRAWAL, CLEANUP = "cancel", "withdrawal", "cleanup"
"""What a whole span is. A withdrawal is a cancel that came before there was any end."""

COUNTED: dict[type[e.Event], Callable[[Any], Told]] = {
    e.AppointmentRequested: lambda _: ("", "requested", ""),
    e.AppointmentImported: lambda _: ("", "imported", ""),
    e.CancellationRequested: lambda _: ("", "cancellations_requested", ""),
    e.RescheduleRequested: lambda _: ("", "reschedules_requested", ""),
    e.BookingObserved: lambda event: ("", "repairs", event.repair),
    e.RebookingRequested: lambda _: ("", "rebookings_requested", ""),
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


def carried(changes: Sequence[Change]) -> set[int]:
    """The streams that had something under way before the batch."""
    seen: set[int] = set()
    found: set[int] = set()
    for change in changes:
        before = change.before
        if before is not None and (id := before.id.int) not in seen:
            seen.add(id)
            again = before.rounds and before.state not in SETTLED
            if again or before.in_flight is not None or before.state is State.CANCELLING:
                found.add(id)
    return found


@dataclass(slots=True)
class Fold:
    """What a batch adds. `spans`: what was under way before the batch; afterwards, what is under way still."""

    spans: dict[Span, tuple[str, datetime]]
    counters: dict[tuple[Where, Told], int] = field(default_factory=lambda: defaultdict(int))
    timed: dict[tuple[Where, Told, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    standing: dict[Standing, int] = field(default_factory=lambda: defaultdict(int))
    deferrals: dict[Deferral, int] = field(default_factory=dict)
    targets: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, changes: Sequence[Change]) -> None:
        """Fold the changes, in order of position."""
        hour, since, until = 0, _NEVER, _NEVER
        for change in changes:
            event, before, after = change.event, change.before, change.after
            if not since <= event.at < until:
                hour, since = _hour(event.at)
                until = since + _HOUR
            if before is None or after is None:
                self._outside(event, hour)
                continue
            kind, where = type(event), (hour, after.tenant, after.provider)
            counted, then = COUNTED.get(kind), _THEN.get(kind)
            if counted is not None:
                self.counters[where, counted(event)] += 1
            if then is not None:
                then(self, where, before, event)
            if before.state is not after.state or before.parked is not after.parked:
                self._stands(where, before, after, event)

    def _outside(self, event: e.Event, hour: int) -> None:
        if isinstance(event, e.DefinitionRegistered):
            for step in SagaPlan.model_validate(event.plan).steps:
                self.targets[event.digest, step.name] = step.target
        elif isinstance(event, e.OrphanCallbackReceived):
            self.counters[(hour, "", event.provider), COUNTED[type(event)](event)] += 1

    def _started(self, _: Where, before: Appointment, event: e.StepStarted) -> None:
        self.spans[before.id.int, CALL] = ("", event.at)

    def _answered(self, where: Where, before: Appointment, event: e.Event) -> None:
        flight = before.in_flight
        if flight is not None:  # otherwise a look-up, a poll or a callback told it: no call was out
            _, since = self.spans.pop((before.id.int, CALL))
            outcome = OUTCOMES[type(event)](event)
            self._time(where, (flight.step, flight.operation, outcome), event.at - since)

    def _asked_to_cancel(self, _: Where, before: Appointment, event: e.CancellationRequested) -> None:
        first = before.state in FORWARD and (before.id.int, WHOLE) not in self.spans
        self.spans[before.id.int, WHOLE] = (WITHDRAWAL if first else CANCEL, event.at)

    def _asked_to_rebook(self, _: Where, before: Appointment, event: e.RebookingRequested) -> None:
        self.spans[before.id.int, WHOLE] = (REBOOKING, event.at)

    def _asked_to_move(self, _: Where, before: Appointment, event: e.RescheduleRequested) -> None:
        self.spans[before.id.int, WHOLE] = (MOVE, event.at)

    def _came_late(self, _: Where, before: Appointment, event: e.LateSuccess) -> None:
        self.spans[before.id.int, WHOLE] = (CLEANUP, event.at)

    def _confirmed(self, where: Where, before: Appointment, event: e.AppointmentConfirmed) -> None:
        span, since = self.spans.pop((before.id.int, WHOLE), (BOOKING, _created(before)))
        self.counters[where, ("", "confirmed" if span == BOOKING else "rebooked", "")] += 1
        self._time(where, ("", span, "confirmed"), event.at - since)
        self._forced(where, event.forced)

    def _moved(self, where: Where, before: Appointment, event: e.Event) -> None:
        _, since = self.spans.pop((before.id.int, WHOLE))
        outcome = "rescheduled" if type(event) is e.AppointmentRescheduled else "failed"
        self._time(where, ("", MOVE, outcome), event.at - since)

    def _ended(self, where: Where, before: Appointment, event: e.AppointmentFailed | e.AppointmentCancelled) -> None:
        """The first end of an appointment is its end; what a late success begins, and how that ends, is a clean-up."""
        span, since = self.spans.pop((before.id.int, WHOLE), (BOOKING, _created(before)))
        self._forced(where, event.forced)
        match span:
            case "cleanup":
                self._time(where, ("", CLEANUP, "done"), event.at - since)
            case "withdrawal":
                self.counters[where, ("", "withdrawn", event.reason)] += 1
                self._time(where, ("", BOOKING, "withdrawn"), event.at - _created(before))
                self._time(where, ("", CANCEL, "done"), event.at - since)
            case "rebooking":
                self.counters[where, ("", "rebookings_failed", event.reason)] += 1
                self._time(where, ("", REBOOKING, "failed"), event.at - since)
            case "cancel":
                self.counters[where, ("", "cancelled", event.reason)] += 1
                self._time(where, ("", CANCEL, "done"), event.at - since)
            case _:
                self.counters[where, ("", "failed", event.reason)] += 1
                self._time(where, ("", BOOKING, "failed"), event.at - since)

    def _deferred(self, where: Where, before: Appointment, event: e.CallDeferred) -> None:
        # One that has waited long may wait beyond the opening: then its time is its own, and tells of no opening.
        own = event.at + patience(before.deferred_since, event.at)
        if event.reason == "circuit_open" and event.until > own:
            self.deferrals.setdefault((before.tenant, before.definition, event.step, event.until), where[0])

    def _forced(self, where: Where, forced: bool) -> None:
        if forced:
            self.counters[where, ("", "forced", "")] += 1

    def _time(self, where: Where, what: Told, taken: timedelta) -> None:
        taken_us = taken // _MICROSECOND
        if taken_us < 1:  # the clock may have gone backwards
            taken_us = 1
        row = self.timed[where, what, bucket_of(taken_us)]
        row[0] += 1
        row[1] += taken_us

    def _stands(self, where: Where, before: Appointment, after: Appointment, event: e.Event) -> None:
        _, tenant, provider = where
        if before.state is not State.INIT:
            self.standing[tenant, provider, before.state, before.parked] -= 1
        self.standing[tenant, provider, after.state, after.parked] += 1
        if after.parked and not before.parked:
            by = "process" if isinstance(event, e.AppointmentParked) else "operator"
            self.counters[where, ("", "parked", by)] += 1


_THEN: dict[type[e.Event], Callable[[Fold, Where, Appointment, Any], None]] = {
    e.StepStarted: Fold._started,
    **dict.fromkeys(OUTCOMES, Fold._answered),
    e.CancellationRequested: Fold._asked_to_cancel,
    e.RescheduleRequested: Fold._asked_to_move,
    e.RebookingRequested: Fold._asked_to_rebook,
    e.LateSuccess: Fold._came_late,
    e.AppointmentConfirmed: Fold._confirmed,
    e.AppointmentRescheduled: Fold._moved,
    e.RescheduleFailed: Fold._moved,
    e.AppointmentFailed: Fold._ended,
    e.AppointmentCancelled: Fold._ended,
    e.CallDeferred: Fold._deferred,
}
_NEVER = datetime.min.replace(tzinfo=UTC)


def _hour(at: datetime) -> tuple[int, datetime]:
    hour, past_us = divmod(microseconds(at), HOUR_US)
    # In the time zone object of the events: comparing within one is ten times as fast.
    return hour, at - timedelta(microseconds=past_us)


def _created(state: Appointment) -> datetime:
    assert state.created_at is not None
    return state.created_at
