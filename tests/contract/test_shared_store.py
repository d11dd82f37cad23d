"""What many workers on one store are promised: claims, leases, fencing, one holder of a name, one change of a lane.

One contract for PostgreSQL and for the double in memory, by which the simulation knows what a shared store does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import pytest
from sqlalchemy import text

from domain.errors import ConcurrencyConflict, LeaseLost
from store.memory import MemoryStore
from store.port import Append, Lane, OpenWork, RecordedEvent, Store, Worker
from store.postgres import PostgresStore
from store.postgres_writer import PostgresLogWriter

pytestmark = pytest.mark.evidence(
    target="shared store",
    answers=("R7.2", "G1", "G2"),
    given="two workers on one store (PostgreSQL, in memory)",
    when="they claim, fall silent, come back, hand over, hold names and change lanes",
    then="a row is one worker's at a time, and one that was declared dead writes nothing",
    seen_in="state of the store",
)

LEASE_S = 60.0
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass
class Shared:
    """Two handles on one store, and a way to let time pass for those who do not beat."""

    first: Store
    second: Store
    another: Callable[[str], Awaitable[Store]]
    pass_time: Callable[[float], Awaitable[None]]


async def in_memory() -> AsyncIterator[Shared]:
    time = [NOON]
    first = MemoryStore("first", lease_s=LEASE_S, clock=lambda: time[0])

    async def another(owner: str) -> Store:
        return first.sibling(owner)

    async def pass_time(seconds: float) -> None:
        time[0] += timedelta(seconds=seconds)

    yield Shared(first, first.sibling("second"), another, pass_time)


async def on_postgres(url: str) -> AsyncIterator[Shared]:
    opened: list[PostgresStore] = []

    async def another(owner: str) -> Store:
        opened.append(await asyncio.to_thread(PostgresStore.open, url, owner, lease_s=LEASE_S))
        return opened[-1]

    async def pass_time(seconds: float) -> None:
        """The server's clock goes its own way: what was said is made older instead."""
        with opened[0].readers.connect() as connection:
            connection.execute(text("UPDATE workers SET beat_at = beat_at - :by"), {"by": round(seconds * 1_000_000)})

    yield Shared(await another("first"), await another("second"), another, pass_time)
    for store in opened:
        await store.close()


@pytest.fixture(params=["memory", "postgresql"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    if request.param == "memory":
        async for made in in_memory():
            yield made
    else:
        # The fixture of a test's database is made outside the loop.
        async for made in on_postgres(request.getfixturevalue("postgres_url")):
            yield made


def stream(name: object) -> UUID:
    return uuid5(UUID(int=8), str(name))


def entry(name: object, expected: int = 0, work: OpenWork | None = None, **fields: object) -> Append:
    event = RecordedEvent(stream(name), expected + 1, "appointment-requested.v1", b"{}", at=NOON)
    return replace(Append(stream(name), expected, (event,), work), **fields)


async def wait_for(store: Store, name: object, **fields: object) -> OpenWork:
    work = replace(OpenWork(stream(name), "acme", "main", NOON, NOON, None), **fields)
    await store.append(entry(name, work=work))
    return work


async def both_at_work(shared: Shared) -> None:
    await shared.first.claim("first", NOON, ("booking.1@main",))
    await shared.second.claim("second", NOON, ("booking.2@main",))


async def names(store: Store) -> list[str]:
    return [worker.owner for worker in await store.workers()]


class TestClaims:
    async def test_who_claims_is_among_the_workers_with_what_it_runs(self, shared: Shared) -> None:
        await both_at_work(shared)
        first, second = await shared.second.workers()
        assert first == Worker("first", first.beat_at, ("booking.1@main",))
        assert second.runs == ("booking.2@main",)
        assert abs(await shared.first.now() - first.beat_at) < MINUTE

    async def test_a_row_is_handed_to_one_of_them(self, shared: Shared) -> None:
        await both_at_work(shared)
        for n in range(40):
            await wait_for(shared.first, n)
        found = await asyncio.gather(*(store.due(NOON, 7) for _ in range(6) for store in (shared.first, shared.second)))
        handed = [row.stream_id for rows in found for row in rows]
        assert sorted(handed) == sorted(stream(n) for n in range(40))
        for row in (row for rows in found for row in rows):
            stored = await shared.first.work(row.stream_id)
            assert stored == row
            assert (row.epoch, row.due_at) == (1, NOON + timedelta(seconds=LEASE_S))
            assert row.owner in ("first", "second")

    async def test_what_is_not_done_in_time_comes_back_by_itself(self, shared: Shared) -> None:
        await both_at_work(shared)
        await wait_for(shared.first, "a")
        assert len(await shared.first.due(NOON, 10)) == 1
        assert not await shared.second.due(NOON + timedelta(seconds=LEASE_S - 1), 10)
        (again,) = await shared.second.due(NOON + timedelta(seconds=LEASE_S), 10)
        assert (again.owner, again.epoch) == ("second", 2)

    async def test_what_was_handed_back_is_due_at_once_and_nobodys(self, shared: Shared) -> None:
        await both_at_work(shared)
        await wait_for(shared.first, "a")
        rows = await shared.first.due(NOON, 10)
        await shared.first.hand_back(rows, NOON + MINUTE)
        assert await shared.first.work(stream("a")) == replace(rows[0], owner="", due_at=NOON + MINUTE)
        await shared.first.hand_back([replace(rows[0], epoch=0)], NOON)
        (taken,) = await shared.second.due(NOON + MINUTE, 10)
        await shared.first.hand_back(rows, NOON)
        assert await shared.second.work(stream("a")) == taken, "it is another's by now"

    async def test_overdue_rows_are_only_read(self, shared: Shared) -> None:
        await both_at_work(shared)
        work = await wait_for(shared.first, "a")
        assert await shared.second.overdue(NOON, 10) == [replace(work, owner="first")]
        assert (await shared.second.work(stream("a"))).epoch == 0

    async def test_a_writer_that_read_the_row_before_it_was_handed_out_does_not_turn_the_epoch_back(
        self, shared: Shared
    ) -> None:
        await both_at_work(shared)
        work = await wait_for(shared.first, "a")
        await shared.second.due(NOON, 10)
        await shared.first.append(entry("a", 1, work=work))
        stored = await shared.first.work(stream("a"))
        assert (stored.owner, stored.epoch) == ("first", 1)

    async def test_a_row_whose_call_is_in_flight_stays_with_its_owner(self, shared: Shared) -> None:
        await both_at_work(shared)
        await wait_for(shared.first, "a")
        (handed,) = await shared.second.due(NOON, 10)
        await shared.first.append(entry("a", 1, replace(handed, in_flight=True, lane="other"), keeps_owner=True))
        stored = await shared.first.work(stream("a"))
        assert (stored.owner, stored.epoch, stored.lane) == ("second", 1, "other")
        await shared.first.append(entry("new", work=replace(handed, stream_id=stream("new")), keeps_owner=True))
        assert (await shared.first.work(stream("new"))).owner == "first"


class TestLeases:
    async def test_a_silent_worker_is_struck_and_what_it_had_in_flight_is_taken_over(self, shared: Shared) -> None:
        await both_at_work(shared)
        left = await wait_for(shared.first, "left", in_flight=True, due_at=NOON + 9 * MINUTE)
        waiting = await wait_for(shared.first, "waiting", due_at=NOON + 9 * MINUTE)
        await shared.pass_time(LEASE_S - 1)
        assert await shared.second.claim("second", NOON) == 0
        assert await names(shared.second) == ["first", "second"]
        await shared.pass_time(2)
        assert await shared.second.claim("second", NOON) == 1
        assert await names(shared.second) == ["second"]
        assert await shared.second.work(stream("left")) == replace(left, owner="second", epoch=1, due_at=NOON)
        assert await shared.second.work(stream("waiting")) == replace(waiting, owner="first")

    async def test_one_that_was_declared_dead_writes_nothing_and_comes_back_under_a_new_name(
        self, shared: Shared
    ) -> None:
        await both_at_work(shared)
        await wait_for(shared.first, "a", in_flight=True)
        await shared.pass_time(LEASE_S - 1)
        await shared.second.claim("second", NOON)
        await shared.pass_time(2)
        await shared.second.claim("second", NOON)
        position = await shared.second.position()
        for write in (
            lambda: shared.first.append(entry("a", 1)),
            lambda: shared.first.append(entry("b")),
            lambda: shared.first.due(NOON, 10),
            lambda: shared.first.hand_back([OpenWork(stream("a"), "acme", "main", NOON, NOON, None)], NOON),
            lambda: shared.first.change_lane(Lane("main")),
            lambda: shared.first.keep_checkpoint("outbox", 1),
            lambda: shared.first.claim("first", NOON),
        ):
            with pytest.raises(LeaseLost):
                await write()
        assert await shared.second.position() == position
        assert (await shared.second.work(stream("a"))).owner == "second"
        assert await shared.second.checkpoint("outbox") is None
        assert await names(shared.second) == ["second"]
        await shared.first.claim("first~1", NOON)
        assert await shared.first.append(entry("a", 1)) == position + 1

    async def test_one_dead_writer_fails_its_own_entries_only(self, shared: Shared) -> None:
        await both_at_work(shared)
        other = await shared.another("third")
        await shared.pass_time(LEASE_S + 1)
        await shared.second.claim("second~1", NOON)
        stores = (shared.first, shared.second, other)
        written = await asyncio.gather(
            *(store.append(entry((n, store.owner))) for n in range(5) for store in stores), return_exceptions=True
        )
        assert [type(one) for one in written[::3]] == [LeaseLost] * 5
        assert all(isinstance(one, int) for one in written[1::3] + written[2::3]), "who is no worker writes freely"

    async def test_who_leaves_hands_over_what_is_in_flight(self, shared: Shared) -> None:
        await both_at_work(shared)
        await wait_for(shared.first, "left", in_flight=True, due_at=NOON + 9 * MINUTE)
        waiting = await wait_for(shared.first, "waiting", due_at=NOON + 9 * MINUTE)
        await shared.first.leave()
        assert await names(shared.second) == ["second"]
        left = await shared.second.work(stream("left"))
        assert (left.owner, left.epoch) == ("", 1)
        assert left.due_at <= await shared.second.now()
        assert await shared.second.work(stream("waiting")) == replace(waiting, owner="first")
        with pytest.raises(LeaseLost):
            await shared.first.append(entry("a"))

    async def test_of_two_appends_by_two_workers_one_wins(self, shared: Shared) -> None:
        await both_at_work(shared)
        written = await asyncio.gather(
            *(store.append(entry("a")) for store in (shared.first, shared.second)), return_exceptions=True
        )
        assert sorted(type(one) for one in written if not isinstance(one, int)) == [ConcurrencyConflict]


class TestTogether:
    async def test_a_lane_is_changed_by_who_has_read_its_last_version(self, shared: Shared) -> None:
        await both_at_work(shared)
        lane = Lane(
            "main", failures=1, failed_at=NOON, opened=2, open_until=NOON, probe_until=NOON, theoretical_at=NOON
        )
        written = await asyncio.gather(*(store.change_lane(lane) for store in (shared.first, shared.second)))
        assert sorted(written) == [False, True]
        assert await shared.first.lanes() == [replace(lane, version=1)]
        assert await shared.second.change_lane(replace(lane, failures=2, version=1))
        assert not await shared.first.change_lane(replace(lane, failures=3, version=1))
        assert await shared.first.lanes() == [replace(lane, failures=2, version=2)]

    async def test_one_worker_at_a_time_holds_a_name_and_a_dead_one_holds_nothing(self, shared: Shared) -> None:
        await both_at_work(shared)
        async with shared.first.exclusive("crm") as ours:
            async with shared.second.exclusive("crm") as theirs, shared.second.exclusive("bi") as other:
                assert (ours, theirs, other) == (True, False, True)
            await shared.pass_time(LEASE_S + 1)
            await shared.second.claim("second~1", NOON)
            async with shared.second.exclusive("crm") as free:
                assert free
        async with shared.second.exclusive("crm") as again:
            assert again

    async def test_a_commit_is_told_to_the_others(self, shared: Shared) -> None:
        if isinstance(shared.first, MemoryStore):
            return  # it lives in one process
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        end = shared.second.after_commit(lambda: loop.call_soon_threadsafe(told.set))
        for n in range(100):  # the first may come before the other listens
            await shared.first.append(entry(n))
            with suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), 0.1)
                break
        assert told.is_set()
        end()


async def test_control_without_fencing_one_that_was_declared_dead_writes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresLogWriter, "_refusal", lambda self, entry: None)
    async for shared in on_postgres(postgres_url):
        await both_at_work(shared)
        await wait_for(shared.first, "a", in_flight=True)
        await shared.pass_time(LEASE_S + 1)
        await shared.second.claim("second~1", NOON)
        assert (await shared.second.work(stream("a"))).owner == "second~1"
        assert await shared.first.append(entry("a", 1)) == 2, "the call that another has taken over"


async def test_a_connection_that_is_given_back_after_the_end_is_closed(postgres_url: str) -> None:
    """For those who read beyond the port, in threads of their own."""
    store = await asyncio.to_thread(PostgresStore.open, postgres_url, "first")
    reading = store.readers.connect()
    below = reading.connection.driver_connection
    assert below is not None
    await store.close()
    assert not below.closed
    reading.close()
    assert below.closed
