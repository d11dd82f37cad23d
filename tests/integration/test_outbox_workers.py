"""Who relays where many could: one of the workers of a store, another when it dies, and never one that was struck."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from appointments.outbox import relay as relay_module
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import consumer
from appointments.outbox.outbox import Outbox
from appointments.outbox.sink import Handler, Subscriber
from domain.definition import RetryPolicy
from saga.clock import WallClock
from store.memory import MemoryStore
from store.sqlite import SqliteStore
from tests.unit.outbox.world import book, caught_up, desk_on, everything, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "R7.3"),
    given="two workers that relay for one subscriber, on one store",
    when="both live, one dies, one is struck and comes back, one finds the checkpoint moved",
    then="one of them tells, and goes on where the other was",
    seen_in="what was received, the checkpoint, who holds the name",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory tells of no commit: it is looked at more often."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.05)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0.05)


@asynccontextmanager
async def two_workers() -> AsyncIterator[tuple[MemoryStore, MemoryStore]]:
    """Two on one shared store, with a log in it."""
    first = MemoryStore("first", lease_s=15, clock=WallClock().now)
    async with desk_on(first) as desk:
        await book(desk, *(f"key-{n}" for n in range(10)))
        one, two = first.sibling("one"), first.sibling("two")
        for worker in (one, two):
            await worker.claim(worker.owner, WallClock().now())
        yield one, two


async def told_by_two() -> tuple[Counter[str], int]:
    """How often each event was told by two relays on one store, and how many there are."""
    told = Counter[str]()

    async def take(event: CloudEvent) -> None:
        told[event.id] += 1
        await asyncio.sleep(0.001)

    async with two_workers() as stores, AsyncExitStack() as stack:
        for store in stores:
            subscriber = Subscriber("one", "default", Handler(take), from_beginning=True)
            outbox = Outbox(store, [subscriber], "urn:appointments", WallClock().now)
            await stack.enter_async_context(outbox.running())
        await until(lambda: caught_up(stores[0], "one"))
        return told, sum(map(len, (await everything(stores[0])).values()))


async def test_of_many_workers_on_one_store_one_relays() -> None:
    told, events = await told_by_two()
    assert len(told) == events
    assert set(told.values()) == {1}


async def test_control_where_nobody_is_alone_it_is_told_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "exclusive", lambda _self, _name: nullcontext(True))
    told, _ = await told_by_two()
    assert max(told.values()) == 2


async def test_when_the_one_that_relays_dies_another_goes_on_from_its_checkpoint() -> None:
    told = list[str]()

    async def take(event: CloudEvent) -> None:
        told.append(event.id)
        await asyncio.sleep(0.002)

    async with two_workers() as (one, two):
        subscriber = Subscriber("one", "default", Handler(take), from_beginning=True, concurrency=1)
        relaying, waiting = (Outbox(store, [subscriber], "urn:appointments", WallClock().now) for store in (one, two))
        async with relaying.running(), waiting.running():
            await until(lambda: len(told) >= 10)
            (holder,) = one._tables.held.values()
            del one._tables.workers[holder]
            await until(lambda: caught_up(one, "one"))
            assert set(one._tables.held.values()) == {"one", "two"} - {holder}
        events = sum(map(len, (await everything(one)).values()))
    assert len(set(told)) == events, "whoever it was, nothing is missing"


async def test_a_worker_that_was_declared_dead_and_comes_back_under_another_name_relays_no_more() -> None:
    facts = list[tuple[Any, ...]]()
    told = {"one": Counter[str](), "two": Counter[str]()}
    down = True

    def telling(worker: str) -> Handler:
        async def take(event: CloudEvent) -> None:
            told[worker][event.id] += 1
            if down:
                raise ValueError("not now")

        return Handler(take)

    async with two_workers() as (one, two), AsyncExitStack() as stack:
        endless = RetryPolicy(attempts_max=1_000, backoff_ms=10, backoff_max_ms=10)
        for store in (one, two):
            subscriber = Subscriber("one", "default", telling(store.owner), retry=endless, from_beginning=True)
            outbox = Outbox(
                store, [subscriber], "urn:appointments", WallClock().now, fact=lambda *x, **y: facts.append((*x, y))
            )
            await stack.enter_async_context(outbox.running())
            await until(lambda: told["one"])
        del one._tables.workers["one"]
        await until(lambda: told["two"])
        await one.claim("one~1", WallClock().now())
        await until(lambda: facts)
        assert facts[0] == ("outbox_interrupted", {"target": "one", "reason": "Superseded"})
        told["one"].clear()
        down = False
        await until(lambda: caught_up(two, "one"))
        assert not told["one"]


async def test_a_relay_that_was_taken_for_dead_moves_the_checkpoint_no_more(tmp_path: Path) -> None:
    facts = list[tuple[str, Any]]()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_: CloudEvent) -> None:
        begun.set()
        await go_on.wait()

    store = SqliteStore.open(tmp_path / "a.db", owner="one")
    async with desk_on(store) as desk:
        await book(desk, "one")
        stuck = Subscriber("one", "default", Handler(hang), from_beginning=True)
        outbox = Outbox(
            store, [stuck], "urn:appointments", WallClock().now, fact=lambda name, **told: facts.append((name, told))
        )
        async with outbox.running():
            await begun.wait()
            await store.keep_checkpoint(consumer("one"), 3)
            go_on.set()
            await until(lambda: facts)
        assert facts[0] == ("outbox_interrupted", {"target": "one", "reason": "Superseded"})
