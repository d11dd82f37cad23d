"""The runtime carries: one stream's trouble is its own, callbacks for nobody are kept, and lost races are run again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from given_when_then import BOOK, asked, told

from domain import events as e
from domain.appointment import Appointment
from domain.errors import ConcurrencyConflict, StoreUnavailable
from domain.identity import appointment_id, orphan_stream
from domain.lifecycle import State
from domain.provider import BookingStatus, Confirmed, Pending, ProviderBooking, WriteOutcome
from providers.local import LocalProvider
from saga import runtime as runtime_module
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Due
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Runtime
from saga.turn import turn
from store.mapper import decode
from store.memory import MemoryStore
from store.port import Append, OpenWork, RecordedEvent


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 2, 9, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


async def confirmed(_asked: StepCall) -> WriteOutcome:
    return Confirmed()


SAGA = Saga("booking", 1, (CalendarStep(), Step("notify", confirmed)))


class Desk:
    """A runtime and what it is made of."""

    def __init__(self, store: MemoryStore | None = None, saga: Saga = SAGA, lanes: Lanes | None = None) -> None:
        self.clock, self.calendar = HandClock(), LocalProvider("main")
        self.store = store or MemoryStore("first")
        self.saga, self.plan = saga, saga.plan(self.calendar)
        self.runtime = Runtime(
            self.store, self.clock, [saga], {"main": self.calendar}, lanes or Lanes(), self.store.owner
        )

    async def book(self, key: str = "key-1", wait_s: float = 5) -> Appointment:
        id = appointment_id("default", key)
        await self.runtime.give(id, asked(BOOK, key), self.plan)
        return await self.runtime.settled(id, wait_s)

    async def types(self, id: Any) -> list[str]:
        return [recorded.type.removesuffix(".v1") for recorded in await self.store.events(id)]


Opened = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    desks: list[Desk] = []

    async def start(**parts: Any) -> Desk:
        desks.append(Desk(**parts))
        await desks[-1].runtime.start()
        return desks[-1]

    yield start
    for desk in desks:
        await desk.runtime.stop()


async def until(happened: Callable[[], Any], seconds: float = 5) -> None:
    """Let others run until it has happened."""
    async with asyncio.timeout(seconds):
        while True:
            found = happened()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.001)


async def test_one_appointment_from_request_to_confirmation(opened: Opened) -> None:
    desk = await opened()
    state = await desk.book()
    assert state.state is State.CONFIRMED
    assert await desk.store.work(state.id) is None
    assert len(desk.calendar.live("main")) == 1


async def test_an_observer_hears_of_every_turn_after_it_is_durable() -> None:
    heard: list[int] = []
    desk = Desk()
    desk.runtime = Runtime(
        desk.store,
        desk.clock,
        [SAGA],
        {"main": desk.calendar},
        Lanes(),
        "first",
        lambda before, turned, given: heard.append(turned.state.version),
    )
    await desk.runtime.start()
    state = await desk.book()
    await desk.runtime.stop()
    assert heard == sorted(heard)
    assert heard[-1] == state.version


class TestOneStreamsTroubleIsItsOwn:
    async def damaged(self, opened: Opened, key: str = "bad") -> Desk:
        """A pending appointment whose stream then cannot be read, in a store that is opened anew."""
        desk = await opened()
        reference = str(appointment_id("default", key))
        seen = ProviderBooking(provider_ref="bk-1", client_ref=reference, status=BookingStatus.PENDING)
        desk.calendar.answer_next("create", Pending(booking=seen, poll_after_ms=1_000))
        id = (await desk.book(key, wait_s=0)).id
        await until(lambda: _rests(desk, id))
        await desk.runtime.stop()
        tables = desk.store._tables
        spoilt = RecordedEvent(id, 1, "from-the-future.v9", b"{}", 1)
        tables.streams[id][0] = spoilt
        return await opened(store=desk.store.reopen("second"))

    async def test_a_stream_that_cannot_be_read_is_set_aside_and_the_others_go_on(self, opened: Opened) -> None:
        desk = await self.damaged(opened)
        id = appointment_id("default", "bad")
        desk.clock.at += timedelta(seconds=9)
        assert (await desk.book("good")).state is State.CONFIRMED

        async def set_aside() -> bool:
            row = await desk.store.work(id)
            return bool(row.parked and row.due_at is None)

        await until(set_aside)
        assert len(await desk.store.events(id)) == 3, "nothing was written to it"

    async def test_a_fault_in_our_own_code_puts_off_that_appointment_alone(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk = await opened()
        reference = str(appointment_id("default", "bad"))
        seen = ProviderBooking(provider_ref="bk-1", client_ref=reference, status=BookingStatus.PENDING)
        desk.calendar.answer_next("create", Pending(booking=seen, poll_after_ms=1_000))
        id = (await desk.book("bad", wait_s=0)).id
        await until(lambda: _rests(desk, id))
        told_of: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told_of.append(context))

        def breaks(state: Appointment, given: Any, *rest: Any) -> Any:
            assert not (state.id == id and isinstance(given, Due)), "planted"
            return turn(state, given, *rest)

        monkeypatch.setattr(runtime_module, "turn", breaks)
        desk.clock.at += timedelta(seconds=2)
        assert (await desk.book("good")).state is State.CONFIRMED
        await until(lambda: told_of)
        row = await desk.store.work(id)
        assert row is not None
        assert row.due_at == desk.clock.at + runtime_module.NOBODY_RUNS
        assert len(told_of) == 1

    async def test_work_that_nobody_here_can_run_is_looked_at_again_later(self, opened: Opened) -> None:
        desk = await opened()
        reference = str(appointment_id("default", "old"))
        seen = ProviderBooking(provider_ref="bk-1", client_ref=reference, status=BookingStatus.PENDING)
        desk.calendar.answer_next("create", Pending(booking=seen, poll_after_ms=1_000))
        id = (await desk.book("old", wait_s=0)).id
        await until(lambda: _rests(desk, id))
        await desk.runtime.stop()
        newer = replace(SAGA, version=2)
        desk = await opened(store=desk.store.reopen("second"), saga=newer)
        desk.clock.at += timedelta(seconds=9)
        assert (await desk.book("new")).state is State.CONFIRMED

        async def put_off() -> bool:
            row = await desk.store.work(id)
            return bool(row.due_at == desk.clock.at + runtime_module.NOBODY_RUNS)

        await until(put_off)


async def _rests(desk: Desk, id: Any) -> bool:
    """Pending, and no call under way."""
    return "step-pending" in await desk.types(id)


class TestCallbacks:
    async def test_one_for_nobody_is_kept_once(self, opened: Opened) -> None:
        desk = await opened()
        for reference in ("nobody", str(appointment_id("default", "never"))):
            assert not await desk.runtime.called_back("main", reference, told("accepted", 1))
            assert not await desk.runtime.called_back("main", reference, told("accepted", 1))
        (kept,) = await desk.store.events(orphan_stream("main", "wh-1"))
        orphan = decode(kept)
        assert isinstance(orphan, e.OrphanCallbackReceived)
        assert orphan.client_ref == "nobody"

    async def test_one_from_another_provider_does_not_reach_the_appointment(self, opened: Opened) -> None:
        desk = await opened()
        state = await desk.book()
        assert not await desk.runtime.called_back("other", str(state.id), told("cancelled", 9))
        assert not (await desk.runtime.load(state.id)).parked

    async def test_one_for_an_appointment_reaches_it(self, opened: Opened) -> None:
        desk = await opened()
        state = await desk.book()
        assert state.booking is not None
        assert await desk.runtime.called_back(
            "main", str(state.id), told("cancelled", 9, ref=state.booking.provider_ref)
        )
        assert (await desk.runtime.load(state.id)).parked


class Contested(MemoryStore):
    """Somebody else is always a little faster, so many times."""

    losses = 0

    async def append(self, entry: Append) -> int:
        if self.losses and entry.events:
            self.losses -= 1
            raise ConcurrencyConflict("planted")
        return await super().append(entry)


class Failing(MemoryStore):
    """Takes no writes, so many times."""

    failures = 0

    async def append(self, entry: Append) -> int:
        if self.failures and entry.expected_version:
            self.failures -= 1
            raise StoreUnavailable("planted")
        return await super().append(entry)


class TestTheStore:
    async def test_a_lost_race_is_run_again_and_gives_its_place_back(self, opened: Opened) -> None:
        store = Contested("first")
        desk = await opened(store=store, lanes=Lanes({"*": LimitPolicy(concurrency=1)}))
        store.losses = 5
        assert (await desk.book()).state is State.CONFIRMED
        assert desk.runtime.lanes.target("main").running == 0

    async def test_a_race_that_is_never_won_is_told(self, opened: Opened) -> None:
        store = Contested("first")
        desk = await opened(store=store)
        store.losses = runtime_module.CONFLICTS_MAX
        with pytest.raises(ConcurrencyConflict):
            await desk.book()
        assert desk.runtime.lanes.target("main").running == 0
        assert (await desk.book()).state is State.CONFIRMED

    async def test_an_answer_is_recorded_however_long_the_store_takes_no_writes(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime_module, "STORE_RETRY_S", 0.001)
        store = Failing("first")
        desk = await opened(store=store)
        store.failures = 7
        assert (await desk.book()).state is State.CONFIRMED
        assert store.failures == 0
        assert len(desk.calendar.live("main")) == 1


class TestDeadlines:
    async def test_a_busy_lane_does_not_hold_what_is_over(self, opened: Opened) -> None:
        """One call hangs and fills the lane; another waits behind it, and ends at its deadline all the same."""
        release = asyncio.Event()

        class Hanging(LocalProvider):
            async def create(self, *asked: Any) -> WriteOutcome:
                await release.wait()
                return await super().create(*asked)

        saga = Saga("booking", 1, (CalendarStep(timeout_ms=300_000), Step("notify", confirmed)), deadline_ms=1_000)
        desk = Desk(saga=saga, lanes=Lanes({"main": LimitPolicy(concurrency=1)}))
        desk.runtime._providers = {"main": Hanging("main")}
        await desk.runtime.start()
        await desk.book("first", wait_s=0)
        waits = await desk.book("second", wait_s=0)
        desk.clock.at += timedelta(seconds=2)
        ended = await desk.runtime.settled(waits.id, 5)
        release.set()
        await desk.runtime.stop()
        assert (ended.state, ended.reason) == (State.FAILED, e.EndReason.DEADLINE_EXCEEDED)

    async def test_due_rows_are_handed_out_in_order_of_the_start_of_the_appointment(self) -> None:
        store = MemoryStore("first")
        noon = HandClock().now()
        for name, days in (("late", 9), ("soon", 1), ("later", 20)):
            id = appointment_id("default", name)
            row = OpenWork(id, "default", "", noon, noon + timedelta(days=days), None)
            await store.append(Append(id, 0, (RecordedEvent(id, 1, "x", b"{}"),), row))
        due = await store.due(noon, 10)
        assert [row.starts_at for row in due] == sorted(row.starts_at for row in due)


async def test_a_place_that_comes_free_costs_one_turn_and_not_one_for_everybody_who_waits() -> None:
    class Counting(MemoryStore):
        appends = 0

        async def append(self, entry: Append) -> int:
            self.appends += 1
            return await super().append(entry)

    class Slow(LocalProvider):
        async def create(self, *asked: Any) -> WriteOutcome:
            await asyncio.sleep(0.001)
            return await super().create(*asked)

    store, waiting = Counting("first"), 100
    desk = Desk(store, lanes=Lanes({"main": LimitPolicy(concurrency=1)}))
    desk.runtime._providers = {"main": Slow("main")}
    await desk.runtime.start()
    ended = await asyncio.gather(*(desk.book(f"key-{number}") for number in range(waiting)))
    await desk.runtime.stop()
    assert {state.state for state in ended} == {State.CONFIRMED}
    print(f"{store.appends / waiting} appends for each")
    assert store.appends < 6 * waiting, "request, call, its end and the next call, the end; and the odd one"


class _LateStore(MemoryStore):
    """Between the look for what is due and the look for what is next, time passes."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__("first")
        self.clock, self.asked_after = clock, list[datetime]()

    async def due(self, *args: Any, **more: Any) -> Any:
        found = await super().due(*args, **more)
        self.clock.at += timedelta(seconds=2)
        return found

    async def next_due(self, after: datetime) -> datetime | None:
        self.asked_after.append(after)
        return await super().next_due(after)


async def test_what_falls_due_while_the_runtime_looks_is_not_passed_over() -> None:
    desk = Desk()
    store = _LateStore(desk.clock)
    runtime = Runtime(store, desk.clock, [SAGA], {"main": desk.calendar}, Lanes(), "first")
    id, due_at = UUID(int=7), desk.clock.at + timedelta(seconds=1)
    row = OpenWork(id, tenant="default", lane="", due_at=due_at, starts_at=due_at, deadline_at=None)
    await store.append(Append(id, 0, (), row))
    await runtime.start()
    while not store.asked_after:
        await asyncio.sleep(0)
    await runtime.stop()
    assert store.asked_after[0] < due_at


async def test_stopping_wakes_those_who_wait_and_cuts_calls_short(opened: Opened) -> None:
    began = asyncio.Event()

    async def hangs(_asked: StepCall) -> WriteOutcome:
        began.set()
        await asyncio.Event().wait()
        return Confirmed()

    desk = await opened(saga=Saga("booking", 1, (CalendarStep(), Step("notify", hangs))))
    waiting = asyncio.ensure_future(desk.book(wait_s=60))
    await began.wait()
    await desk.runtime.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    row = await desk.store.work(appointment_id("default", "key-1"))
    assert row is not None
    assert row.in_flight
