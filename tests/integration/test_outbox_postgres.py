"""The outbox on PostgreSQL: many workers, one relays; an operator elsewhere has a dead letter told again."""

from collections import Counter
from contextlib import AsyncExitStack

import pytest

from appointments.outbox import relay as relay_module
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import ask_again, consumer, dead_letters
from appointments.outbox.outbox import Outbox
from appointments.outbox.sink import Handler, Subscriber
from domain.definition import RetryPolicy
from domain.identity import appointment_id
from saga.clock import WallClock
from store.postgres import PostgresStore
from tests.unit.outbox.world import T0, book, desk_on, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "R7.3"),
    given="two workers that relay for one subscriber, on one PostgreSQL database",
    when="one books, the other stops, an operator asks for a dead letter",
    then="each event is told by one of them, and none is lost as they change",
    seen_in="what was received, the checkpoint",
)

LEASE_S = 60.0
POISON = f"{appointment_id('default', 'poison')}-3"


async def test_one_of_them_tells_and_when_it_goes_the_other_does(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "POLL_S", 0.1)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0.05)
    told, refused, mended = Counter[str](), 0, False

    async def take(event: CloudEvent) -> None:
        nonlocal refused
        if event.id == POISON and not mended:
            refused += 1
            raise ValueError("not this one")
        told[event.id] += 1

    retry = RetryPolicy(attempts_max=3, backoff_ms=50, backoff_max_ms=50)
    subscriber = Subscriber("one", "default", Handler(take), retry=retry, from_beginning=True)
    async with AsyncExitStack() as stack:
        workers = [PostgresStore.open(postgres_url, owner, lease_s=LEASE_S) for owner in ("one", "two", "operator")]
        for worker in workers:
            stack.push_async_callback(worker.close)
        one, two, elsewhere = workers
        first = await stack.enter_async_context(AsyncExitStack())
        for worker, until_then in ((one, first), (two, stack)):
            await worker.claim(worker.owner, WallClock().now())
            outbox = Outbox(worker, [subscriber], "urn:appointments", WallClock().now)
            await until_then.enter_async_context(outbox.running())

        async def caught_up() -> bool:
            return await elsewhere.checkpoint(consumer("one")) == await elsewhere.position()

        async with desk_on(PostgresStore.open(postgres_url, "desk", lease_s=LEASE_S)) as desk:
            await book(desk, "poison", *(f"key-{n}" for n in range(10)))
            await until(caught_up)
            await first.aclose()
            await book(desk, *(f"more-{n}" for n in range(10)))
            await until(caught_up)
        assert set(told.values()) == {1}
        assert (len(told), refused) == (6 * 21 - 1, 3)

        mended = True
        (letter,) = await dead_letters(elsewhere, "default")
        await ask_again(elsewhere, letter, "default", "op", "mended", T0)
        await until(caught_up)
        assert told[POISON] == 1
