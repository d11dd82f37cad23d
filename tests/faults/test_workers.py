"""Four workers on one PostgreSQL database: killed, frozen, and their server crashed under them (G1 to G6)."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from domain.errors import StoreUnavailable
from mocks.server import MockProvider
from store.port import Store
from store.postgres import PostgresStore
from tests.faults.victims import FAULTS, SECRET, Victim, victim, violations
from tests.postgres.server import PostgresServer

WORKERS = 4
SEED = 20_261_125
KILLS = 60
"""Of single workers; the others go on."""
TRIES = 3
"""A blow may miss the moment in which a planted bug does harm."""
LEASE_S = 1.0
RESTARTS = 4
HEALED_WITHIN_S = 60.0


@asynccontextmanager
async def workers(store: str, mock: MockProvider, folder: Path, planted: str = "") -> AsyncIterator[list[Victim]]:
    """So many processes on one database, each forked anew after it was killed."""
    async with AsyncExitStack() as stack:
        place = {"state_folder": str(folder), "concurrency": 100, "tenant_concurrency": 100}
        yield [
            await stack.enter_async_context(victim(store, mock, planted, provider_name="main", **place))
            for _ in range(WORKERS)
        ]


async def kill_one_after_the_other(
    store: str, folder: Path, kills: int, planted: str = "", creates: int = 0, seed: int = SEED
) -> tuple[list[str], set[str]]:
    """Each worker again and again, 20 to 120 ms after its first acknowledgement, all four at once.

    `creates`: and not before so many more have reached the provider.
    """
    print(f"seed {seed}, {kills} kills")
    async with MockProvider(secret=SECRET) as mock, workers(store, mock, folder, planted) as fleet:
        mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})

        async def kill_again_and_again(number: int, one: Victim) -> None:
            chance = random.Random(seed + number)
            for n in range(kills // WORKERS):
                before = mock.calls().get("create", 0)
                pid = await one.run(seed + 1_000 * number + n)
                while mock.calls().get("create", 0) < before + creates:
                    await asyncio.sleep(0.002)
                await asyncio.sleep(chance.uniform(0.02, 0.12))  # the fault itself: a moment of work before the blow
                os.kill(pid, signal.SIGKILL)
                await one.hear_out()

        await asyncio.gather(*(kill_again_and_again(n, one) for n, one in enumerate(fleet)))
        mock.clear_scripts()
        await fleet[0].run(seed + 9_999, finish=True)
        acknowledged = set[str]().union(*(one.acknowledged for one in fleet))
        return await violations(store, acknowledged, mock.ledger()), acknowledged


@pytest.mark.evidence(
    target="kill -9 of workers",
    answers=("R7.1", "R7.2", "R7.3", "G1", "G2", "G6"),
    given="four processes on one PostgreSQL database, and a provider that loses answers, fails and delays",
    when="each is killed again and again while the others work",
    then="every acknowledged command is in the log, one live booking for each confirmed, none for others",
    seen_in="ledger, state of the store",
)
async def test_workers_that_are_killed_lose_nothing_and_book_nothing_twice(postgres_url: str, tmp_path: Path) -> None:
    found, acknowledged = await kill_one_after_the_other(postgres_url, tmp_path, KILLS)
    print(f"{len(acknowledged)} commands acknowledged")
    assert not found
    assert len(acknowledged) > KILLS


@pytest.mark.parametrize(("planted", "guarantee"), [("acknowledge_early", "G1"), ("fresh_ids", "G2")])
async def test_control_a_planted_bug_is_found(
    postgres_server: PostgresServer, tmp_path: Path, planted: str, guarantee: str
) -> None:
    creates, found = 3 * len(FAULTS) if planted == "fresh_ids" else 0, list[str]()
    for n in range(TRIES):
        url = postgres_server.new_database(f"{planted}_{n}")
        found, _ = await kill_one_after_the_other(url, tmp_path, 16, planted, creates, SEED + 100_000 * n)
        if any(line.startswith(guarantee) for line in found):
            return
    raise AssertionError(f"{TRIES} times nothing of {guarantee}: {found[:5]}")


@asynccontextmanager
async def desks(store: str, mock: MockProvider, folder: Path, count: int) -> AsyncIterator[list[Orchestrator]]:
    settings = {
        "store": store,
        "state_folder": folder,
        "provider": mock.url,
        "lease_ms": round(LEASE_S * 1_000),
        "call_timeout_ms": 300,
        "backoff_ms": 10,
        "settle_ms": 200,
        "poll_ms": 30,
        "breaker_open_ms": 100,
        "breaker_failures_max": 50,
        "attempts_max": 6,
        "log_file": folder / "log.txt",
    }
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Orchestrator.open(Settings.model_validate(settings))) for _ in range(count)
        ]


def booking(n: int) -> dict[str, Any]:
    return {
        "calendar": "main",
        "start": f"2031-03-{n % 28 + 1:02}T09:00:00Z",
        "end": f"2031-03-{n % 28 + 1:02}T09:30:00Z",
        "time_zone": "Europe/Berlin",
        "summary": f"number {n}",
    }


async def come_to_rest(store: Store, within_s: float) -> float:
    """Wait until nothing is open; how long that took."""
    began = time.perf_counter()
    async with asyncio.timeout(within_s):
        while True:
            try:
                if not [row for row in await store.open_work() if not row.parked]:
                    return time.perf_counter() - began
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.05)


async def until(true: Callable[[], Awaitable[bool]], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not await true():
            await asyncio.sleep(0.01)


@pytest.mark.evidence(
    target="crash of the database",
    answers=("R7.1", "R7.2", "G1", "G2", "G6"),
    given="four workers with hundreds of appointments under way",
    when="PostgreSQL is stopped with `-m immediate` and started again, several times",
    then="what was acknowledged is there, each appointment ends, one live booking for each that is confirmed",
    seen_in="ledger, state of the store, printed time to come to rest",
)
async def test_the_database_crashes_under_four_workers(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    chance, acknowledged, ended = random.Random(SEED), set[str](), asyncio.Event()
    async with MockProvider(secret=SECRET) as mock, desks(postgres_url, mock, tmp_path, WORKERS) as fleet:
        mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})

        async def client(number: int) -> None:
            n = 0
            while not ended.is_set():
                key = f"{number}-{n}"
                try:
                    await fleet[number % WORKERS].book(booking(n), key=key)
                except StoreUnavailable:
                    await asyncio.sleep(0.05)  # the same key again: it may have been stored
                    continue
                acknowledged.add(key)
                n += 1
                await asyncio.sleep(chance.random() * 0.1)

        clients = [asyncio.create_task(client(n)) for n in range(2 * WORKERS)]
        for _ in range(RESTARTS):
            await asyncio.sleep(chance.uniform(0.5, 1.5))  # the fault itself: a moment of work before the blow
            await asyncio.to_thread(postgres_server.stop, "immediate")
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            await asyncio.to_thread(postgres_server.start)
        ended.set()
        await asyncio.gather(*clients)
        mock.clear_scripts()
        rest_s = await come_to_rest(fleet[0].runtime.store, HEALED_WITHIN_S)
        ledger = mock.ledger()
    found = await violations(postgres_url, acknowledged, ledger)
    print(f"{len(acknowledged)} acknowledged, {RESTARTS} crashes, at rest {rest_s:.1f} s after the last")
    assert not found
    assert len(acknowledged) > 50


@pytest.mark.evidence(
    target="frozen worker",
    answers=("R7.2", "G2", "G6"),
    given="a worker that is stopped (SIGSTOP) while its calls are out",
    when="its lease has run out, others have gone on with its work, and it is let go on (SIGCONT)",
    then="nothing is written under its old name, and each appointment has one booking and one end",
    seen_in="ledger, state of the store, printed time to the takeover",
)
async def test_a_frozen_worker_that_comes_back_changes_nothing(postgres_url: str, tmp_path: Path) -> None:
    async with MockProvider(secret=SECRET) as mock, workers(postgres_url, mock, tmp_path) as fleet:
        mock.load({"match": {"op": "create"}, "behavior": {"mode": "delayed", "delay_ms": 60}, "times": -1})
        pid = await fleet[0].run(SEED)
        store = await asyncio.to_thread(PostgresStore.open, postgres_url, "judge", read_only=True)
        (frozen,) = [one.owner for one in await store.workers()]

        async def has_calls_out() -> bool:
            return any(row.in_flight and row.owner == frozen for row in await store.open_work())

        async def has_none() -> bool:
            return not any(row.owner == frozen for row in await store.open_work() if row.in_flight)

        await until(has_calls_out)
        os.kill(pid, signal.SIGSTOP)
        began = time.perf_counter()
        async with desks(postgres_url, mock, tmp_path, 2) as others:
            await until(has_none)
            took_over_s = time.perf_counter() - began
            await asyncio.sleep(max(0.0, 3 * LEASE_S - took_over_s))  # the fault itself: three leases of silence
            assert frozen not in [one.owner for one in await store.workers()]
            os.kill(pid, signal.SIGCONT)

            async def is_back() -> bool:
                return f"{frozen}~1" in [one.owner for one in await store.workers()]

            await until(is_back)
            assert not any(row.owner == frozen and row.in_flight for row in await store.open_work())
            os.kill(pid, signal.SIGKILL)
            await fleet[0].hear_out()
            await come_to_rest(others[0].runtime.store, HEALED_WITHIN_S)
        await store.close()
        print(f"calls of the frozen worker were taken over after {took_over_s:.2f} s, lease {LEASE_S} s")
        assert not await violations(postgres_url, fleet[0].acknowledged, mock.ledger())
    assert took_over_s <= 2 * LEASE_S + 1  # and the start of those who take over
