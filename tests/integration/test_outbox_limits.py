"""What a subscriber could do to the outbox: hang, stay away, be named badly; and what the store could do to it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments.outbox import pages as pages_module
from appointments.outbox import relay as relay_module
from appointments.outbox import window as window_module
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import abandon, consumer, dead_letters
from appointments.outbox.pages import Pages, Reader
from appointments.outbox.sink import REASON_MAX, Answer, Away, Handler, Subscriber
from appointments.outbox.window import Delivery, Window
from domain.definition import RetryPolicy
from domain.errors import InvalidFields
from domain.events import DeliveryAbandoned
from domain.identity import appointment_id
from saga.clock import WallClock
from store.mapper import decode, encode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent
from store.sqlite import SqliteStore
from tests.unit.outbox.world import T0, book, caught_up, desk_on, everything, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8",),
    given="a subscriber that hangs, stays away for good, or cannot be named; commits while the log is read",
    when="it is told",
    then="nobody waits for it, what is held for it is bounded, and nothing is overlooked",
    seen_in="what was received, events held, dead letters",
)

QUICK = RetryPolicy(attempts_max=4, backoff_ms=60, backoff_max_ms=100, jitter=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory tells of no commit: it is looked at more often."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.05)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0.05)


async def test_a_commit_that_is_told_of_while_the_log_is_read_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "POLL_S", 60)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 60)
    told = list[str]()
    late: list[Append] = []

    class Busy(MemoryStore):
        """Another appointment is stored just after a page was read, once the first was told to its end."""

        async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
            page = await super().log(after, limit)
            if late and len(told) == len(first):
                for entry in late:
                    await self.append(entry)
                late.clear()
                relay.wake()
            return page

    async def take(event: CloudEvent) -> None:
        await asyncio.sleep(2 * relay_module.GATHER_S)
        told.append(event.id)

    async with desk_on() as desk:
        await book(desk, "one", "two")
        streams = [await desk.runtime.store.events(appointment_id("default", key)) for key in ("one", "two")]
    store = Busy("relay")
    first, second = ([encode(e.stream_id, e.version, decode(e)) for e in stream] for stream in streams)
    await store.append(Append(streams[0][0].stream_id, 0, tuple(first), touches_work=False))
    late.append(Append(streams[1][0].stream_id, 0, tuple(second), touches_work=False))
    subscriber = Subscriber("one", "default", Handler(take), from_beginning=True)
    reader = Reader(Pages(store, "urn:appointments", lambda _: None))
    relay = relay_module.Relay(store, subscriber, reader, WallClock().now, lambda *_: None)
    task = asyncio.create_task(relay.run())
    await until(lambda: len(told) == len(first) + len(second), within_s=3)
    relay.stop()
    await task


async def test_a_function_that_hangs_on_one_event_blocks_nobody_and_the_event_is_kept() -> None:
    poison = f"{appointment_id('default', 'poison')}-3"
    told = list[str]()

    async def take(event: CloudEvent) -> None:
        if event.id == poison:
            await asyncio.Event().wait()
        told.append(event.id)

    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on())
        impatient = Subscriber("one", "default", Handler(take), retry=QUICK, concurrency=1, timeout_s=0.05)
        await stack.enter_async_context(desk.outbox(impatient))
        await until(lambda: desk.runtime.store.checkpoint(consumer("one")))
        for n in range(2 * QUICK.attempts_max):
            await book(desk, "poison", f"other-{n}")
            await asyncio.sleep(0.1)
        await until(lambda: caught_up(desk.runtime.store, "one"))
        (letter,) = await dead_letters(desk.runtime.store, "default")
        assert (letter.id, letter.reason) == (poison, "no answer in time")
        events = sum(map(len, (await everything(desk.runtime.store)).values()))
        assert len(told) == events - 1


async def in_memory_while_down(limit: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many events are held for a subscriber that takes nothing, and how many there are."""
    monkeypatch.setattr(pages_module, "PAGE", 50)
    monkeypatch.setattr(window_module, "WINDOW_MAX", limit)
    held = 0
    taken_in = Window.take_in

    def count(self: Window, one: Delivery) -> None:
        nonlocal held
        taken_in(self, one)
        held = max(held, len(self._open))

    monkeypatch.setattr(Window, "take_in", count)

    class Nobody(Handler):
        async def deliver(self, _: CloudEvent) -> Answer:
            return Away("no answer")

    async def take(_: CloudEvent) -> None:
        return

    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on())
        await book(desk, *(f"key-{n}" for n in range(100)))
        await stack.enter_async_context(desk.outbox(Subscriber("one", "default", Nobody(take), from_beginning=True)))
        await until(lambda: held >= 100)
        await asyncio.sleep(0.3)
        return held, sum(map(len, (await everything(desk.runtime.store)).values()))


async def test_for_a_subscriber_that_is_down_so_many_events_are_held_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, there = await in_memory_while_down(100, monkeypatch)
    assert 100 <= held < 100 + 50 < there


async def test_control_without_the_limit_all_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held, there = await in_memory_while_down(1_000_000, monkeypatch)
    assert held == there


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "The CRM"}, "no name of a subscriber"),
        ({"name": ""}, "no name of a subscriber"),
        ({"types": frozenset({"appointment-done.v1"})}, "no event has the type 'appointment-done.v1'"),
    ],
)
async def test_a_subscriber_that_could_not_be_kept_account_of_is_refused(fields: dict[str, Any], told: str) -> None:
    async def take(_: CloudEvent) -> None:
        return

    subscriber = Subscriber(**{"name": "one", "tenant": "default", "sink": Handler(take), **fields})
    async with desk_on() as desk:
        with pytest.raises(InvalidFields, match=told):
            desk.outbox(subscriber)


async def test_a_subscription_that_is_taken_out_and_put_back_goes_on_where_it_was() -> None:
    async with receiver() as received, desk_on(**told_at(received)) as desk:
        async with desk.outbox():
            await book(desk, "before")
            await until(lambda: caught_up(desk.runtime.store, "a"))
        await book(desk, "meanwhile")
        async with desk.outbox():
            await until(lambda: caught_up(desk.runtime.store, "a"))
        assert received.versions() == await everything(desk.runtime.store)
        assert set(Counter(received.ids).values()) == {1}


async def test_what_a_broker_says_is_kept_as_any_store_can_keep_it(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "a.db", owner="one")
    gone = {"sink": "bus", "tenant": "default", "appointment": UUID(int=1), "version": 1, "attempts": 8, "at": T0}
    spoken = DeliveryAbandoned.model_validate({**gone, "reason": "no \0 room \u00fc" + "!" * 1_000})
    for gone_now in (spoken, spoken.model_copy(update={"version": 2, "reason": "\ud800"})):
        await abandon(store, gone_now)
    one, two = await dead_letters(store, "default")
    assert one.reason.startswith("no  room \\xfc!!!")
    assert (len(one.reason), two.reason) == (REASON_MAX, "\\ud800")
    await store.close()
