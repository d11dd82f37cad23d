"""The projector: nothing is missed or told twice, whatever happens to its files; a broken stream stops no other."""

import asyncio
import errno
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, insert, select

from domain import events as e
from domain.errors import InvalidFields, StoreLocked, StoreUnavailable
from domain.identity import appointment_id, definition_stream
from domain.lifecycle import MOVES, State
from domain.personal import appointment_subject
from domain.provider import BookingDetails
from projections import following, views
from projections.current_state import AppointmentFilter, CurrentStates, Page, page
from projections.following import RecentStates, fold
from projections.projection import Change
from projections.views import Views, views_folder
from store import mapper
from store.mapper import encode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent, Store
from store.sqlite import SqliteStore

pytestmark = pytest.mark.evidence(
    target="read models",
    answers=("R3.1", "R3.5", "G4"),
    given="read models, one process or four",
    when="batches, rebuilds, erasures and broken streams come",
    then="every event is told once, in order",
    seen_in="rows",
)

NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)
SEED = int(os.environ.get("TEST_SEED", "20261125"))


class Ledger:
    """A projection that keeps the position of every change: what was missed, repeated or out of order shows."""

    name = "ledger"
    version = 1
    metadata = MetaData()
    told = Table("told", metadata, Column("n", Integer, primary_key=True), Column("position", Integer))
    broken = False

    def apply(self, connection: Connection, changes: Sequence[Change]) -> None:
        if self.broken:
            raise ZeroDivisionError("a fault of its own")
        if changes:
            connection.execute(insert(self.told), [{"position": change.recorded.position} for change in changes])


def positions(connection: Connection) -> list[int]:
    return list(connection.execute(select(Ledger.told.c.position).order_by(Ledger.told.c.n)).scalars())


def listed(connection: Connection) -> Page:
    return page(connection, AppointmentFilter(limit=200))


class Log:
    """A store, and what is appended to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.versions: dict[UUID, int] = {}

    async def tell(self, key: str, *events: e.Event) -> UUID:
        id = appointment_id("default", key)
        await self.put(id, *(encode(id, self.versions.get(id, 0) + n, event) for n, event in enumerate(events, 1)))
        return id

    async def put(self, id: UUID, *recorded: RecordedEvent) -> None:
        version = self.versions.get(id, 0)
        await self.store.append(Append(id, version, recorded, touches_work=False))
        self.versions[id] = version + len(recorded)

    async def erase(self, id: UUID) -> None:
        """Destroy the key of the appointment's own subject, and tell it so."""
        version = self.versions[id]
        told = Append(id, version, (encode(id, version + 1, ERASED),), touches_work=False)
        await self.store.erase(appointment_subject(id), [told])
        self.versions[id] = version + 1

    async def book(self, key: str, *more: e.Event) -> UUID:
        details = BookingDetails(
            calendar="main", start=NINE, end=NINE + timedelta(hours=1), time_zone="UTC", summary=key
        )
        request = e.AppointmentRequested(
            at=NINE,
            key=key,
            fingerprint="f",
            tenant="default",
            definition="booking/1@0",
            provider="main",
            details=details,
            deadline_at=NINE,
        )
        return await self.tell(key, request, *more)


def parked(reason: str) -> e.AppointmentParked:
    return e.AppointmentParked(at=NINE, reason=reason)


CANCELLED = (
    e.CancellationRequested(at=NINE, key="c", fingerprint="f", reason="Mr Secret is ill", cleanup_until=NINE),
    e.AppointmentCancelled(at=NINE),
)
ERASED = e.PersonalDataErased(at=NINE, actor="dana", reference="4711")


def summaries(found: Page) -> list[str]:
    return [one.details.summary for one in found.items]


PROJECTIONS = (CurrentStates(), Ledger())


@pytest.fixture(params=["file", "memory"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    store: Store = MemoryStore()
    if request.param == "file":
        store = SqliteStore.open(tmp_path / "log.db", owner="test")
    yield Log(store)
    await store.close()


@pytest.fixture
async def folder(log: Log, tmp_path: Path) -> Path | None:
    return views_folder(tmp_path / "log.db") if isinstance(log.store, SqliteStore) else None


@pytest.fixture
async def known(log: Log, folder: Path | None) -> AsyncIterator[Views]:
    made = Views(log.store, folder, PROJECTIONS)
    yield made
    await made.close()


ON_FILE = pytest.mark.parametrize("log", ["file"], indirect=True)


@pytest.fixture
def on_file(folder: Path | None) -> Path:
    assert folder is not None
    return folder


async def test_what_was_written_is_read_at_once(log: Log, known: Views) -> None:
    assert await known.read("current_state", listed) == (Page(items=(), next_cursor=None), 0)
    for n in range(3):
        await log.book(str(n))
        found, position = await known.read("current_state", listed)
        assert (len(found.items), position) == (n + 1, n + 1)
    await log.tell("1", parked("look"))
    found, position = await known.read("current_state", listed)
    assert ([one.parked for one in found.items], position) == ([False, True, False], 4)


async def test_every_event_is_told_once_in_order_whatever_the_batches(
    log: Log, known: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {SEED}")
    random = Random(SEED)
    for n in range(40):
        await log.book(str(n))
        await log.tell(str(random.randrange(n + 1)), *(parked(str(n)) for _ in range(random.randrange(4))))
        monkeypatch.setattr(views, "LIVE_BATCH", random.randrange(1, 6))
        if random.random() < 0.3:
            await known.catch_up("ledger")
        if random.random() < 0.3:
            assert await known.catch_up() == await log.store.position()
    told, last = await known.read("ledger", positions)
    assert told == list(range(1, last + 1))


async def test_states_that_are_not_kept_are_folded_from_the_log(
    log: Log, known: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STATES_MAX", 2)
    for n in range(8):
        await log.book(str(n))
    await known.catch_up()
    for n in range(8):
        await log.tell(str(n), parked(f"reason {n}"))
    found, _ = await known.read("current_state", listed)
    assert [one.parked_reason for one in found.items] == [f"reason {n}" for n in reversed(range(8))]


async def test_events_outside_appointments_are_told_without_a_state(log: Log, known: Views) -> None:
    id = definition_stream("booking/1@0")
    await log.put(id, encode(id, 1, e.DefinitionRegistered(at=NINE, digest="booking/1@0")))
    (change,) = fold(await log.store.log(), {}).changes
    assert (change.before, change.after) == (None, None)
    assert (await known.read("ledger", positions))[0] == [1]
    assert (await known.read("current_state", listed))[0].items == ()


def damage(id: UUID, version: int) -> RecordedEvent:
    return RecordedEvent(id, version, "no-such-event.v9", b"{}", at=NINE)


@pytest.mark.parametrize("caught_up", [True, False])
async def test_a_stream_that_cannot_be_read_vanishes_and_stops_no_other(
    log: Log, known: Views, folder: Path | None, caught_up: bool
) -> None:
    await log.book("good")
    bad = await log.book("bad")
    if caught_up:
        assert summaries((await known.read("current_state", listed))[0]) == ["bad", "good"]
    await log.put(bad, damage(bad, 2))
    await log.tell("bad", parked("never seen"))
    await log.book("later")
    assert summaries((await known.read("current_state", listed))[0]) == ["later", "good"]
    await log.tell("bad", parked("nor this"))
    assert summaries((await known.read("current_state", listed))[0]) == ["later", "good"]
    assert (await known.read("ledger", positions))[0] == [1, 2, 5]
    await known.rebuild()
    assert (await known.read("ledger", positions))[0] == [1, 2, 5]


async def test_a_stream_found_unreadable_stays_so_until_a_rebuild(
    log: Log, known: Views, folder: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await log.book("bad")
    await log.put(id, damage(id, 2))
    assert summaries((await known.read("current_state", listed))[0]) == []

    class Known(e.AppointmentParked):
        type = "no-such-event.v9"
        reason: str = "known now"

    monkeypatch.setitem(mapper.REGISTRY, Known.type, Known)
    monkeypatch.setitem(MOVES[State.REQUESTED], Known, State.REQUESTED)
    await log.tell("bad", parked("again"))
    assert summaries((await known.read("current_state", listed))[0]) == []
    await known.rebuild()
    assert summaries((await known.read("current_state", listed))[0]) == ["bad"]


@pytest.mark.parametrize("known_before", [True, False])
async def test_what_was_erased_is_folded_anew(log: Log, known: Views, folder: Path | None, known_before: bool) -> None:
    await log.book("other")
    id = await log.book("Mr Secret", *CANCELLED)
    if known_before:
        assert summaries((await known.read("current_state", listed))[0]) == ["Mr Secret", "other"]
    await log.erase(id)
    found, _ = await known.read("current_state", listed)
    assert summaries(found) == ["(erased)", "other"]
    callback = e.CallbackReceived(
        at=NINE, step="calendar", webhook_id="w", status="cancelled", provider_ref="r", version=2
    )
    await log.tell("Mr Secret", callback)
    assert summaries((await known.read("current_state", listed))[0]) == ["(erased)", "other"]
    if folder is not None:
        written = b"".join(file.read_bytes() for file in folder.iterdir() if file.name.startswith("current_state"))
        assert b"(erased)" in written
        assert b"Secret" not in written
        assert b"secret" not in written


async def test_without_folding_anew_what_was_erased_would_stay(
    log: Log, known: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ERASED", "nothing is")
    id = await log.book("Mr Secret", *CANCELLED)
    await known.catch_up()
    await log.erase(id)
    assert summaries((await known.read("current_state", listed))[0]) == ["Mr Secret"]


async def test_an_erasure_within_a_batch_is_folded_from_the_log(log: Log) -> None:
    id = await log.book("Mr Secret", *CANCELLED)
    before = await log.store.log()
    await log.erase(id)
    batch = [*before, *await log.store.log(3)]
    folded = fold(batch, await RecentStates().bases(log.store, batch))
    assert folded.erased
    state = folded.states[id.int]
    assert state.details is not None
    assert (state.version, state.details.summary) == (4, "(erased)")


class TestTheFiles:
    @ON_FILE
    async def test_another_process_goes_on_where_the_first_stopped(self, log: Log, known: Views, on_file: Path) -> None:
        await log.book("1")
        await known.catch_up()
        other = Views(log.store, on_file, PROJECTIONS)
        await log.book("2")
        assert (await other.read("ledger", positions))[0] == [1, 2]
        await log.book("3")
        assert (await known.read("ledger", positions))[0] == [1, 2, 3]
        await other.close()

    @ON_FILE
    async def test_many_at_once_tell_every_event_once(self, log: Log, on_file: Path) -> None:
        many = [Views(log.store, on_file, PROJECTIONS) for _ in range(4)]

        async def work(mine: Views, name: int) -> None:
            for n in range(10):
                await log.book(f"{name}-{n}")
                await mine.catch_up()

        await asyncio.gather(*(work(mine, name) for name, mine in enumerate(many)))
        for mine in many:
            assert (await mine.read("ledger", positions))[0] == list(range(1, 41))
            await mine.close()

    @pytest.mark.parametrize("harm", ["deleted", "damaged", "emptied", "another log's", "ahead of the log"])
    @ON_FILE
    async def test_a_file_that_is_of_no_use_is_refilled(
        self, log: Log, on_file: Path, tmp_path: Path, harm: str
    ) -> None:
        for n in range(3):
            await log.book(str(n))
        first = Views(log.store, on_file, PROJECTIONS)
        await first.catch_up()
        await first.close()
        (file,) = on_file.glob("ledger-*.db")
        if harm == "deleted":
            file.unlink()
        elif harm == "damaged":
            file.write_bytes(b"no database" * 1_000)
        elif harm == "emptied":
            file.write_bytes(b"")
        else:
            with sqlite3.connect(file) as connection:
                change = "digest = x'00'" if harm == "another log's" else "position = 99"
                connection.execute(f"UPDATE checkpoint SET {change}")
            connection.close()
        again = Views(log.store, on_file, PROJECTIONS)
        assert (await again.read("ledger", positions))[0] == [1, 2, 3]
        assert summaries((await again.read("current_state", listed))[0]) == ["2", "1", "0"]
        await again.close()
        assert len(list(on_file.glob("ledger-*.db"))) == 1

    @ON_FILE
    async def test_a_folder_that_is_deleted_while_it_is_open_is_made_anew(
        self, log: Log, known: Views, on_file: Path
    ) -> None:
        await log.book("1")
        await known.catch_up()
        for file in on_file.iterdir():
            file.unlink()
        on_file.rmdir()
        assert (await known.read("ledger", positions))[0] == [1]
        assert list(on_file.glob("ledger-*.db"))

    @ON_FILE
    async def test_a_row_that_was_tampered_with_is_no_answer(self, log: Log, known: Views, on_file: Path) -> None:
        await log.book("1")
        await known.catch_up()
        (file,) = on_file.glob("current_state-*.db")
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE appointments SET state = 'nonsense'")
        connection.close()
        assert summaries((await known.read("current_state", listed))[0]) == ["1"]

    @ON_FILE
    async def test_another_version_has_a_file_of_its_own_and_the_old_one_goes(
        self, log: Log, known: Views, on_file: Path
    ) -> None:
        await log.book("1")
        await known.catch_up()

        class Newer(Ledger):
            version = 2

        newer = Views(log.store, on_file, (CurrentStates(), Newer()))
        assert (await newer.read("ledger", positions))[0] == [1]
        assert [file.name for file in on_file.glob("ledger-*.db")] == ["ledger-2-1.db"]
        await newer.close()

    @ON_FILE
    async def test_what_the_file_system_refuses_is_told_in_words(
        self, log: Log, known: Views, on_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.book("1")

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(Path, "mkdir", full)
            broken.setattr(os, "listdir", full)
            for refused in (known.read("ledger", positions), known.rebuild()):
                with pytest.raises(StoreUnavailable, match=r"No space left on device.*make room"):
                    await refused
        assert (await known.read("ledger", positions))[0] == [1]

    @ON_FILE
    async def test_a_witness_that_cannot_be_kept_is_told_in_words_and_nothing_is_thrown_away(
        self, log: Log, on_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.book("1")
        first = Views(log.store, on_file, PROJECTIONS)
        await first.catch_up()
        await first.close()
        (file,) = on_file.glob("ledger-*.db")
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE checkpoint SET position = 99")
        connection.close()

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        again = Views(log.store, on_file, PROJECTIONS)
        with monkeypatch.context() as broken:
            broken.setattr(Path, "open", full)
            with pytest.raises(StoreUnavailable, match=r"No space left on device.*make room"):
                await again.read("ledger", positions)
        assert file.exists()
        assert (await again.read("ledger", positions))[0] == [1]
        await again.close()

    @ON_FILE
    async def test_closed_they_open_nothing_any_more(self, log: Log, known: Views, on_file: Path) -> None:
        await log.book("1")
        reading = [asyncio.create_task(known.read("ledger", positions)) for _ in range(5)]
        await asyncio.sleep(0)
        await known.close()
        for outcome in await asyncio.gather(*reading, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable) or outcome[0] == [1]
        with pytest.raises(StoreUnavailable, match="closed"):
            await known.read("ledger", positions)
        assert all(file._connection is None for file in known._files.values())

    def test_where_nothing_can_be_written_they_live_in_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert views_folder(tmp_path / "log.db") == tmp_path / "log.db.views"
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
        assert views_folder(tmp_path / "log.db") is None


async def under_way(log: Log, known: Views, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[int]":
    """A rebuild with one event behind it, and many before it."""
    monkeypatch.setattr(views, "REBUILD_BATCH", 1)
    for n in range(30):
        await log.book(str(n))
    await known.catch_up()
    began = asyncio.Event()
    task = asyncio.create_task(known.rebuild(progress=lambda _done, _goal: began.set()))
    await began.wait()
    return task


class TestRebuild:
    async def test_of_all_and_of_one(self, log: Log, known: Views) -> None:
        for n in range(5):
            await log.book(str(n))
        seen: list[tuple[int, int]] = []
        assert await known.rebuild(progress=lambda done, total: seen.append((done, total))) == 5
        assert seen[-1] == (5, 5)
        assert await known.rebuild(["ledger"]) == 5
        assert (await known.read("ledger", positions))[0] == [1, 2, 3, 4, 5]

    async def test_of_an_empty_log(self, known: Views) -> None:
        assert await known.rebuild() == 0

    async def test_of_what_there_is_not_is_refused(self, known: Views) -> None:
        with pytest.raises(InvalidFields, match="current_state, ledger"):
            await known.rebuild(["nonsense"])

    @ON_FILE
    async def test_mends_what_was_wrong_and_leaves_no_old_file(self, log: Log, known: Views, on_file: Path) -> None:
        await log.book("1")
        await known.catch_up()
        (file,) = on_file.glob("ledger-*.db")
        with sqlite3.connect(file) as connection:
            connection.execute("INSERT INTO told (position) VALUES (77)")
        connection.close()
        other = Views(log.store, on_file, PROJECTIONS)
        assert (await other.read("ledger", positions))[0] == [1, 77]
        await known.rebuild()
        assert (await known.read("ledger", positions))[0] == (await other.read("ledger", positions))[0] == [1]
        await other.close()
        assert sorted(file.name for file in on_file.glob("ledger*.db")) == ["ledger-1-2.db"]

    @ON_FILE
    async def test_one_at_a_time(self, log: Log, known: Views, on_file: Path) -> None:
        await log.book("1")
        other = Views(log.store, on_file, PROJECTIONS)
        began = asyncio.Event()
        first = asyncio.create_task(known.rebuild(progress=lambda _done, _total: began.set()))
        while not began.is_set() and not first.done():
            await asyncio.sleep(0)
        if not first.done():
            with pytest.raises(StoreLocked):
                await other.rebuild()
        await first
        assert await other.rebuild() == 1
        await other.close()

    @ON_FILE
    async def test_a_lock_that_cannot_be_taken_for_another_reason_is_not_told_as_a_rebuild(
        self, log: Log, known: Views, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(StoreUnavailable, match="No locks available") as told:
            await known.rebuild()
        assert not isinstance(told.value, StoreLocked)

    async def test_ends_although_more_is_written_than_it_can_fold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Growing(MemoryStore):
            async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
                for _ in range(limit):
                    await log.book(str(await self.position()))
                return await super().log(after, limit)

        monkeypatch.setattr(views, "REBUILD_BATCH", 2)
        log = Log(Growing())
        await log.book("first")
        known = Views(log.store, None, PROJECTIONS)
        async with asyncio.timeout(30):
            assert await known.rebuild() < await log.store.position()
        await known.close()

    @ON_FILE
    async def test_starts_over_from_what_one_that_was_killed_has_left(
        self, log: Log, known: Views, on_file: Path
    ) -> None:
        await log.book("1")
        await known.catch_up()
        (on_file / "ledger-1.building").write_bytes(b"half of a file")
        await known.rebuild()
        assert (await known.read("ledger", positions))[0] == [1]
        assert not list(on_file.glob("*.building"))

    @ON_FILE
    async def test_what_one_that_was_killed_has_left_goes_at_the_next_start(self, log: Log, on_file: Path) -> None:
        await log.book("1")
        on_file.mkdir()
        (on_file / "ledger-0.building").write_bytes(b"half of a file")
        known = Views(log.store, on_file, PROJECTIONS)
        assert (await known.read("ledger", positions))[0] == [1]
        assert not list(on_file.glob("*.building"))
        await known.close()

    @ON_FILE
    async def test_what_one_under_way_fills_is_left_alone_by_whoever_starts(
        self, log: Log, known: Views, on_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuilding = await under_way(log, known, monkeypatch)
        other = Views(log.store, on_file, PROJECTIONS)
        assert list(on_file.glob("*.building"))
        await other.catch_up()
        assert await rebuilding == await other.goal()
        await other.close()

    async def test_closed_meanwhile_it_ends_in_words_and_leaves_nothing(
        self, log: Log, known: Views, folder: Path | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuilding = await under_way(log, known, monkeypatch)
        await known.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await rebuilding
        assert all(file._connection is None for file in known._files.values())
        assert folder is None or not list(folder.glob("*.building"))

    async def test_that_fails_leaves_the_old_one_in_use(
        self, log: Log, known: Views, folder: Path | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.book("1")
        await known.catch_up()
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "broken", True)
            with pytest.raises(ZeroDivisionError):
                await known.rebuild()
        assert (await known.read("ledger", positions))[0] == [1]
        assert folder is None or not list(folder.glob("*.building"))
        assert await known.rebuild() == 1


class TestFollowing:
    async def until(self, told: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not told():
                await asyncio.sleep(0.005)

    async def test_it_catches_up_unasked_until_it_is_closed(
        self, log: Log, folder: Path | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "FOLLOW_S", 0.001)
        known = Views(log.store, folder, PROJECTIONS)
        known.follow()
        ledger = known._files["ledger"]
        for n in range(1, 4):
            await log.book(str(n))
            await self.until(lambda n=n: ledger.checkpoint().position == n)
        await known.close()
        await known.close()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    async def test_a_fault_in_one_is_told_once_and_stops_no_other(
        self, log: Log, folder: Path | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "FOLLOW_S", 0.001)
        monkeypatch.setattr(Ledger, "broken", True)
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what["message"]))
        known = Views(log.store, folder, PROJECTIONS)
        known.follow()
        for n in range(1, 4):
            await log.book(str(n))
            await self.until(lambda n=n: known._files["current_state"].checkpoint().position == n)
        assert told == ["ledger is kept up no longer"]
        await known.close()
