"""Figures counted once more by hand: a plain loop over the events of each stream, sharing nothing with the fold.

Runs in bad weather of two tenants at two providers, over several hours, so that windows cut through them.
"""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID, uuid5

import pytest
from simulation.faulty_store import at_once
from simulation.simulate import simulate
from test_figures_of_runs import folded

from domain import events as e
from domain.appointment import Appointment
from domain.evolve import evolve
from projections.figures_query import read
from projections.figures_report import FiguresReport, ProviderFigures, Took
from projections.histogram import ERROR_MAX
from projections.projection import Change
from store.mapper import decode

SEEDS = (*range(12), 47, 50, 79, 91, 247)
HOURS = 4
HOUR = timedelta(hours=1)
BEGAN = datetime(2027, 3, 1, 9, tzinfo=UTC)
ROUNDED = 0.0006
"""Of a quantile that is told in four digits."""
CALLED = {e.StepSucceeded: "succeeded", e.StepPending: "pending", e.CallInterrupted: "interrupted"}
NAMED = {
    e.AppointmentRescheduled: "rescheduled",
    e.CallDeferred: "deferred",
    e.CallbackReceived: "callbacks",
    e.LateSuccess: "late_successes",
}
BY_REASON: dict[type[e.Event], tuple[str, str]] = {
    e.RescheduleFailed: ("reschedules_failed", "reason"),
    e.BookingObserved: ("repairs", "repair"),
    e.CompensationBegun: ("compensations", "reason"),
    e.OperatorActed: ("operator_actions", "action"),
}
ROUND = {e.RescheduleRequested: "move", e.RebookingRequested: "rebooking", e.LateSuccess: "cleanup"}
SPANS = ("booking", "rebooking", "move", "cancel", "cleanup")


class Counted:
    """What the events of one provider come to in a window."""

    def __init__(self) -> None:
        self.n: Counter[str] = Counter()
        self.by: dict[str, Counter[str]] = defaultdict(Counter)
        self.took: dict[tuple[str, str], dict[str, list[timedelta]]] = defaultdict(lambda: defaultdict(list))

    def time(self, what: tuple[str, str], outcome: str, taken: timedelta) -> None:
        self.took[what][outcome].append(taken)


def by_hand(stream: list[e.Event], into: Counted, within: Any) -> None:
    """Walk through the life of one appointment; what is not `within` is lived through, and not counted."""
    first, call = stream[0], None
    span, since = ("booking", first.at) if isinstance(first, e.AppointmentRequested) else ("", first.at)
    for event in stream:
        at = into if within(event.at) else Counted()
        match event:
            case e.AppointmentRequested():
                at.n["requested"] += 1
            case e.AppointmentImported():
                at.n["imported"] += 1
            case e.CancellationRequested():
                span, since = ("withdrawal" if span == "booking" else "cancel"), event.at
            case e.StepStarted():
                call = event
                at.n["attempts"] += 1
                at.n["retries"] += event.attempt > 1
                at.n["undo_calls"] += event.operation is e.Operation.COMPENSATION
            case e.StepSucceeded() | e.StepPending() | e.StepAttemptFailed() | e.CallInterrupted() if call is not None:
                outcome = event.kind if isinstance(event, e.StepAttemptFailed) else CALLED[type(event)]
                at.time((call.step, call.operation), outcome, event.at - call.at)
                call = None
            case e.LookupFailed():
                at.n["lookups_failed"] += 1
            case e.AppointmentConfirmed():
                at.n["rebooked" if span == "rebooking" else "confirmed"] += 1
                at.time(("", span), "confirmed", event.at - since)
                span = ""
            case e.AppointmentRescheduled() | e.RescheduleFailed():
                outcome = "rescheduled" if isinstance(event, e.AppointmentRescheduled) else "failed"
                at.time(("", "move"), outcome, event.at - since)
                span = ""
            case e.AppointmentFailed() | e.AppointmentCancelled():
                if span in ("booking", "rebooking"):
                    at.by["failed" if span == "booking" else "rebookings_failed"][event.reason] += 1
                    at.time(("", span), "failed", event.at - since)
                elif span == "withdrawal":
                    at.n["withdrawn"] += 1
                    at.time(("", "booking"), "withdrawn", event.at - first.at)
                    at.time(("", "cancel"), "done", event.at - since)
                else:
                    at.n["cancelled"] += span == "cancel"
                    at.time(("", span), "done", event.at - since)
                span = ""
        if type(event) in ROUND:
            span, since = ROUND[type(event)], event.at
        if type(event) in NAMED:
            at.n[NAMED[type(event)]] += 1
        if type(event) in BY_REASON:
            name, reason = BY_REASON[type(event)]
            at.by[name][getattr(event, reason)] += 1
        at.n["forced"] += getattr(event, "forced", False)
        at.n["parked"] += isinstance(event, e.AppointmentParked) or "park" in (
            getattr(event, "action", ""),
            getattr(event, "repair", ""),
        )


def run_of(seed: int, number: int) -> list[Change]:
    """A run across the turn of an hour, of one tenant at one provider."""
    ahead = HOUR * (number % HOURS) - timedelta(seconds=15)
    whose = {"tenant": "ab"[number % 2], "provider": ("main", "other")[number // 2 % 2]}
    states: dict[UUID, Appointment] = {}
    changes: list[Change] = []
    for recorded in at_once(simulate(seed).world.medium.log(limit=1_000_000)):
        event = decode(recorded)
        event = event.model_copy(update={"at": event.at + ahead, **(whose if isinstance(event, e.Beginning) else {})})
        before = after = None
        if not isinstance(event, e.OUTSIDE_APPOINTMENTS):
            id = uuid5(recorded.stream_id, str(number))
            before = states.get(id) or Appointment(id)
            after = states[id] = evolve(before, event)
        changes.append(Change(recorded, event, before, after))
    return changes


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    return [change for number, seed in enumerate(SEEDS) for change in run_of(seed, number)]


def counted(
    changes: list[Change], tenant: str | None, first: datetime | None, last: datetime | None
) -> dict[str, Counted]:
    streams: dict[UUID, list[e.Event]] = defaultdict(list)
    for change in changes:
        if change.after is not None:
            streams[change.after.id].append(change.event)
    found: dict[str, Counted] = defaultdict(Counted)

    def within(at: datetime) -> bool:
        return (first is None or at >= first) and (last is None or at < last)

    for stream in streams.values():
        begun = stream[0]
        assert isinstance(begun, e.Beginning)
        if tenant in (None, begun.tenant):
            by_hand(stream, found[begun.provider], within)
    return found


def same(told: FiguresReport, exact: dict[str, Counted]) -> None:
    for one in told.providers:
        hand = exact[one.provider]
        numbers = [name for name, field in ProviderFigures.model_fields.items() if field.annotation is int]
        for name in {*numbers} - {"orphan_callbacks", "unfinished", "parked_now"}:
            assert getattr(one, name) == hand.n[name], (one.provider, name)
        for name in (
            "failed",
            "reschedules_failed",
            "rebookings_failed",
            "repairs",
            "compensations",
            "operator_actions",
        ):
            assert getattr(one, name) == hand.by[name], (one.provider, name)
        ended = hand.n["confirmed"] + hand.by["failed"].total()
        assert one.success_rate == (pytest.approx(hand.n["confirmed"] / ended, abs=1e-6) if ended else None)
        for name in SPANS:
            same_times(getattr(one, name), hand.took.pop(("", name), {}))
    for step in told.steps:
        for operation in step.operations:
            same_times(operation.took, exact[step.provider].took.pop((step.step, operation.operation), {}))
    assert not any(hand.took for hand in exact.values()), "what was timed by hand was timed by the fold"


def same_times(told: Took, exact: dict[str, list[timedelta]]) -> None:
    assert {outcome: took.count for outcome, took in told.by_outcome.items()} == {k: len(v) for k, v in exact.items()}
    every = sorted(taken for outcome, times in exact.items() if outcome != "interrupted" for taken in times)
    ms = [max(taken / timedelta(milliseconds=1), 0.001) for taken in every]
    assert told.all.count == len(ms)
    assert told.all.sum_ms == pytest.approx(sum(ms), abs=0.001 * len(ms))
    for percent, found in ((50, told.all.p50_ms), (95, told.all.p95_ms), (99, told.all.p99_ms)):
        assert not ms or found == pytest.approx(ms[ceil(len(ms) * percent / 100) - 1], rel=ERROR_MAX + ROUNDED)


WINDOWS = [(None, None), (0, None), (None, 2), (0, 1), (1, 3), (-1, 0)]


@pytest.mark.evidence(
    target="figures",
    answers=("R3.4",),
    given="streams of every kind",
    when="a plain loop counts them",
    then="every figure is the same",
    seen_in="figures report",
)
@pytest.mark.parametrize("tenant", [None, "a", "b"])
@pytest.mark.parametrize(("first", "last"), WINDOWS)
def test_every_figure_is_what_a_plain_loop_counts(
    changes: list[Change], tenant: str | None, first: int | None, last: int | None
) -> None:
    since, until = (None if hour is None else BEGAN + HOUR * hour for hour in (first, last))
    with folded(changes, range(0, len(changes), 50)) as connection:
        report = read(connection, since, until, tenant)
    exact = counted(changes, tenant, since, until)
    print({name: dict(hand.n) for name, hand in exact.items()})
    assert {one.provider for one in report.providers} == set(exact)
    same(report, exact)


def test_the_loop_counts_something_of_everything(changes: list[Change]) -> None:
    exact = counted(changes, None, None, None)
    seen = sum((hand.n for hand in exact.values()), Counter())
    for hand in exact.values():
        seen.update({name: reasons.total() for name, reasons in hand.by.items()})
        seen.update({f"time of {what}": 1 for _, what in hand.took})
    print(seen)
    for name in ("retries", "undo_calls", "withdrawn", "cancelled", "late_successes", "rescheduled", "compensations"):
        assert seen[name], name
    assert all(seen[f"time of {what}"] for what in ("booking", "move", "cancel", "cleanup"))


def test_control_one_retry_less_is_noticed(changes: list[Change]) -> None:
    exact = counted(changes, None, None, None)
    next(hand for hand in exact.values() if hand.n["retries"]).n["retries"] -= 1
    with folded(changes) as connection, pytest.raises(AssertionError):
        same(read(connection), exact)
