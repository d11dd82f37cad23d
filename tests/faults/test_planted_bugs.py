"""The controls: with one protection taken out, the simulation must notice, and by the guarantee that is at stake."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from simulation.faulty_store import FaultyStore
from simulation.simulate import simulate

import saga.entry
import saga.interpret
import saga.lanes
import saga.process
import saga.replay
import saga.runtime
import saga.turn
from domain import events as e
from domain.appointment import Appointment, Progress, StepState
from domain.definition import SagaPlan
from domain.errors import ConcurrencyConflict
from domain.identity import operation_id
from domain.lifecycle import ENDED
from saga.inputs import CalledBack, Hold, Wake
from saga.process import Course, Launch, Move, View
from store.port import Append, OpenWork, RecordedEvent

SEEDS_MAX = 400


def found_by(check: str, store_type: type[FaultyStore] = FaultyStore) -> int:
    """The first seed that notices, by this check."""
    others: set[str] = set()
    for seed in range(SEEDS_MAX):
        for violation in simulate(seed, store_type).violations:
            if violation.startswith(check):
                print(f"found by seed {seed}: {violation[:300]}")
                return seed
            others.add(violation.split()[0])
    pytest.fail(f"{SEEDS_MAX} seeds have not noticed; other checks that have: {others}")


def plant(monkeypatch: pytest.MonkeyPatch, next_move: Callable[[View], Move]) -> None:
    """Another process manager, for the run and for the replay."""
    monkeypatch.setattr(saga.turn, "next_move", next_move)
    monkeypatch.setattr(saga.replay, "next_move", next_move)


# -- the store -----------------------------------------------------------------------------------------------------


class HastyStore(FaultyStore):
    """Acknowledges before it is durable; else a good store."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tips: dict[UUID, int] = {}
        self.writes: list[asyncio.Task[int]] = []

    async def append(self, entry: Append) -> int:
        tip = self.tips.get(entry.stream_id)
        if tip is None:
            tip = len(await self.events(entry.stream_id))
        if entry.expected_version != tip:
            raise ConcurrencyConflict("moved on")
        self.tips[entry.stream_id] = tip + len(entry.events)
        self.writes.append(asyncio.get_running_loop().create_task(super().append(entry)))
        await asyncio.sleep(0.0001)
        return 0

    def _commit(self, entry: Append, fault: str, done: "asyncio.Future[int]") -> None:
        super()._commit(entry, fault if fault.startswith("crash") else "", done)


def test_acknowledged_before_durable() -> None:
    found_by("G1", HastyStore)


def test_a_call_that_leaves_before_its_announcement_is_durable() -> None:
    found_by("FAULT", HastyStore)


class LeakyLog(FaultyStore):
    """Shows an event only after one with a later position, as a log read by "id > last" without a lock does."""

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        batch = await super().log(after, limit)
        return batch if len(batch) < 2 else (*batch[:-2], batch[-1])


def test_a_log_that_shows_events_out_of_order() -> None:
    found_by("G4", LeakyLog)


class LaxStore(FaultyStore):
    """Appends whatever the stream's version is."""

    def _commit(self, entry: Append, fault: str, done: "asyncio.Future[int]") -> None:
        version = len(self.durable._tables.streams.get(entry.stream_id, []))
        events = tuple(replace(event, version=version + place) for place, event in enumerate(entry.events, 1))
        super()._commit(replace(entry, expected_version=version, events=events), fault, done)


def test_a_store_that_does_not_check_the_expected_version() -> None:
    found_by("G3", LaxStore)


# -- the runtime ---------------------------------------------------------------------------------------------------


def test_a_timer_that_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = saga.entry._open_work

    def lost(turned: Any) -> OpenWork | None:
        return written(turned) if turned.effect is not None or turned.state.parked else None

    monkeypatch.setattr(saga.entry, "_open_work", lost)
    found_by("G6")


def test_a_state_that_is_kept_after_its_append_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    forget = saga.runtime.Runtime._forget

    def keep(self: Any, before: Appointment, turned: Any) -> None:
        forget(self, before, turned)
        if before.version:
            self._cache[before.id] = before

    monkeypatch.setattr(saga.runtime.Runtime, "_forget", keep)
    found_by("G")


def test_a_breaker_that_never_half_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed_for_ever(breaker: Any, now: datetime) -> Hold | None:
        if breaker.open_until is None:
            return None
        return Hold("circuit_open", max(breaker.open_until, now + timedelta(seconds=1)))

    monkeypatch.setattr(saga.lanes, "verdict", closed_for_ever)
    found_by("G6")


# -- the process ---------------------------------------------------------------------------------------------------


def test_a_new_operation_id_for_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = saga.process._launch

    def renamed(view: View, course: Course) -> Move:
        move = launched(view, course)
        if not isinstance(move, Launch) or move.event is None:
            return move
        name = operation_id(view.state.id, course.step.name, course.operation, 1_000 + course.at.attempts)
        event = move.event.model_copy(update={"operation_id": name})
        return Launch(replace(move.effect, operation_id=name), event)  # type: ignore[type-var]

    monkeypatch.setattr(saga.process, "_launch", renamed)
    found_by("OPERATIONS")


def test_compensation_that_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga.process, "_backward", lambda view: saga.process._end(view))
    found_by("G2")


def test_an_unknown_outcome_that_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = saga.process.next_move

    def sure(step: StepState) -> StepState:
        progress = Progress.GIVEN_UP if step.progress is Progress.DOUBT else step.progress
        return replace(step, doubt_since=None, progress=progress)

    def next_move(view: View) -> Move:
        state = replace(view.state, actions=tuple(map(sure, view.state.actions)))
        return decided(replace(view, state=state))

    plant(monkeypatch, next_move)
    found_by("G2")


def test_a_deadline_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = saga.process.next_move

    def next_move(view: View) -> Move:
        deadline_at = view.state.deadline_at and view.state.deadline_at + timedelta(hours=1)
        return decided(replace(view, state=replace(view.state, deadline_at=deadline_at)))

    plant(monkeypatch, next_move)
    found_by("DEADLINE")


def test_a_settle_delay_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = saga.interpret._missing

    def trusting(*given: Any) -> e.BookingMissing:
        return looked(*given).model_copy(update={"trusted": True})

    monkeypatch.setattr(saga.interpret, "_missing", trusting)
    found_by("G2")


def test_a_decision_that_depends_on_more_than_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delay drawn anew each time: live and replay differ."""
    calls = [0]

    def drawn(view: View, course: Course, failure: e.StepAttemptFailed) -> int:
        calls[0] += 1
        return 200 + calls[0] % 50

    monkeypatch.setattr(saga.process, "_delay_ms", drawn)
    found_by("G7")


# -- callbacks -----------------------------------------------------------------------------------------------------


def test_a_duplicate_callback_that_is_acted_on_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = saga.interpret.called_back

    def forgetful(state: Appointment, told: CalledBack, now: datetime, plan: SagaPlan) -> tuple[e.Event, ...]:
        actions = tuple(
            replace(step, booking=step.booking and step.booking.model_copy(update={"version": told.version - 1}))
            for step in state.actions
        )
        return heard(replace(state, webhooks=(), actions=actions), told, now, plan)

    monkeypatch.setattr(saga.turn, "called_back", forgetful)
    found_by("G5")


def test_a_late_success_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    consequence = saga.interpret._consequence

    def deaf(state: Appointment, *more: Any) -> tuple[e.Event, ...]:
        return () if state.state in ENDED else consequence(state, *more)

    monkeypatch.setattr(saga.interpret, "_consequence", deaf)
    found_by("G2")


# -- past the desk -------------------------------------------------------------------------------------------------


def test_a_booking_that_is_made_again_under_the_operation_id_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = saga.process._launch

    def same(view: View, course: Course) -> Move:
        return launched(view, replace(course, at=replace(course.at, round=0)))

    monkeypatch.setattr(saga.process, "_launch", same)
    found_by("FAULT")


# -- what the simulation has found in the past ---------------------------------------------------------------------


def test_a_step_in_doubt_that_is_undone_before_its_settle_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared = saga.process._clear_doubt

    def hasty(view: View, course: Course, action: StepState) -> Move:
        move = cleared(view, course, action)
        if isinstance(move, Wake) and not course.step.lookup and course.at.progress is Progress.READY:
            return saga.process._undo(view, course)
        return move

    monkeypatch.setattr(saga.process, "_clear_doubt", hasty)
    found_by("G2")


def test_a_dispatcher_that_dies_of_an_unreadable_store(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dispatch(self: Any) -> None:
        while True:
            self._wake.clear()
            if not await self._hand_out():
                await self._sleep()

    monkeypatch.setattr(saga.runtime.Runtime, "_dispatch", dispatch)
    found_by("G6")
