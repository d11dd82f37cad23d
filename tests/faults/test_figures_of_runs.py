"""Figures of real runs in bad weather: the same whatever the batches, and what the raw log says when it is counted."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from math import ceil
from random import Random

import pytest
from simulation.faulty_store import at_once
from simulation.simulate import simulate
from simulation.world import WatchedLanes
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.pool import StaticPool

import projections.figures
from domain import events as e
from domain.appointment import Appointment
from domain.evolve import evolve
from domain.lifecycle import SETTLED
from projections.figures import Figures, metadata, openings
from projections.figures_query import read
from projections.histogram import ERROR_MAX, Latency
from projections.projection import Change
from projections.views import Views
from saga.inputs import Hold
from store.mapper import decode
from store.port import RecordedEvent, Store
from store.rows import instant

SEEDS = (*range(25), 47, 50, 79, 91, 247)
"""The last five hold late successes."""
OUTCOMES = (e.StepSucceeded, e.StepPending, e.StepAttemptFailed, e.CallInterrupted)


def changes_of(log: Iterable[RecordedEvent]) -> list[Change]:
    states: dict[object, Appointment] = {}
    changes = []
    for recorded in log:
        event = decode(recorded)
        if isinstance(event, e.OUTSIDE_APPOINTMENTS):
            changes.append(Change(recorded, event, None, None))
            continue
        before = states.get(recorded.stream_id) or Appointment(recorded.stream_id)
        after = states[recorded.stream_id] = evolve(before, event)
        changes.append(Change(recorded, event, before, after))
    return changes


def run_of(seed: int) -> list[Change]:
    return changes_of(at_once(simulate(seed).world.medium.log(limit=1_000_000)))


@contextmanager
def folded(changes: list[Change], cuts: Iterable[int] = ()) -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    edges = [0, *sorted(cuts), len(changes)]
    with engine.begin() as connection:
        metadata.create_all(connection)
        for first, last in pairwise(edges):
            Figures().apply(connection, changes[first:last])
        yield connection
    engine.dispose()


def rows(connection: Connection) -> dict[str, list[object]]:
    return {table.name: sorted(map(tuple, connection.execute(select(table)))) for table in metadata.sorted_tables}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_batches_leave_no_trace(seed: int) -> None:
    changes, rng = run_of(seed), Random(seed)
    print(f"seed {seed}, {len(changes)} events")
    with folded(changes) as at_once_:
        expected = rows(at_once_)
    for cuts in (range(len(changes)), *(rng.sample(range(len(changes)), k=rng.randint(1, 12)) for _ in range(3))):
        with folded(changes, cuts) as connection:
            assert rows(connection) == expected


@pytest.mark.parametrize(
    ("table", "statement"), [("counters", "_COUNT"), ("latencies", "_TIME"), ("standing", "_STAND")]
)
def test_control_rows_that_replace_each_other_are_noticed(
    table: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = run_of(3)
    with folded(changes) as connection:
        expected = rows(connection)
    replacing = (
        getattr(projections.figures, statement).replace("INSERT", "INSERT OR REPLACE").partition(" ON CONFLICT")[0]
    )
    monkeypatch.setattr(projections.figures, statement, replacing)
    with folded(changes, range(len(changes))) as connection:
        assert rows(connection)[table] != expected[table]


def test_control_a_call_that_spans_two_batches_is_found_in_the_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = run_of(3)
    monkeypatch.setattr(projections.figures, "_spans", lambda *_: {})
    with pytest.raises(KeyError), folded(changes, range(len(changes))):
        pass


@pytest.mark.parametrize("seed", [3, 47])
def test_a_rebuild_gives_the_rows_that_were_caught_up(seed: int) -> None:
    medium = simulate(seed).world.medium
    caught_up, rebuilt = asyncio.run(caught_up_and_rebuilt(medium))
    with folded(run_of(seed)) as connection:
        assert caught_up == rebuilt == rows(connection)


async def caught_up_and_rebuilt(store: Store) -> tuple[object, object]:
    views = Views(store, None, (Figures(),))
    try:
        caught_up, _ = await views.read("figures", rows)
        await views.rebuild()
        rebuilt, _ = await views.read("figures", rows)
        return caught_up, rebuilt
    finally:
        await views.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_opening_is_counted_that_was_none(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {seed}")
    told: set[tuple[str, datetime]] = set()
    hold = WatchedLanes.hold

    def watched(self: WatchedLanes, target: str, tenant: str, now: datetime) -> Hold | None:
        held = hold(self, target, tenant, now)
        if held is not None and held.reason == "circuit_open" and held.until is not None:
            told.add((target, held.until))
        return held

    monkeypatch.setattr(WatchedLanes, "hold", watched)
    with folded(run_of(seed)) as connection:
        counted = {(target, instant(until)) for target, until, *_ in connection.execute(select(openings))}
    assert counted <= told


def durations(changes: list[Change]) -> dict[tuple[str, str], list[float]]:
    """By step and operation, what each call took in ms, counted from the bare events; interrupted ones left out."""
    began: dict[object, e.StepStarted] = {}
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for change in changes:
        event, id = change.event, change.recorded.stream_id
        if isinstance(event, e.StepStarted):
            began[id] = event
        elif isinstance(event, OUTCOMES) and id in began:
            started = began.pop(id)
            if not isinstance(event, e.CallInterrupted):
                took[started.step, started.operation].append((event.at - started.at).total_seconds() * 1_000)
    return took


def close(told: Latency, exact: list[float]) -> None:
    exact = sorted(max(ms, 0.001) for ms in exact)
    for percent, found in ((50, told.p50_ms), (95, told.p95_ms), (99, told.p99_ms)):
        assert found == pytest.approx(exact[ceil(len(exact) * percent / 100) - 1], rel=ERROR_MAX * 1.05)


@pytest.mark.evidence(
    target="figures",
    answers=("R3.4",),
    given="runs in bad weather",
    when="the raw log is counted by other code",
    then="the figures say the same",
    seen_in="figures report",
)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_figures_are_those_of_the_raw_log(seed: int) -> None:
    changes = run_of(seed)
    print(f"seed {seed}, {len(changes)} events")
    with folded(changes, range(0, len(changes), 7)) as connection:
        report = read(connection)
    total = report.total
    kinds = Counter(type(change.event) for change in changes)
    starts = [change.event for change in changes if isinstance(change.event, e.StepStarted)]
    assert total.requested == kinds[e.AppointmentRequested]
    assert total.confirmed + total.rebooked == kinds[e.AppointmentConfirmed]
    assert (total.attempts, total.retries) == (len(starts), sum(start.attempt > 1 for start in starts))
    assert total.undo_calls == sum(start.operation is e.Operation.COMPENSATION for start in starts)
    assert sum(total.compensations.values()) == kinds[e.CompensationBegun]
    assert total.late_successes == kinds[e.LateSuccess]
    assert total.deferred == kinds[e.CallDeferred]
    assert total.callbacks == kinds[e.CallbackReceived]
    ended = (
        sum(total.failed.values())
        + total.withdrawn
        + total.cancelled
        + total.cleanup.all.count
        + sum(total.rebookings_failed.values())
    )
    assert ended == kinds[e.AppointmentFailed] + kinds[e.AppointmentCancelled]
    assert total.booking.all.count == total.confirmed + sum(total.failed.values()) + total.withdrawn
    exact = durations(changes)
    told = {(step.step, one.operation): one.took.all for step in report.steps for one in step.operations}
    assert {key: took.count for key, took in told.items() if took.count} == {k: len(v) for k, v in exact.items()}
    for key, took in exact.items():
        close(told[key], took)
    states = {change.recorded.stream_id: change.after for change in changes if change.after}.values()
    assert total.now == Counter(state.state for state in states)
    assert total.unfinished == sum(state.state not in SETTLED for state in states)
    assert total.parked_now == sum(state.parked for state in states)


def test_the_runs_hold_what_is_counted() -> None:
    """Without retries, openings, late successes and clean-ups in them the tests above would show nothing."""
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        with folded(run_of(seed)) as connection:
            report = read(connection)
        total = report.total
        for name in ("retries", "undo_calls", "late_successes", "deferred", "withdrawn", "cancelled", "parked"):
            seen[name] += getattr(total, name)
        seen["openings"] += sum(breaker.openings for breaker in report.breakers)
        seen["cleanup"] += total.cleanup.all.count
        seen["failed"] += sum(total.failed.values())
        seen["moves"] += total.move.all.count
    print(seen)
    assert min(seen.values()) > 0
    assert len(seen) == 11
