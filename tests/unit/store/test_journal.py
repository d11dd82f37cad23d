"""Group commit, and what becomes of entries when the store fails."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store import journal as journal_module
from store import sqlite_file, sqlite_writer
from store.journal import Journal
from store.log_writer import AppendEntry, LogWriter, TaskEntry
from store.port import Append, RecordedEvent
from store.sqlite import SqliteStore
from store.sqlite_file import writing_connection
from store.sqlite_writer import SqliteLogWriter

pytestmark = pytest.mark.evidence(
    target="group commit",
    answers=("R7.1", "G1"),
    given="a journal whose commit fails",
    when="entries wait in it",
    then="each is told what the file says",
    seen_in="answers of the journal",
)


def entry(stream: int, expected: int = 0, type: str = "opened.v1", count: int = 1) -> Append:
    stream_id = UUID(int=stream)
    numbers = range(expected + 1, expected + count + 1)
    return Append(stream_id, expected, tuple(RecordedEvent(stream_id, n, type, b"{}") for n in numbers))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(path, "first")
    yield opened
    await opened.close()


class Held:
    """Holds the journal inside a task until released, so that what is queued meanwhile is one batch."""

    def __init__(self, store: SqliteStore) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        store.journal.submit(TaskEntry(self._wait, Future()))

    def _wait(self, _: LogWriter) -> None:
        self.reached.set()
        self.go_on.wait(5)


async def together(store: SqliteStore, *entries: Append) -> list[int | BaseException]:
    held = Held(store)
    await asyncio.to_thread(held.reached.wait, 5)
    waiting = asyncio.gather(*map(store.append, entries), return_exceptions=True)
    await asyncio.sleep(0)
    held.go_on.set()
    return await waiting


class TestGroupCommit:
    async def test_what_waits_is_committed_together_and_told_by_one_wake_up(self, store: SqliteStore) -> None:
        commits, wake_ups = [], []
        store.after_commit(lambda: commits.append(1))
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def count(call, *args, **kwargs):
            if call is journal_module._settle_all:
                wake_ups.append(1)
            return original(call, *args, **kwargs)

        loop.call_soon_threadsafe = count
        try:
            positions = await together(store, *map(entry, range(100)))
        finally:
            del loop.call_soon_threadsafe
        assert positions == list(range(1, 101))
        await store.close()
        assert (len(commits), len(wake_ups)) == (2, 1), "one commit for what held the journal, one for the hundred"

    async def test_an_entry_that_cannot_be_written_fails_alone(self, store: SqliteStore) -> None:
        outcomes = await together(store, entry(1), entry(2, type="\ud800"), entry(3), entry(1), entry(3, 1))
        assert outcomes[0] == 1
        assert isinstance(outcomes[1], UnicodeEncodeError)
        assert isinstance(outcomes[3], ConcurrencyConflict)
        assert [outcomes[2], outcomes[4]] == [2, 3]
        assert [(event.position, event.stream_id.int) for event in await store.log()] == [(1, 1), (2, 3), (3, 3)]

    async def test_a_task_that_fails_takes_nothing_with_it(self, store: SqliteStore) -> None:
        def half(writer: LogWriter) -> None:
            writer.insert_events([(UUID(int=9).bytes, (1, "half.v1", 0, b"", ()))])
            raise LookupError("after the first half")

        held = Held(store)
        held.reached.wait(5)
        failing: Future[None] = Future()
        store.journal.submit(TaskEntry(half, failing))
        appended = asyncio.ensure_future(store.append(entry(1)))
        await asyncio.sleep(0)
        held.go_on.set()
        assert await appended == 1
        with pytest.raises(LookupError):
            failing.result(5)
        assert await store.position() == 1
        assert await store.append(entry(2)) == 2

    async def test_a_caller_who_left_does_not_stop_the_others(self, store: SqliteStore) -> None:
        held = Held(store)
        held.reached.wait(5)
        left, stayed = (asyncio.ensure_future(store.append(entry(n))) for n in (1, 2))
        await asyncio.sleep(0)
        left.cancel()
        held.go_on.set()
        assert await stayed == 2
        assert await store.position() == 2, "a cancelled append may still be stored"

    def test_a_thread_that_leaves_at_the_last_moment_does_not_stop_the_others(self, path: Path) -> None:
        class LeavesWhenAsked(Future):
            """Is cancelled after the journal has seen that it was not."""

            def done(self) -> bool:
                was_done = super().done()
                self.cancel()
                return was_done

        journal = Journal(lambda: SqliteLogWriter(writing_connection(path)))
        left: Future[None] = Future()
        left.cancel()
        for future in (left, LeavesWhenAsked()):
            journal.submit(TaskEntry(lambda _: None, future))
        assert _append(journal, stream=1).result(5) == 1
        journal.close()

    async def test_versions_are_checked_beyond_the_heads_remembered(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_writer, "HEADS_MAX", 2)
        for stream in range(6):
            await store.append(entry(stream))
        assert len(store.journal._writer._heads) == 2
        for expected in (0, 2):
            with pytest.raises(ConcurrencyConflict):
                await store.append(entry(0, expected))
        assert await store.append(entry(0, 1)) == 7

    async def test_the_queue_is_bounded(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_module, "QUEUE_MAX", 2)
        outcomes = await together(store, *map(entry, range(4)))
        assert outcomes[:2] == [1, 2]
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes[2:])


class TestFailures:
    async def test_a_lock_of_another_program_is_waited_out_and_survived(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)
        store = SqliteStore.open(path, "first")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.append(entry(1))
        assert await store.position() == 0
        other.execute("ROLLBACK")
        other.close()
        assert await store.append(entry(1)) == 1
        await store.close()

    @pytest.mark.parametrize("stored", [True, False])
    def test_after_a_commit_that_failed_the_file_is_asked(self, path: Path, stored: bool) -> None:
        """COMMIT may fail on its way back: what was stored is acknowledged, what was not is refused."""
        opened: list[Connection] = []

        def open_connection() -> Connection:
            connection = writing_connection(path)
            if not opened:
                _fail_on_commit(connection, stored)
            opened.append(connection)
            return connection

        journal = Journal(lambda: SqliteLogWriter(open_connection()))
        first = _append(journal, stream=1)
        if stored:
            assert first.result(5) == 1
        else:
            with pytest.raises(StoreUnavailable, match="disk I/O error"):
                first.result(5)
        assert _append(journal, stream=2).result(5) == (2 if stored else 1)
        assert len(opened) > 1, "the connection that failed was replaced"
        journal.close()

    def test_a_failed_commit_without_events_is_refused_and_may_be_repeated(self, path: Path) -> None:
        opened: list[Connection] = []

        def open_connection() -> Connection:
            connection = writing_connection(path)
            if not opened:
                _fail_on_commit(connection, stored=True)
            opened.append(connection)
            return connection

        journal = Journal(lambda: SqliteLogWriter(open_connection()))
        future: Future[int] = Future()
        journal.submit(AppendEntry(UUID(int=1).bytes, 0, [], None, True, future))
        with pytest.raises(StoreUnavailable):
            future.result(5)
        assert _append(journal, stream=1).result(5) == 1
        journal.close()

    def test_nothing_is_taken_after_the_close(self, path: Path) -> None:
        journal = Journal(lambda: SqliteLogWriter(writing_connection(path)))
        journal.close()
        journal.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            _append(journal, stream=1)


def _append(journal: Journal, stream: int) -> Future[int]:
    future: Future[int] = Future()
    journal.submit(AppendEntry(UUID(int=stream).bytes, 0, [(1, "opened.v1", 0, b"{}", ())], None, True, future))
    return future


def _fail_on_commit(connection: Connection, stored: bool) -> None:
    """Make the next COMMIT of this connection report an error, after or instead of doing its work."""
    commit = connection.commit

    def fail() -> None:
        if stored:
            commit()
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    # Setting up a new file commits as well; this is set after that.
    connection.commit = fail  # type: ignore[method-assign]
