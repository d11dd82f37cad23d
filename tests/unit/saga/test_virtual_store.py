"""The store of virtual time finds the same work as the memory store, whatever is written and whenever it is asked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid5

import pytest

from saga.virtual_store import VirtualStore
from store.memory import MemoryStore
from store.port import Append, OpenWork

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
LANES = ("", "main/acme", "bank/acme")
SEEDS = range(40)


def row(rng: Random, stream: UUID, now: datetime) -> OpenWork:
    def soon() -> datetime:
        return now + timedelta(seconds=rng.randint(-3, 9))

    due_at, deadline_at = rng.choice((None, soon(), soon(), soon())), rng.choice((None, soon()))
    starts_at = NOON + timedelta(days=rng.randint(1, 5))
    return OpenWork(stream, "acme", rng.choice(LANES), due_at, starts_at, deadline_at, parked=due_at is None)


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_finds_what_the_memory_store_finds(seed: int) -> None:
    print(f"seed {seed}")
    rng, now = Random(seed), NOON
    plain, fast = MemoryStore("x"), VirtualStore("x")
    streams = [uuid5(UUID(int=7), str(number)) for number in range(12)]
    compared = 0
    for _ in range(300):
        looked_at = now
        stream = rng.choice(streams)
        entry = Append(stream, 0, (), rng.choice((None, row(rng, stream, now), row(rng, stream, now))))
        for store in (plain, fast):
            await store.append(entry)
        now += timedelta(seconds=rng.choice((0, 0, 1, 2)))
        limit, closed = rng.choice((1, 3, 100)), tuple(rng.sample(LANES[1:], rng.randint(0, 2)))
        skip = tuple(rng.sample(streams, rng.randint(0, 3)))
        found = [list(await store.due(now, limit, closed, skip)) for store in (plain, fast)]
        assert found[0] == found[1]
        compared += len(found[0])
        for after in (looked_at, now, now + timedelta(seconds=3)):
            assert await plain.next_due(after) == await fast.next_due(after)
    assert compared > 100, "the control: there was something to compare"


async def test_control_a_row_that_is_lost_is_noticed() -> None:
    plain, fast = MemoryStore("x"), VirtualStore("x")
    stream = uuid5(UUID(int=7), "0")
    work = replace(row(Random(0), stream, NOON), due_at=NOON)
    for store in (plain, fast):
        await store.append(Append(stream, 0, (), work))
    fast._timers.clear()
    assert await plain.due(NOON, 9) != await fast.due(NOON, 9)
