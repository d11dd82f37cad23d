"""Two databases and four workers, all that can break them, and what has become of each booking in the end (G1, G2, G6).

The workers are `serve` and three `worker` processes, each started again when it has died. Clients send each command
with its key until it is acknowledged.
"""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from appointments import Orchestrator, Settings
from appointments.bootstrap import open_store
from appointments.sharding import shard_of
from domain.errors import StoreRefused
from mocks import MockProvider
from store import postgres
from tests.faults.victims import FAULTS, SECRET, violations
from tests.integration.on_two_databases import environment, make_tokens, start
from tests.postgres.server import PostgresServer, free_port

SEED = 20_261_125
TENANTS = tuple(f"tenant-{n}" for n in range(6))
CLIENTS = 12
BLOWS = 14
LEASE_MS = 1_000
REST_WITHIN_S = 60.0
BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
QUICK = {
    "call_timeout_ms": 300,
    "backoff_ms": 10,
    "poll_ms": 40,
    "breaker_open_ms": 100,
    "breaker_failures_max": 50,
    "attempts_max": 6,
    "deadline_ms": 15_000,
}


class Kept:
    """A process that is started again whenever it has died."""

    def __init__(self, folder: Path, around: dict[str, str], *words: str) -> None:
        self._folder, self._around, self._words = folder, around, words
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self.said = ""
        self._keeping = asyncio.create_task(self._keep())

    def strike(self, blow: signal.Signals) -> None:
        """Send a signal, where it runs just now."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(blow)

    async def end(self) -> None:
        """Tell it to stop, for good."""
        self._ending = True
        self.strike(signal.SIGTERM)
        await self._keeping

    async def _keep(self) -> None:
        while not self._ending:
            self._process = await start(self._folder, self._around, *self._words)
            _, said = await self._process.communicate()
            self.said += said.decode()


@asynccontextmanager
async def fleet(folder: Path, settings: Settings, mock: MockProvider, port: int) -> AsyncIterator[list[Kept]]:
    around = environment(settings, mock, **QUICK, lease_ms=LEASE_MS)
    kept = [Kept(folder, around, "serve", "--port", str(port)), *(Kept(folder, around, "worker") for _ in range(3))]
    try:
        yield kept
    finally:
        await asyncio.gather(*(one.end() for one in kept))
    for one in kept:
        assert "Traceback" not in one.said, one.said


async def book_on(url: str, token: str, tenant: str, client: int, acknowledged: set[str], ended: asyncio.Event) -> None:
    """One command after the other, each until it is acknowledged."""
    n = 0
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        while not ended.is_set():
            key = f"{tenant}-{client}-{n}"
            with suppress(aiohttp.ClientError, TimeoutError):
                headers, patience = {"Idempotency-Key": key}, aiohttp.ClientTimeout(5)
                async with session.post(url, json=BOOKING, headers=headers, timeout=patience) as answer:
                    assert answer.status in (200, 202, 503), await answer.text()
                    if answer.status != 503:
                        acknowledged.add(key)
                        n += 1
            await asyncio.sleep(0.02)


async def strike(kept: list[Kept], servers: tuple[PostgresServer, ...], chance: random.Random) -> list[str]:
    """Kill, freeze and crash, now this and now that; what was done."""
    done = []
    for n in range(BLOWS):
        await asyncio.sleep(chance.uniform(0.5, 1.5))  # the fault itself: a moment of work before the blow
        what = ("kill -9", "freeze", "kill -9", "crash")[n % 4]
        done.append(what)
        if what == "crash":
            server = servers[n // 4 % 2]
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            await asyncio.to_thread(server.start)
            continue
        one = kept[n % len(kept)]
        one.strike(signal.SIGKILL if what == "kill -9" else signal.SIGSTOP)
        if what == "freeze":
            await asyncio.sleep(2.5 * LEASE_MS / 1_000)
            one.strike(signal.SIGCONT)
    return done


async def come_to_rest(settings: Settings) -> float:
    """Wait until nothing is open in any shard; how long that took."""
    began = time.perf_counter()
    async with asyncio.timeout(REST_WITHIN_S):
        for one in settings.each_shard().values():
            store = await open_store(one, read_only=True)
            while [row for row in await store.open_work() if not row.parked]:
                await asyncio.sleep(0.1)
            await store.close()
    return time.perf_counter() - began


@pytest.mark.evidence(
    target="two databases, four workers",
    answers=("R7.1", "R7.2", "R7.3", "G1", "G2", "G6"),
    given="`serve` and three `worker` on two PostgreSQL servers, clients of six tenants, a provider that loses answers",
    when="processes are killed and frozen, and either server crashes, again and again",
    then="what was acknowledged is in its shard alone, each appointment ends, one live booking for each confirmed",
    seen_in="ledger, state of both stores, printed time to come to rest",
)
async def test_nothing_is_lost_and_nothing_is_booked_twice(postgres_server: PostgresServer, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, port, acknowledged, ended = random.Random(SEED), free_port(), set[str](), asyncio.Event()
    with PostgresServer() as beside:
        addresses = {"north": postgres_server.new_database("rehearsal"), "south": beside.new_database("rehearsal")}
        settings = Settings(shards=addresses, state_folder=tmp_path)
        tokens = make_tokens(settings, TENANTS)
        assert {shard_of(tenant, addresses) for tenant in TENANTS} == set(addresses)
        async with MockProvider(secret=SECRET) as mock, fleet(tmp_path, settings, mock, port) as kept:
            mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})
            url = f"http://127.0.0.1:{port}/v1/appointments"
            told = [(tenant, n) for n in range(CLIENTS // len(TENANTS)) for tenant in TENANTS]
            clients = [
                asyncio.create_task(book_on(url, tokens[tenant], tenant, n, acknowledged, ended)) for tenant, n in told
            ]
            async with asyncio.timeout(REST_WITHIN_S):
                while not acknowledged:
                    await asyncio.sleep(0.05)
            blows = await strike(kept, (postgres_server, beside), chance)
            ended.set()
            await asyncio.gather(*clients)
            mock.clear_scripts()
            rest_s = await come_to_rest(settings)
            ledger = mock.ledger()
        found = await violations(settings, acknowledged, ledger)
    print(f"{len(acknowledged)} acknowledged, {len(blows)} blows, at rest {rest_s:.1f} s after the last")
    assert not found
    assert len(acknowledged) > 100


async def test_control_under_other_names_a_key_books_again(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the names that are kept in each database protect from: with them it is refused, without them it is found."""
    first, second = (postgres_server.new_database(f"renamed_{n}") for n in range(2))
    before = Settings(shards={"a": first, "b": second}, state_folder=tmp_path, provider="local:")
    (tenant, *_) = [
        one for one in TENANTS if shard_of(one, ("a", "b")) == "b" and shard_of(one, ("a", "renamed")) == "a"
    ]
    async with MockProvider() as mock:
        before = before.model_copy(update={"provider": mock.url, "store": second, "tenant": tenant})
        after = before.model_copy(update={"shards": {"a": first, "renamed": second}, "store": first})
        async with Orchestrator.open(before) as desk:
            await desk.book(BOOKING, key="order-1", wait=10)
        await (await open_store(before.model_copy(update={"store": first}))).close()
        with pytest.raises(StoreRefused, match="tenants do not move"):
            async with Orchestrator.open(after):
                pass
        monkeypatch.setattr(postgres, "make_shard", lambda *_: None)
        async with Orchestrator.open(after) as desk:
            await desk.book(BOOKING, key="order-1", wait=10)
        found = await violations(before, {"order-1"}, mock.ledger())
    assert any("is in two stores" in line for line in found), found
