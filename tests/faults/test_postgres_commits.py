"""Commits on PostgreSQL: in the order of positions, and found again when their answer was lost (G1, G3, G4, G5)."""

import asyncio
import random
import time
from collections import Counter
from uuid import UUID, uuid5

import pytest
from sqlalchemy import create_engine, text

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store.log_writer import AppendEntry, Entry, LogWriter, TaskEntry
from store.port import Append, RecordedEvent
from store.postgres import PostgresStore
from store.postgres_writer import PostgresLogWriter
from tests.postgres.proxy import LossyProxy
from tests.postgres.server import PostgresServer

WRITERS, FOLLOWERS, APPENDS = 8, 3, 60
HOLD_S, ROLLED_BACK = 0.02, 0.05
SEED = 20_261_125
COMMANDS, LOST = 2_000, 0.05


def stream(name: object) -> UUID:
    return uuid5(UUID(int=9), str(name))


def opened(name: object, version: int = 1, **fields: object) -> Append:
    event = RecordedEvent(stream(name), version, "appointment-requested.v1", b"{}")
    return Append(stream(name), version - 1, (event,), touches_work=False)


class RolledBack(Exception):
    """Thrown into a batch that is to leave nothing."""


async def write_and_follow(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[int]], list[int], int]:
    """What each follower saw, what the log holds in the end, and how many appends were acknowledged."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    write = LogWriter.write

    def hold(self: LogWriter, batch: list[Entry]) -> None:
        write(self, batch)
        time.sleep(chance.random() * HOLD_S)  # the fault itself: a commit that is held up
        if chance.random() < ROLLED_BACK and any(isinstance(entry, AppendEntry) for entry in batch):
            raise RolledBack

    monkeypatch.setattr(LogWriter, "write", hold)
    stores = [await asyncio.to_thread(PostgresStore.open, url, f"writer-{n}") for n in range(WRITERS)]
    readers = [await asyncio.to_thread(PostgresStore.open, url, "reader", read_only=True) for _ in range(FOLLOWERS)]
    acknowledged, ended = 0, asyncio.Event()

    async def writer(number: int) -> None:
        nonlocal acknowledged
        for n in range(APPENDS):
            try:
                await stores[number].append(opened((number, n)))
                acknowledged += 1
            except (StoreUnavailable, ConcurrencyConflict):
                continue

    async def follower(store: PostgresStore) -> list[int]:
        seen: list[int] = []
        last_look = False
        while True:
            batch = await store.log(seen[-1] if seen else 0, 50)
            seen += [event.position for event in batch]
            if not batch:
                if last_look:
                    return seen
                last_look = ended.is_set()
                await asyncio.sleep(0)

    following = [asyncio.create_task(follower(store)) for store in readers]
    await asyncio.gather(*map(writer, range(WRITERS)))
    ended.set()
    seen = await asyncio.gather(*following)
    log = [event.position for event in await readers[0].log(0, 100_000)]
    for store in (*stores, *readers):
        await store.close()
    return list(seen), log, acknowledged


@pytest.mark.evidence(
    target="order of commits",
    answers=("R7.1", "G1", "G3", "G4"),
    given="8 writers on one database whose commits are held up to 20 ms, 5 % of them rolled back, and 3 followers",
    when="each follower asks for what comes after the last position that it saw",
    then="it sees every event once, in order, and positions have no gap",
    seen_in="state of the store",
)
async def test_a_follower_misses_nothing_of_eight_writers(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, log, acknowledged = await write_and_follow(postgres_url, monkeypatch)
    assert log == list(range(1, len(log) + 1))
    assert seen == [log] * FOLLOWERS
    assert len(log) >= acknowledged > WRITERS * APPENDS / 2


async def test_control_without_the_lock_a_follower_misses_events(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions from a sequence, as a serial column gives them: their order is not that of the commits."""
    (await asyncio.to_thread(PostgresStore.open, postgres_url, "first")).close_now()
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SEQUENCE positions"))
    engine.dispose()
    look_up = PostgresLogWriter._look_up

    def unlocked(self: PostgresLogWriter, streams: list[bytes], subjects: list[str]) -> None:
        look_up(self, streams, subjects)
        drawn = [self.connection.execute(text("SELECT nextval('positions')")).scalar_one() for _ in streams]
        self._last_position = drawn[0] * 1_000

    monkeypatch.setattr(PostgresLogWriter, "begin", lambda self: None)
    monkeypatch.setattr(PostgresLogWriter, "_look_up", unlocked)
    seen, log, _ = await write_and_follow(postgres_url, monkeypatch)
    assert any(len(positions) < len(log) for positions in seen)


@pytest.mark.evidence(
    target="lost answers of commits",
    answers=("R7.1", "G1", "G2", "G5"),
    given="a connection to the database that is reset after 5 % of the commits, before their answer",
    when="each append is repeated until it is acknowledged, or refused as done already",
    then="every stream has its event once, and what was acknowledged is there",
    seen_in="state of the store",
)
async def test_a_commit_whose_answer_is_lost_is_done_once(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    print(f"seed {SEED}")
    outcomes: Counter[str] = Counter()
    with LossyProxy(postgres_server.port, SEED) as proxy:
        url = postgres_server.url(postgres_database, port=proxy.port)
        store = await asyncio.to_thread(PostgresStore.open, url, "writer")
        proxy.lose(LOST)
        window = asyncio.Semaphore(8)

        async def give(name: int) -> None:
            async with window:
                while True:
                    try:
                        await store.append(opened(name))
                        outcomes["acknowledged"] += 1
                        return
                    except ConcurrencyConflict:
                        outcomes["done already"] += 1
                        return
                    except StoreUnavailable:
                        outcomes["not known"] += 1

        await asyncio.gather(*map(give, range(COMMANDS)))
        proxy.lose(0)
        log = await store.log(0, 2 * COMMANDS)
        await store.close()
    print(f"{proxy.cut} answers lost, {dict(outcomes)}")
    assert proxy.cut > COMMANDS / 8 * LOST / 2
    assert Counter(event.stream_id for event in log) == {stream(n): 1 for n in range(COMMANDS)}
    assert [event.position for event in log] == list(range(1, COMMANDS + 1))
    assert outcomes["acknowledged"] > 0.99 * COMMANDS, "the journal looks itself what became of a commit"


async def test_control_without_a_look_the_caller_is_told_of_failures_that_were_none(
    postgres_server: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresLogWriter, "is_stored", lambda self, row: False)
    with LossyProxy(postgres_server.port, SEED) as proxy:
        url = postgres_server.url(postgres_database, port=proxy.port)
        store = await asyncio.to_thread(PostgresStore.open, url, "writer")
        proxy.lose(1)
        with pytest.raises(StoreUnavailable):
            await store.append(opened("a"))
        proxy.lose(0)
        assert len(await store.log()) == 1
        await store.close()


async def test_a_writer_that_stands_still_in_a_batch_holds_up_the_others_for_three_seconds_at_most(
    postgres_url: str,
) -> None:
    """A process that was frozen between two statements: its session is ended by the server, and with it the lock."""
    frozen, other = [await asyncio.to_thread(PostgresStore.open, postgres_url, name) for name in ("frozen", "other")]
    reached, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stand_still(_: LogWriter) -> None:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)

    standing: asyncio.Future[None] = loop.create_future()
    frozen.journal.submit(TaskEntry(stand_still, standing))
    await reached.wait()
    began = time.perf_counter()
    await other.append(opened("a"))
    held_s = time.perf_counter() - began
    go_on.set()
    with pytest.raises(StoreUnavailable):
        await standing
    assert 1 < held_s < 10
    assert await frozen.append(opened("b")) == 2
    await frozen.close()
    await other.close()
