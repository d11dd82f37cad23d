"""Rate, breaker and concurrency hold for all worker processes of a store together, as the provider counts them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mocks.server import MockProvider
from store.port import Store
from store.postgres import PostgresStore
from tests.faults.fleet import Fleet, fleet
from tests.faults.test_workers import come_to_rest, until
from tests.faults.victims import violations
from tests.postgres.server import PostgresServer

SEED = 20_261_125
WORKERS = 4
RATE, BURST = 10.0, 10
LATE_S = 0.5
"""How late a call may come that has its place: it is announced in the log before it leaves."""
FAILURES_MAX, OPEN_S, OPENINGS = 20, 2.0, 3
EARLY_S = 0.1
"""By how much the clock of the database, carried on by a worker's own, may be ahead of the provider's."""
PLACES, DELAY_S = 8, 0.15
COMMON = {
    "lease_ms": 3_000,
    "call_timeout_ms": 3_000,
    "attempts_max": 100,
    "backoff_ms": 10,
    "backoff_max_ms": 50,
    "breaker_failures_max": 500,
    "log_level": "error",
}


@asynccontextmanager
async def judges(urls: Sequence[str]) -> AsyncIterator[list[Store]]:
    """A handle that reads only, on each of these databases."""
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for url in urls:
            store = await asyncio.to_thread(PostgresStore.open, url, "judge", read_only=True)
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


async def all_know_each_other(stores: Sequence[Store]) -> None:
    """Wait until each worker has beaten twice: from the first on it knows how many share the places."""

    async def beats() -> dict[str, datetime]:
        return {one.owner: one.beat_at for store in stores for one in await store.workers()}

    for _ in range(2):
        before = await beats()

        async def have_beaten(before: dict[str, datetime] = before) -> bool:
            now = await beats()
            return all(now[owner] > at for owner, at in before.items())

        await until(have_beaten)


@asynccontextmanager
async def at_work(
    urls: Sequence[str], mock: MockProvider, folder: Path, each: int, **limits: Any
) -> AsyncIterator[Fleet]:
    """A worker for each address, that may be the same for all, and its 20 clients about to book `each`."""
    async with fleet(SEED) as crew:
        for n, url in enumerate(urls):
            place = {**COMMON, "store": url, "state_folder": str(folder), "provider": mock.url, **limits}
            await crew.start(f"w{n}", place, clients=20, each=each)
        async with judges(sorted(set(urls))) as stores:
            await all_know_each_other(stores)
        yield crew


async def book_all(crew: Fleet, stores: Sequence[Store]) -> None:
    for hand in crew.hands.values():
        hand.begin()
    await asyncio.gather(*(hand.booked.wait() for hand in crew.hands.values()))
    for store in stores:
        await come_to_rest(store, 60)


def apart(server: PostgresServer, name: str) -> list[str]:
    """A database for each worker: what no limit can span."""
    return [server.new_database(f"{name}_{n}") for n in range(WORKERS)]


def arrivals(mock: MockProvider, *ops: str) -> list[float]:
    return sorted(one["at"] for one in mock.requests() if one["op"] in ops)


# -- rate --------------------------------------------------------------------------------------------------------------


def over_rate(times: Sequence[float]) -> int:
    """By how many calls the worst window of all exceeds what the algorithm allows in it."""
    worst = 0.0
    for first, begins in enumerate(times):
        for last in range(first, len(times)):
            allowed = BURST + RATE * (times[last] - begins + LATE_S)
            worst = max(worst, last - first + 1 - allowed)
    return round(worst)


async def called_at(urls: Sequence[str], folder: Path) -> tuple[list[list[float]], list[str]]:
    """When the provider and the downstream were called, and what is wrong in the end."""
    async with (
        MockProvider() as mock,
        at_work(urls, mock, folder, 1, rate=RATE) as crew,
        judges(sorted(set(urls))) as stores,
    ):
        await book_all(crew, stores)
        wrong = await violations(urls[0], crew.acknowledged, mock.ledger()) if len(set(urls)) == 1 else []
        return [arrivals(mock, "create", "get", "find"), arrivals(mock, "notify")], wrong


@pytest.mark.evidence(
    target="rate across workers",
    answers=("R2.5", "R7.3"),
    given="four processes on one database that may call a provider 10 times a second, with a burst of 10",
    when="each has as much to book as it likes",
    then="no window of time, however long, shows the provider or the downstream more calls than that",
    seen_in="requests at the provider, printed calls a second",
)
async def test_all_workers_together_keep_to_the_rate(postgres_url: str, tmp_path: Path) -> None:
    lanes, wrong = await called_at([postgres_url] * WORKERS, tmp_path)
    for times in lanes:
        print(f"{len(times)} calls in {times[-1] - times[0]:.1f} s, {len(times) / (times[-1] - times[0]):.0f} a second")
        assert len(times) >= 20 * WORKERS
        assert over_rate(times) == 0
    assert not wrong


async def test_control_workers_that_share_nothing_exceed_the_rate(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    lanes, _ = await called_at(apart(postgres_server, "rate"), tmp_path)
    assert over_rate(lanes[0]) > 0


# -- breaker -----------------------------------------------------------------------------------------------------------


def parted(times: Sequence[float]) -> tuple[list[float], list[float]]:
    """The calls that opened the breaker, with those that were out by then; and the probes."""
    may_probe_at = times[FAILURES_MAX - 1] + OPEN_S - EARLY_S
    return [at for at in times if at < may_probe_at], [at for at in times if at >= may_probe_at]


async def calls_of_the_broken(urls: Sequence[str], folder: Path) -> tuple[list[float], list[str]]:
    """When a provider that answers 503 was called until each breaker had opened so often; and the end when it heals."""
    limits = {"breaker_failures_max": FAILURES_MAX, "breaker_open_ms": round(OPEN_S * 1_000), "concurrency": WORKERS}
    async with (
        MockProvider() as mock,
        at_work(urls, mock, folder, 1, **limits) as crew,
        judges(sorted(set(urls))) as stores,
    ):
        mock.script("create", "fail_then_succeed", failures=1_000_000, status=503, times=-1)
        for hand in crew.hands.values():
            hand.begin()

        async def all_opened() -> bool:
            lanes = [[lane for lane in await store.lanes() if lane.target == "main"] for store in stores]
            return all(lane and lane[0].opened >= OPENINGS for lane in lanes)

        await until(all_opened, 60)
        times = arrivals(mock, "create")
        mock.clear_scripts()
        await book_all(crew, stores)
        wrong = await violations(urls[0], crew.acknowledged, mock.ledger()) if len(set(urls)) == 1 else []
        return times, wrong


BOUND = FAILURES_MAX + 4 * WORKERS
"""Those that open it; then of each worker, which has one place, those that leave while it tells of its own failure."""


@pytest.mark.evidence(
    target="breaker across workers",
    answers=("R2.5", "R7.3"),
    given="four processes on one database, and a provider that answers 503",
    when="they have failed together as often as the breaker allows, and later the provider heals",
    then="nobody calls while it is open, one of them makes the probe, and in the end all is booked",
    seen_in="requests at the provider, state of the store",
)
async def test_a_breaker_is_open_for_all_workers_and_one_of_them_probes(postgres_url: str, tmp_path: Path) -> None:
    times, wrong = await calls_of_the_broken([postgres_url] * WORKERS, tmp_path)
    until_open, probes = parted(times)
    print(f"{len(until_open)} calls until it was open, at most {BOUND} are promised; then {len(probes)} probes")
    assert FAILURES_MAX <= len(until_open) <= BOUND
    assert until_open[-1] - until_open[FAILURES_MAX - 1] < OPEN_S / 2
    assert len(probes) == OPENINGS - 1
    assert all(after - before > OPEN_S - EARLY_S for before, after in pairwise(probes))
    assert not wrong


async def test_control_workers_that_share_nothing_open_each_for_itself(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    times, _ = await calls_of_the_broken(apart(postgres_server, "breaker"), tmp_path)
    assert len(parted(times)[0]) > BOUND
    assert len(times) > BOUND + OPENINGS


# -- concurrency -------------------------------------------------------------------------------------------------------


def at_once(times: Sequence[float]) -> int:
    """How many of these calls, each of which takes its time at the provider, were there together at most."""
    changes = sorted([(at, 1) for at in times] + [(at + DELAY_S, -1) for at in times])
    running = peak = 0
    for _at, change in changes:
        running += change
        peak = max(peak, running)
    return peak


async def peak_of(urls: Sequence[str], folder: Path) -> int:
    async with (
        MockProvider() as mock,
        at_work(urls, mock, folder, 2, concurrency=PLACES) as crew,
        judges(sorted(set(urls))) as stores,
    ):
        mock.script("create", "delayed", delay_ms=round(DELAY_S * 1_000), times=-1)
        await book_all(crew, stores)
        return at_once(arrivals(mock, "create"))


@pytest.mark.evidence(
    target="concurrency across workers",
    answers=("R2.5", "R7.3"),
    given="processes on one database that know of each other, and 8 places at a provider that takes its time",
    when="each has more to book than there are places",
    then="four make at most 8 calls at once; three, whose shares are rounded up, at most 9",
    seen_in="requests at the provider",
)
@pytest.mark.parametrize(("workers", "places"), [(4, 8), (3, 9)])
async def test_workers_together_keep_to_the_places(
    postgres_url: str, tmp_path: Path, workers: int, places: int
) -> None:
    peak = await peak_of([postgres_url] * workers, tmp_path)
    print(f"{peak} at once")
    assert places // 2 < peak <= places


async def test_control_workers_that_share_nothing_take_more_places(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    assert await peak_of(apart(postgres_server, "places"), tmp_path) > PLACES + WORKERS
