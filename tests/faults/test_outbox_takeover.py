"""Two processes relay one PostgreSQL database: one at a time tells, and when it is killed the other goes on."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from appointments.outbox.relay import POLL_S
from store.postgres import PostgresStore
from tests.faults.test_outbox_kill9 import in_order, started
from tests.unit.outbox.world import Received, book, desk_on, everything, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "R7.3"),
    given="two processes that relay for one subscriber, on one PostgreSQL database",
    when="the one that tells is killed, and more is booked",
    then="until then every event is told once; the other goes on within two leases, and nothing is lost",
    seen_in="what was received, who held the name",
)

LEASE_S = 2.0
MORE_S = 5.0
"""On top of two leases: a process that stands still for a moment on a busy machine, and the polls between."""


async def looked_up(url: str, query: LiteralString) -> Any:
    """The first value that the database answers with; None where there is none."""
    async with await psycopg.AsyncConnection.connect(url.replace("+psycopg", "")) as connection:
        found = await (await connection.execute(query)).fetchone()
    return None if found is None else found[0]


async def holder(url: str) -> str:
    """The worker that relays; its name holds its process id."""
    return str(await looked_up(url, "SELECT owner FROM held_names") or "")


async def workers(url: str) -> int:
    """How many are at work."""
    return int(await looked_up(url, "SELECT count(*) FROM workers"))


async def told_by_two(url: str, folder: Path, *planted: str) -> tuple[Received, dict[str, list[int]], int, float]:
    """What was received, what there was to be told, how much was received before the kill, how long nobody told."""
    async with desk_on(PostgresStore.open(url, "desk", lease_s=LEASE_S)) as desk, receiver() as received:
        settings: dict[str, Any] = {"store": url, "provider": "local:", **told_at(received)}
        settings |= {"lease_ms": round(LEASE_S * 1_000), "state_folder": str(folder)}
        both = [await started(settings, *planted) for _ in range(2)]
        try:
            while await workers(url) < 3:
                await asyncio.sleep(0.05)
            await asyncio.sleep(2 * POLL_S)  # time enough for both to relay, if they are to
            await book(desk, *(f"key-{n}" for n in range(20)))
            there = await everything(desk.runtime.store)
            await until(lambda: set(received.ids) >= everything_of(there))
            await asyncio.sleep(POLL_S)
            told = len(received.ids)
            if planted:
                return received, {}, told, 0
            name = await holder(url)
            (relaying,) = (one for one in both if f":{one.pid}@" in name)
            relaying.kill()
            await relaying.wait()
            killed = asyncio.get_running_loop().time()
            await book(desk, *(f"more-{n}" for n in range(20)))
            await until(lambda: len(received.ids) > told)
            silent_s = asyncio.get_running_loop().time() - killed
            there = await everything(desk.runtime.store)
            await until(lambda: set(received.ids) >= everything_of(there))
            assert await holder(url) not in ("", name)
            return received, there, told, silent_s
        finally:
            for one in both:
                if one.returncode is None:
                    one.terminate()
                    await one.wait()


def everything_of(versions: dict[str, list[int]]) -> set[str]:
    """The ids of these events."""
    return {f"{id}-{version}" for id, some in versions.items() for version in some}


async def test_one_tells_and_when_it_is_killed_the_other_goes_on(postgres_url: str, tmp_path: Path) -> None:
    received, there, told, silent_s = await told_by_two(postgres_url, tmp_path)
    print(f"{told} told before the kill; the other went on after {silent_s:.1f} s")
    assert set(Counter(received.ids[:told]).values()) == {1}, "both alive: one of them told it"
    assert silent_s < 2 * LEASE_S + MORE_S
    assert {id: in_order(versions) for id, versions in received.versions().items()} == there


async def test_control_where_each_takes_itself_for_the_one_both_tell(postgres_url: str, tmp_path: Path) -> None:
    received, _, told, _ = await told_by_two(postgres_url, tmp_path, "together")
    assert max(Counter(received.ids[:told]).values()) > 1
