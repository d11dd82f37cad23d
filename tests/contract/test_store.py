"""One contract for every store. A backend joins by a name in `backend`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID, uuid5

import pytest

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store.chain import verify_stream
from store.memory import MemoryStore
from store.port import Append, OpenWork, Private, RecordedEvent, Store, whole_log
from store.postgres import PostgresStore
from store.sealing import SubjectKey, seal, unseal
from store.sqlite import SqliteStore

pytestmark = pytest.mark.evidence(
    target="store contract",
    answers=("R7.1", "G1", "G3"),
    given="each store (SQLite, PostgreSQL, in memory)",
    when="it is appended to, read, asked for due work, claimed, closed",
    then="it keeps the contract of `store/port.py`",
    seen_in="state of the store",
)

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAMESPACE = UUID(int=7)

Reopen = Callable[[Store, str], Awaitable[Store]]


class Memory:
    """The double."""

    async def open(self, folder: Path) -> Store:
        return MemoryStore("first")

    async def reopen(self, store: Store, folder: Path, owner: str) -> Store:
        assert isinstance(store, MemoryStore)
        await store.close()
        return store.reopen(owner)


class Sqlite:
    """One file."""

    async def open(self, folder: Path, owner: str = "first") -> Store:
        return SqliteStore.open(folder / "log.db", owner)

    async def reopen(self, store: Store, folder: Path, owner: str) -> Store:
        await store.close()
        return await self.open(folder, owner)


class Postgres:
    """A database of its own on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self, folder: Path, owner: str = "first") -> Store:
        return await asyncio.to_thread(PostgresStore.open, self.url, owner)

    async def reopen(self, store: Store, folder: Path, owner: str) -> Store:
        await store.close()
        return await self.open(folder, owner)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest):
    if request.param == "postgresql":
        return Postgres(request.getfixturevalue("postgres_url"))
    return {"memory": Memory, "sqlite": Sqlite}[request.param]()


@pytest.fixture
async def opened(backend, tmp_path: Path) -> AsyncIterator[list[Store]]:
    stores = [await backend.open(tmp_path)]
    yield stores
    await stores[-1].close()


@pytest.fixture
def store(opened: list[Store]) -> Store:
    return opened[0]


@pytest.fixture
def reopen(backend, opened: list[Store], tmp_path: Path) -> Callable[[str], Awaitable[Store]]:
    """What the next process, called `owner`, finds."""

    async def reopen(owner: str) -> Store:
        opened.append(await backend.reopen(opened[-1], tmp_path, owner))
        return opened[-1]

    return reopen


def stream(name: object) -> UUID:
    return uuid5(NAMESPACE, str(name))


def event(stream_id: UUID, version: int, body: bytes = b"{}") -> RecordedEvent:
    return RecordedEvent(stream_id, version, "appointment-requested.v1", body)


def row(stream_id: UUID, **fields: object) -> OpenWork:
    return replace(
        OpenWork(stream_id, tenant="acme", lane="main", due_at=NOON, starts_at=NOON, deadline_at=None), **fields
    )


def entry(name: object, expected: int = 0, count: int = 1, work: OpenWork | None = None) -> Append:
    stream_id = stream(name)
    return Append(stream_id, expected, tuple(event(stream_id, expected + n) for n in range(1, count + 1)), work)


async def wait_for(store: Store, name: object, **fields: object) -> OpenWork:
    """Append one event with open work."""
    work = row(stream(name), **fields)
    await store.append(entry(name, work=work))
    return work


async def due_names(store: Store, *names: object, limit: int = 100, **rest: object) -> list[object]:
    """What is due; a shared store gets back what it has handed out."""
    by_stream = {stream(name): name for name in names}
    found = await store.due(NOON, limit, **rest)
    await store.hand_back(found, NOON)
    return [by_stream[row.stream_id] for row in found]


class TestAppending:
    async def test_an_empty_log_is_empty(self, store: Store) -> None:
        assert await store.position() == 0
        assert list(await store.log()) == []
        assert list(await store.events(stream("a"))) == []
        assert await store.work(stream("a")) is None
        assert list(await store.open_work()) == []
        assert await store.next_due(NOON) is None

    async def test_returns_the_position_of_its_last_event(self, store: Store) -> None:
        assert await store.append(entry("a", count=3)) == 3
        assert await store.append(entry("b", count=2)) == 5
        assert await store.position() == 5

    async def test_gives_events_back_as_they_were(self, store: Store) -> None:
        stream_id = stream("a")
        body = bytes(range(256))
        written = (replace(event(stream_id, 1, body), at=NOON + timedelta(microseconds=1)), event(stream_id, 2, b""))
        await store.append(Append(stream_id, 0, written))
        stored = await store.events(stream_id)
        assert [replace(one, digest=b"") for one in stored] == [
            replace(one, position=position) for position, one in enumerate(written, 1)
        ]

    @pytest.mark.parametrize("expected", [0, 1, 3, 9], ids=["new", "stale", "one ahead", "far ahead"])
    async def test_refuses_any_other_expected_version(self, store: Store, expected: int) -> None:
        await store.append(entry("a", count=2))
        with pytest.raises(ConcurrencyConflict):
            await store.append(entry("a", expected))
        assert len(await store.events(stream("a"))) == 2

    async def test_refuses_a_gap_at_the_start_of_a_stream(self, store: Store) -> None:
        with pytest.raises(ConcurrencyConflict):
            await store.append(entry("a", 1))
        assert await store.position() == 0

    @pytest.mark.parametrize("expected", [0, 2])
    async def test_checks_the_version_of_an_entry_without_events_too(self, store: Store, expected: int) -> None:
        work = await wait_for(store, "a")
        with pytest.raises(ConcurrencyConflict):
            await store.append(entry("a", expected, count=0, work=replace(work, lane="other")))
        assert (await store.work(stream("a"))).lane == "main"

    async def test_an_entry_without_events_changes_the_open_work_and_returns_0(self, store: Store) -> None:
        work = await wait_for(store, "a")
        assert await store.append(entry("a", 1, count=0, work=replace(work, lane="other"))) == 0
        assert (await store.work(stream("a"))).lane == "other"
        assert await store.position() == 1

    async def test_of_two_at_once_one_wins(self, store: Store) -> None:
        outcomes = await asyncio.gather(*(store.append(entry("a")) for _ in range(2)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConcurrencyConflict", "int"]
        assert len(await store.events(stream("a"))) == 1

    async def test_a_conflict_fails_its_own_entry_only(self, store: Store) -> None:
        await store.append(entry("taken"))
        names = ["a", "b", "taken", "c", "d"]
        outcomes = await asyncio.gather(*(store.append(entry(name)) for name in names), return_exceptions=True)
        assert [isinstance(outcome, ConcurrencyConflict) for outcome in outcomes] == [False, False, True, False, False]
        assert await store.position() == 5
        assert [recorded.position for recorded in await store.log()] == [1, 2, 3, 4, 5]

    async def test_entries_that_follow_each_other_may_be_queued_together(self, store: Store) -> None:
        entries = [entry("a", n, work=row(stream("a"), version=n + 1)) for n in range(3)] + [entry("a", 3)]
        await asyncio.gather(*map(store.append, entries))
        assert [recorded.version for recorded in await store.events(stream("a"))] == [1, 2, 3, 4]
        assert await store.work(stream("a")) is None

    @pytest.mark.parametrize(
        "events",
        [(event(stream("a"), 2),), (event(stream("b"), 1),), (event(stream("a"), 1), event(stream("a"), 1))],
        ids=["version ahead", "other stream", "version twice"],
    )
    async def test_refuses_an_entry_that_contradicts_itself(self, store: Store, events: tuple[RecordedEvent]) -> None:
        with pytest.raises(ValueError):
            await store.append(Append(stream("a"), 0, events))
        assert await store.position() == 0

    async def test_many_writers_leave_no_gap_in_positions_or_versions(self, store: Store) -> None:
        seed = 20260302
        print(f"seed {seed}")
        random = Random(seed)
        versions = dict.fromkeys(range(20), 0)

        async def write() -> None:
            for _ in range(40):
                name, count = random.randrange(20), random.randint(0, 3)
                expected = versions[name] + random.choice((0, 0, 0, -1, 1))
                try:
                    await store.append(entry(name, max(expected, 0), count))
                except ConcurrencyConflict:
                    versions[name] = len(await store.events(stream(name)))
                else:
                    versions[name] = max(versions[name], expected + count)

        await asyncio.gather(*(write() for _ in range(10)))
        recorded = [event async for event in whole_log(store, page=37)]
        assert [event.position for event in recorded] == list(range(1, len(recorded) + 1))
        for name in versions:
            of_stream = [event.version for event in recorded if event.stream_id == stream(name)]
            assert of_stream == list(range(1, len(of_stream) + 1))


class TestReading:
    async def test_a_stream_from_a_version_up_to_a_limit(self, store: Store) -> None:
        await store.append(entry("a", count=5))
        await store.append(entry("b", count=1))
        read = await store.events(stream("a"), after=2, limit=2)
        assert [(recorded.version, recorded.position) for recorded in read] == [(3, 3), (4, 4)]
        assert [recorded.version for recorded in await store.events(stream("a"), after=4)] == [5]
        assert list(await store.events(stream("a"), after=5)) == []

    async def test_the_log_page_by_page(self, store: Store) -> None:
        for name in "abc":
            await store.append(entry(name, count=3))
        assert [recorded.position for recorded in await store.log(after=2, limit=4)] == [3, 4, 5, 6]
        assert [recorded.position async for recorded in whole_log(store, page=2)] == list(range(1, 10))
        assert list(await store.log(after=9)) == []

    async def test_streams_page_by_page_in_order_of_id(self, store: Store) -> None:
        for name in range(7):
            await store.append(entry(name, count=3))
        await store.append(entry("work alone", count=0, work=row(stream("work alone"))))
        expected = sorted(stream(name) for name in range(7))
        first = await store.streams(limit=4)
        assert [*first, *await store.streams(after=first[-1], limit=4)] == expected
        assert list(await store.streams(after=expected[-1])) == []

    async def test_open_work_page_by_page_in_order_of_stream(self, store: Store) -> None:
        for name in range(7):
            await wait_for(store, name)
        expected = sorted(stream(name) for name in range(7))
        first = await store.open_work(limit=4)
        second = await store.open_work(after=first[-1].stream_id, limit=4)
        assert [found.stream_id for found in (*first, *second)] == expected


class TestOpenWork:
    async def test_is_given_back_with_the_store_as_its_owner(self, store: Store) -> None:
        work = await wait_for(
            store,
            "a",
            tenant="Praxis Ä",
            due_at=NOON + timedelta(microseconds=1),
            deadline_at=NOON + MINUTE,
            in_flight=True,
            version=1,
            owner="ignored",
            epoch=3,
        )
        assert await store.work(stream("a")) == replace(work, owner="first")

    async def test_is_deleted_with_the_last_event(self, store: Store) -> None:
        await wait_for(store, "a")
        await store.append(entry("a", 1, work=None))
        assert await store.work(stream("a")) is None
        assert list(await store.open_work()) == []

    async def test_is_left_alone_when_it_is_not_touched(self, store: Store) -> None:
        work = await wait_for(store, "a")
        await store.append(replace(entry("a", 1), touches_work=False))
        assert await store.work(stream("a")) == replace(work, owner="first")

    async def test_is_left_alone_by_a_conflict(self, store: Store) -> None:
        await wait_for(store, "a")
        with pytest.raises(ConcurrencyConflict):
            await store.append(entry("a", 0, work=None))
        assert await store.work(stream("a")) is not None

    async def test_next_due_is_the_earliest_later_time(self, store: Store) -> None:
        await wait_for(store, "now")
        await wait_for(store, "later", due_at=NOON + 2 * MINUTE)
        await wait_for(store, "soon", due_at=NOON + MINUTE)
        await wait_for(store, "parked", due_at=None, parked=True)
        assert await store.next_due(NOON) == NOON + MINUTE
        assert await store.next_due(NOON - MINUTE) == NOON
        assert await store.next_due(NOON + 2 * MINUTE) is None


class TestDue:
    async def test_comes_in_order_of_start(self, store: Store) -> None:
        await wait_for(store, "third", starts_at=NOON + 3 * MINUTE, due_at=NOON - 3 * MINUTE)
        await wait_for(store, "first", starts_at=NOON + MINUTE, due_at=NOON)
        await wait_for(store, "second", starts_at=NOON + 2 * MINUTE, due_at=NOON - MINUTE)
        assert await due_names(store, "first", "second", "third") == ["first", "second", "third"]
        assert await due_names(store, "first", "second", "third", limit=2) == ["first", "second"]

    async def test_is_neither_later_nor_parked(self, store: Store) -> None:
        await wait_for(store, "later", due_at=NOON + timedelta(microseconds=1))
        await wait_for(store, "parked", due_at=None, parked=True)
        await wait_for(store, "now")
        assert await due_names(store, "later", "parked", "now") == ["now"]

    async def test_leaves_closed_lanes_out_until_the_deadline(self, store: Store) -> None:
        await wait_for(store, "open", starts_at=NOON + 3 * MINUTE)
        await wait_for(store, "closed", lane="broken", deadline_at=NOON + MINUTE)
        await wait_for(store, "closed for good", lane="broken")
        await wait_for(store, "deadline", lane="broken", deadline_at=NOON, starts_at=NOON + MINUTE)
        await wait_for(store, "other", lane="other", starts_at=NOON + 2 * MINUTE)
        names = ("open", "closed", "closed for good", "deadline", "other")
        assert await due_names(store, *names, closed_lanes=["broken"]) == ["deadline", "other", "open"]
        assert await due_names(store, *names, closed_lanes=["broken", "other"]) == ["deadline", "open"]

    async def test_a_deadline_alone_makes_nothing_due(self, store: Store) -> None:
        await wait_for(store, "a", lane="broken", due_at=NOON + MINUTE, deadline_at=NOON)
        assert await due_names(store, "a", closed_lanes=["broken"]) == []

    async def test_leaves_out_what_is_to_be_skipped(self, store: Store) -> None:
        for name in range(5):
            await wait_for(store, name, starts_at=NOON + name * MINUTE)
        skip = [stream(0), stream(2), stream("unknown")]
        assert await due_names(store, *range(5), limit=2, skip=skip) == [1, 3]


class TestClaim:
    async def test_takes_over_what_others_left_in_flight(self, store: Store, reopen) -> None:
        left = await wait_for(store, "left", in_flight=True, due_at=NOON + MINUTE, epoch=4)
        await wait_for(store, "waiting", due_at=NOON + MINUTE)
        second = await reopen("second")
        own = await wait_for(second, "own", in_flight=True, due_at=NOON + MINUTE)
        assert await second.claim("second", NOON) == 1
        assert await second.work(stream("left")) == replace(left, owner="second", epoch=5, due_at=NOON)
        assert (await second.work(stream("waiting"))).due_at == NOON + MINUTE
        assert await second.work(stream("own")) == replace(own, owner="second")
        assert await second.claim("second", NOON) == 0


class TestClosing:
    async def test_reopening_finds_everything(self, store: Store, reopen) -> None:
        await store.append(entry("a", count=2))
        work = await wait_for(store, "b", deadline_at=NOON + MINUTE)
        recorded, rows = list(await store.log()), list(await store.open_work())
        second = await reopen("second")
        assert list(await second.log()) == recorded
        assert list(await second.open_work()) == rows == [replace(work, owner="first")]
        assert await second.position() == 3
        assert await second.append(entry("a", 2)) == 4
        with pytest.raises(ConcurrencyConflict):
            await second.append(entry("b", 0))

    async def test_close_finishes_what_is_queued(self, store: Store, reopen) -> None:
        appends = [asyncio.ensure_future(store.append(entry(name))) for name in range(2_000)]
        await asyncio.sleep(0)
        second = await reopen("second")
        positions = await asyncio.gather(*appends)
        assert sorted(positions) == list(range(1, 2_001))
        assert await second.position() == 2_000

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.append(entry("a"))
        with pytest.raises(StoreUnavailable):
            await store.log()
        await store.close()


DANA, KIM = "acme\x00dana@example.org", "acme\x00kim@example.org"


async def test_how_far_a_consumer_has_come_outlives_the_process(store: Store, reopen: Reopen) -> None:
    assert await store.checkpoint("outbox/crm") is None
    await store.keep_checkpoint("outbox/crm", 7)
    await store.keep_checkpoint("outbox/bi", 1)
    await store.keep_checkpoint("outbox/crm", 9)
    later = await reopen("second")
    assert [await later.checkpoint(name) for name in ("outbox/crm", "outbox/bi", "other")] == [9, 1, None]


async def test_a_store_of_one_process_gives_every_name_to_it(store: Store) -> None:
    async with store.exclusive("outbox/crm") as ours:
        assert ours
    async with store.exclusive("outbox/crm") as again:
        assert again


async def test_one_worker_at_a_time_holds_a_name_and_a_dead_one_holds_nothing() -> None:
    time = [NOON]
    first = MemoryStore("first", lease_s=60, clock=lambda: time[0])
    second = first.sibling("second")
    await first.claim("first", NOON)
    await second.claim("second", NOON)
    async with first.exclusive("crm") as ours:
        async with second.exclusive("crm") as theirs, second.exclusive("bi") as other:
            assert (ours, theirs, other) == (True, False, True)
        time[0] += 2 * MINUTE
        await second.sibling("third").claim("third", time[0])
    async with second.sibling("third").exclusive("crm") as free:
        assert free


def about(stream_id: UUID, version: int, *parts: tuple[tuple[str, ...], bytes]) -> RecordedEvent:
    return replace(event(stream_id, version), private=tuple(Private(names, body) for names, body in parts))


async def bodies(store: Store, name: object) -> list[list[bytes | None]]:
    return [[part.body for part in one.private] for one in await store.events(stream(name))]


class TestChains:
    async def test_every_event_carries_the_digest_of_itself_and_the_one_before(self, store: Store) -> None:
        await store.append(entry("a", count=2))
        await store.append(entry("b"))
        await store.append(entry("a", 2, count=2))
        events = await store.events(stream("a"))
        assert verify_stream(events) is None
        assert len({one.digest for one in await store.log()}) == 5
        for spoilt in range(4):
            changed = [replace(one, body=b"x") if n == spoilt else one for n, one in enumerate(events)]
            assert verify_stream(changed) == spoilt + 1

    async def test_the_log_shows_the_same_events_as_the_streams(self, store: Store) -> None:
        for n in range(3):
            await store.append(Append(stream(n), 0, (about(stream(n), 1, ((DANA,), b"note")),)))
        assert [await store.events(stream(n)) for n in range(3)] == [[one] for one in await store.log()]


class TestPersonalData:
    async def test_private_parts_come_back_and_are_stored_sealed(self, store: Store) -> None:
        one = about(stream("a"), 1, ((DANA,), b"Dana's knee"), ((DANA, KIM), b"Dana and Kim"))
        await store.append(Append(stream("a"), 0, (one,)))
        assert await bodies(store, "a") == [[b"Dana's knee", b"Dana and Kim"]]
        sealed = (await store.events(stream("a")))[0].sealed
        assert b"Dana" not in sealed
        assert b"Kim" not in sealed

    async def test_streams_about_a_subject_are_found(self, store: Store) -> None:
        for name, who in (("a", DANA), ("b", KIM), ("c", DANA)):
            await store.append(Append(stream(name), 0, (about(stream(name), 1, ((who,), b"x")),)))
        assert list(await store.sealed_for(DANA)) == sorted([stream("a"), stream("c")])
        assert list(await store.sealed_for("acme\x00nobody")) == []

    async def test_erasing_makes_a_subject_unreadable_and_nobody_else(self, store: Store) -> None:
        parts = ((DANA,), b"Dana's knee"), ((KIM,), b"Kim"), ((DANA, KIM), b"Dana and Kim")
        await store.append(Append(stream("a"), 0, (about(stream("a"), 1, *parts),)))
        before = await store.events(stream("a"))
        await store.erase(DANA, [Append(stream("a"), 1, (event(stream("a"), 2),), touches_work=False)])
        assert await bodies(store, "a") == [[None, b"Kim", None], []]
        after = await store.events(stream("a"))
        assert verify_stream(after) is None
        assert (after[0].sealed, after[0].digest) == (before[0].sealed, before[0].digest)
        assert list(await store.sealed_for(DANA)) == []

    async def test_a_stream_need_not_tell_of_an_erasure_itself(self, store: Store) -> None:
        await store.append(Append(stream("a"), 0, (about(stream("a"), 1, ((DANA,), b"Dana's knee")),)))
        with pytest.raises(ConcurrencyConflict):
            await store.erase(DANA, [Append(stream("a"), 0, (), touches_work=False)])
        await store.erase(DANA, [Append(stream("a"), 1, (), touches_work=False)])
        assert await bodies(store, "a") == [[None]]

    async def test_what_is_written_of_a_subject_after_it_was_erased_has_a_key_of_its_own(self, store: Store) -> None:
        await store.append(Append(stream("a"), 0, (about(stream("a"), 1, ((DANA,), b"old")),)))
        await store.erase(DANA, [Append(stream("a"), 1, (event(stream("a"), 2),), touches_work=False)])
        await store.append(Append(stream("b"), 0, (about(stream("b"), 1, ((DANA,), b"new")),)))
        assert await bodies(store, "a") == [[None], []]
        assert await bodies(store, "b") == [[b"new"]]

    async def test_nothing_is_erased_while_a_stream_would_not_hear_of_it(self, store: Store) -> None:
        for name in ("a", "b"):
            await store.append(Append(stream(name), 0, (about(stream(name), 1, ((DANA,), b"x")),)))
        told = Append(stream("a"), 1, (event(stream("a"), 2),), touches_work=False)
        with pytest.raises(ConcurrencyConflict):
            await store.erase(DANA, [told])
        stale = Append(stream("b"), 0, (event(stream("b"), 1),), touches_work=False)
        with pytest.raises(ConcurrencyConflict):
            await store.erase(DANA, [told, stale])
        assert await bodies(store, "a") == [[b"x"]]
        assert await store.position() == 2
        assert await store.append(entry("c")) == 3

    async def test_a_sealed_part_that_was_changed_or_moved_is_damaged(self) -> None:
        keys = {DANA: SubjectKey.new()}
        sealed = seal((Private((DANA,), b"Dana"),), keys.__getitem__, stream("a"), 1)
        kept = {key.ref: key.key for key in keys.values()}
        assert unseal(sealed, kept, stream("a"), 1) == (Private((), b"Dana"),)
        assert unseal(sealed, kept, stream("b"), 1)[0].damaged
        assert unseal(sealed, kept, stream("a"), 2)[0].damaged
        for at in range(len(sealed)):
            changed = sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
            (part, *_) = unseal(changed, kept, stream("a"), 1)
            assert part.body is None
