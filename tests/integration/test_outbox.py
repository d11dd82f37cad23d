"""The outbox at work: real receivers, a real log; what each subscriber is told, in which order, and what it is not."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments import Orchestrator
from appointments.outbox import relay as relay_module
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import ask_again, dead_letters
from appointments.outbox.sink import Handler, Subscriber
from appointments.outbox.window import Delivery, Window
from appointments.telemetry.context import HERE, Context
from domain.definition import RetryPolicy
from domain.errors import InvalidFields
from domain.identity import appointment_id
from tests.unit.outbox.world import T0, Received, book, caught_up, desk_on, everything, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8",),
    given="a log that goes on, subscribers over HTTP and in the process",
    when="they are told, slow, down, or do not take one event",
    then="each is told all that is its tenant's at least once, each appointment's in order; nobody waits for another",
    seen_in="what was received, checkpoints, dead letters",
)

SEED = 20261125
QUICK = RetryPolicy(attempts_max=4, backoff_ms=60, backoff_max_ms=100, jitter=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory tells of no commit: it is looked at more often."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.05)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0.05)


async def told_everything(desk: Orchestrator, received: Received, tenant: str = "default") -> bool:
    """Whether it has all that there is."""
    return len(received.events) >= sum(map(len, (await everything(desk.runtime.store, tenant)).values()))


async def test_a_subscriber_is_told_every_event_of_its_tenant_and_none_of_another() -> None:
    async with receiver() as ours, receiver() as theirs, AsyncExitStack() as stack:
        settings = told_at(ours, theirs)
        settings["subscriptions"]["b"]["tenant"] = "other"
        desk = await stack.enter_async_context(desk_on(**settings))
        await stack.enter_async_context(desk.outbox())
        await book(desk, "one", "two")
        await book(desk, "one", "three", tenant="other")
        store = desk.runtime.store
        await until(lambda: caught_up(store, "a", "b"))
        assert ours.versions() == await everything(store)
        assert theirs.versions() == await everything(store, "other")
        assert not ours.versions().keys() & theirs.versions().keys()
        assert ours.unsigned == theirs.unsigned == 0
        told = str(ours.events) + str(theirs.events)
    assert "Jane" not in told
    assert "check-up" not in told
    assert {"phase", "state", "reason", "parked"} <= ours.events[0]["data"].keys()


async def test_only_the_types_that_were_asked_for_are_told_and_the_checkpoint_goes_on_over_the_others() -> None:
    async with receiver() as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received, types=["appointment-confirmed.v1"])))
        await stack.enter_async_context(desk.outbox())
        await book(desk, "one", "two", "three")
        await until(lambda: caught_up(desk.runtime.store, "a"))
    assert [event["type"] for event in received.events] == ["appointment-confirmed.v1"] * 3
    assert {event["data"]["state"] for event in received.events} == {"confirmed"}


async def test_a_new_subscriber_is_told_what_comes_from_now_on_unless_it_wants_all() -> None:
    async with receiver() as late, receiver() as all_of_it, AsyncExitStack() as stack:
        settings = told_at(late, all_of_it)
        settings["subscriptions"]["a"]["since"] = "now"
        desk = await stack.enter_async_context(desk_on(**settings))
        await book(desk, "before")
        await stack.enter_async_context(desk.outbox())
        await until(lambda: caught_up(desk.runtime.store, "a", "b"))
        await book(desk, "after")
        await until(lambda: caught_up(desk.runtime.store, "a", "b"))
    before, after = (str(appointment_id("default", key)) for key in ("before", "after"))
    assert late.versions().keys() == {after}
    assert all_of_it.versions().keys() == {before, after}


async def test_a_new_subscriber_is_told_what_is_booked_at_once_after_the_outbox_has_begun(tmp_path: Path) -> None:
    told = list[str]()

    async def take(event: CloudEvent) -> None:
        told.append(event.id)

    for n in range(10):
        async with desk_on(store=f"sqlite:///{tmp_path / f'{n}.db'}") as desk:
            async with desk.outbox(Subscriber("one", "default", Handler(take))):
                await book(desk, f"key-{n}")
                await until(lambda: caught_up(desk.runtime.store, "one"))
            there = sum(map(len, (await everything(desk.runtime.store)).values()))
            assert len(told) == there
            told.clear()


async def test_the_trace_in_which_it_was_asked_for_goes_on_to_the_subscriber() -> None:
    asked_in = Context(0xABC, 0xDEF, True)
    async with receiver() as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received)))
        await stack.enter_async_context(desk.outbox())
        token = HERE.set(asked_in)
        await book(desk, "traced")
        HERE.reset(token)
        await until(lambda: caught_up(desk.runtime.store, "a"))
    assert {event["traceparent"] for event in received.events} == {str(asked_in)}


async def in_any_weather(path: Path) -> tuple[Received, dict[str, list[int]]]:
    """Many appointments at once, told to a receiver that is slow and fails as it likes."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)

    async def answer(_: dict[str, Any]) -> int:
        await asyncio.sleep(chance.random() * 0.01)
        return chance.choice([204, 204, 204, 503, 500])

    retry = RetryPolicy(attempts_max=1_000, backoff_ms=1, backoff_max_ms=5)
    async with receiver(answer) as received, AsyncExitStack() as stack:
        settings = told_at(received, retry=retry.model_dump())
        desk = await stack.enter_async_context(desk_on(store=f"sqlite:///{path}", **settings))
        await stack.enter_async_context(desk.outbox())
        await book(desk, *(f"key-{n}" for n in range(30)))
        await until(lambda: caught_up(desk.runtime.store, "a"))
        return received, await everything(desk.runtime.store)


async def test_the_order_of_each_appointment_holds_while_many_are_told_and_some_fail(tmp_path: Path) -> None:
    received, events = await in_any_weather(tmp_path / "a.db")
    assert received.versions() == events


async def test_control_without_lanes_the_order_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_in = Window.take_in

    def each_by_itself(self: Window, one: Delivery) -> None:
        one.appointment = UUID(int=one.position)
        taken_in(self, one)

    monkeypatch.setattr(Window, "take_in", each_by_itself)
    received, events = await in_any_weather(tmp_path / "a.db")
    assert received.versions() != events
    assert {id: sorted(versions) for id, versions in received.versions().items()} == events


async def test_a_poison_event_blocks_nobody_is_kept_and_can_be_told_again() -> None:
    poison = f"{appointment_id('default', 'poison')}-3"
    mended = False

    async def answer(event: dict[str, Any]) -> int:
        return 422 if event["id"] == poison and not mended else 204

    async with receiver(answer) as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received, retry=QUICK.model_dump())))
        await stack.enter_async_context(desk.outbox())
        store = desk.runtime.store
        await book(desk, "poison", "other")
        await until(lambda: caught_up(store, "a"))
        events = await everything(store)
        id = str(appointment_id("default", "poison"))
        assert received.versions()[id] == [version for version in events[id] if version != 3], "a gap that can be seen"
        others = {one: versions for one, versions in received.versions().items() if one != id}
        assert others == {one: versions for one, versions in events.items() if one != id}
        (letter,) = await dead_letters(store, "default", "a")
        assert (letter.id, letter.attempts, letter.reason) == (poison, QUICK.attempts_max, "answered 422")
        assert await dead_letters(store, "other") == []

        mended = True
        await ask_again(store, letter, "default", "op", "mended", T0)
        with pytest.raises(InvalidFields, match="no dead letter"):
            await ask_again(store, letter, "default", "op", "twice", T0)
        await until(lambda: caught_up(store, "a"))
        assert Counter(received.ids)[poison] == 1
        (letter,) = await dead_letters(store, "default")
        assert letter.stands == "told again"
    assert received.events[-1]["data"]["version"] == 3


async def test_what_is_not_taken_again_is_a_dead_letter_again_and_no_loop() -> None:
    calls = Counter[str]()
    poison = f"{appointment_id('default', 'poison')}-3"

    async def answer(event: dict[str, Any]) -> int:
        calls[event["id"]] += 1
        return 422 if event["id"] == poison else 204

    async with receiver(answer) as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received, retry=QUICK.model_dump())))
        await stack.enter_async_context(desk.outbox())
        store = desk.runtime.store
        await book(desk, "poison")
        for asked in (1, 2):
            await until(lambda: caught_up(store, "a"))
            (letter,) = await dead_letters(store, "default")
            assert letter.stands == "dead"
            assert calls[poison] == asked * QUICK.attempts_max
            await ask_again(store, letter, "default", "op", "perhaps", T0)
        await until(lambda: caught_up(store, "a"))
        end = await store.position()
        await asyncio.sleep(0.2)
        assert await store.position() == end, "dead letters are events of the log, and none of them is told"
    assert not {event["type"] for event in received.events} & {"delivery-abandoned.v1", "redelivery-requested.v1"}


async def test_a_subscriber_that_is_down_loses_nothing_and_goes_on_where_it_was() -> None:
    down = True

    async def answer(_: dict[str, Any]) -> int:
        return 503 if down else 204

    async with receiver(answer) as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received, retry=QUICK.model_dump())))
        await stack.enter_async_context(desk.outbox())
        store = desk.runtime.store
        await book(desk, *(f"key-{n}" for n in range(5)))
        await asyncio.sleep(1)
        assert received.events == []
        assert await dead_letters(store, "default") == [], "it would have lost its attempts many times over"
        assert not await caught_up(store, "a")
        down = False
        await until(lambda: caught_up(store, "a"))
        assert received.versions() == await everything(store)


async def beside_a_slow_one(desk: Orchestrator, share: bool) -> tuple[float, float, int]:
    """Seconds until all is booked, then until the fast subscriber has it, and how much the slow one has by then."""
    slow, fast = list[str](), list[str]()

    async def slowly(event: CloudEvent) -> None:
        await asyncio.sleep(0.5)
        slow.append(event.id)

    async def at_once(event: CloudEvent) -> None:
        fast.append(event.id)

    async def both(event: CloudEvent) -> None:
        await slowly(event)
        await at_once(event)

    subscribers = [
        Subscriber("slow", "default", Handler(slowly), from_beginning=True),
        Subscriber("fast", "default", Handler(both if share else at_once), from_beginning=True),
    ]
    async with desk.outbox(*subscribers):
        began = time.perf_counter()
        await book(desk, *(f"key-{n}" for n in range(50)))
        booked = time.perf_counter()
        events = await everything(desk.runtime.store)
        await until(lambda: len(fast) == sum(map(len, events.values())) or time.perf_counter() > booked + 2)
        return booked - began, time.perf_counter() - booked, len(slow)


async def test_a_slow_subscriber_slows_neither_the_store_nor_another(tmp_path: Path) -> None:
    async with desk_on(store=f"sqlite:///{tmp_path / 'a.db'}") as desk:
        began = time.perf_counter()
        await book(desk, *(f"alone-{n}" for n in range(50)))
        alone_s = time.perf_counter() - began
    async with desk_on(store=f"sqlite:///{tmp_path / 'b.db'}") as desk:
        booked_s, fast_s, slow = await beside_a_slow_one(desk, share=False)
    print(f"50 booked in {alone_s:.3f} s without subscribers, in {booked_s:.3f} s with a slow one beside a fast one")
    print(f"the fast one had everything {fast_s:.3f} s later, the slow one {slow} events")
    assert fast_s < 2
    assert slow < 100


async def test_control_with_one_relay_for_both_the_fast_one_waits(tmp_path: Path) -> None:
    async with desk_on(store=f"sqlite:///{tmp_path / 'a.db'}") as desk:
        _, fast_s, _ = await beside_a_slow_one(desk, share=True)
    assert fast_s >= 2


async def test_an_address_in_a_private_network_is_told_nothing_unless_the_settings_open_it() -> None:
    async with receiver() as received, AsyncExitStack() as stack:
        settings = told_at(received)
        for url in (received.url, f"https://127.0.0.1:{received.port}/events", f"https://[::1]:{received.port}/"):
            settings["subscriptions"]["a"]["url"] = url
            desk = await stack.enter_async_context(desk_on(**{**settings, "outbound_private": False}))
            with pytest.raises(InvalidFields, match="subscription a: this address is not called"):
                desk.outbox()
        settings["subscriptions"]["a"]["url"] = f"https://localhost:{received.port}/events"
        desk = await stack.enter_async_context(desk_on(**{**settings, "outbound_private": False}))
        await stack.enter_async_context(desk.outbox())
        await book(desk, "one")
        await asyncio.sleep(0.3)
        assert (received.events, received.unsigned) == ([], 0), "the name was looked at when it was to be dialled"
        assert await dead_letters(desk.runtime.store, "default") == []


async def test_control_the_same_address_is_told_where_the_settings_open_it() -> None:
    async with receiver() as received, AsyncExitStack() as stack:
        settings = told_at(received)
        settings["subscriptions"]["a"]["url"] = f"http://localhost:{received.port}/events"
        desk = await stack.enter_async_context(desk_on(**settings))
        await stack.enter_async_context(desk.outbox())
        await book(desk, "one")
        await until(lambda: caught_up(desk.runtime.store, "a"))
    assert received.events


async def test_two_subscribers_of_one_name_are_refused() -> None:
    async def take(_: CloudEvent) -> None:
        return

    async with receiver() as received, desk_on(**told_at(received)) as desk:
        with pytest.raises(InvalidFields, match="two subscribers have one name"):
            desk.outbox(Subscriber("a", "default", Handler(take)))
