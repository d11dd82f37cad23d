"""Who may open a store file, and which files are refused."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from uuid import UUID

import pytest
from eventsourcing.persistence import OperationalError

from domain.errors import StoreLocked, StoreRefused, StoreUnavailable
from store import sqlite
from store.log_writer import LogWriter, TaskEntry
from store.port import Append, RecordedEvent
from store.recorder import LogApplicationRecorder
from store.sqlite import SqliteStore

STREAM = UUID(int=1)
ROOT = Path(__file__).parents[3]

HOLDER = """
import sys
from store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1], "holder")
print("open", flush=True)
sys.stdin.read()
"""


def entry(version: int) -> Append:
    return Append(STREAM, version - 1, (RecordedEvent(STREAM, version, "opened.v1", b"{}"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log #1?.db"


@pytest.fixture
def held(path: Path):
    """A process that holds the store."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        yield holder
        holder.kill()


def test_a_second_process_is_told_who_holds_the_file(path: Path, held: subprocess.Popen) -> None:
    with pytest.raises(StoreLocked, match=rf"held by process {held.pid}: .*read-only"):
        SqliteStore.open(path, "second")


def test_a_second_store_in_the_same_process_is_refused_too(path: Path) -> None:
    store = SqliteStore.open(path, "first")
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        SqliteStore.open(path, "second")
    store.close_now()
    SqliteStore.open(path, "second").close_now()


def test_a_second_name_of_the_file_is_no_way_round_the_lock(path: Path) -> None:
    store = SqliteStore.open(path, "first")
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        SqliteStore.open(link, "second")
    store.close_now()


def test_a_lock_that_cannot_be_written_is_unavailable_and_is_let_go_of(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StoreUnavailable, match="cannot be locked and written: File too large") as refusal:
            SqliteStore.open(path, "first")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(refusal.value, StoreLocked)
    SqliteStore.open(path, "first").close_now()


def test_an_opening_that_fails_at_its_last_step_leaves_no_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreRefused("changed meanwhile")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "check_ours", refuse)
        with pytest.raises(StoreRefused):
            SqliteStore.open(path, "first")
    assert "journal" not in {thread.name for thread in threading.enumerate()}
    SqliteStore.open(path, "first").close_now()


def test_a_closed_store_hands_out_no_connection(path: Path) -> None:
    store = SqliteStore.open(path, "first")
    recorder = LogApplicationRecorder(store)
    store.close_now()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.readers.connect()
    with pytest.raises(OperationalError, match="closed"):
        recorder.max_notification_id()


def test_a_process_that_was_killed_holds_nothing(path: Path, held: subprocess.Popen) -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    SqliteStore.open(path, "second").close_now()


async def test_reading_works_beside_the_process_that_holds_the_file(path: Path) -> None:
    writing = SqliteStore.open(path, "first")
    await writing.append(entry(1))
    reading = SqliteStore.open(path, "", read_only=True)
    assert len(await reading.events(STREAM)) == 1
    await writing.append(entry(2))
    assert await reading.position() == 2
    with pytest.raises(StoreUnavailable, match="read-only"):
        await reading.append(entry(3))
    await reading.close()
    await writing.append(entry(3))
    await writing.close()


async def test_reading_works_when_nobody_holds_the_file_and_changes_nothing(path: Path) -> None:
    writing = SqliteStore.open(path, "first")
    await writing.append(entry(1))
    await writing.close()
    before = path.read_bytes()
    reading = SqliteStore.open(path, "", read_only=True)
    assert await reading.position() == 1
    await reading.close()
    assert path.read_bytes() == before
    SqliteStore.open(path, "second").close_now()


def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SqliteStore.open(path, "", read_only=True)
    assert list(path.parent.iterdir()) == []


def test_a_path_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="missing"):
        SqliteStore.open(tmp_path / "missing" / "log.db", "first")


@pytest.mark.parametrize("read_only", [False, True])
class TestRefusal:
    def refuses(self, path: Path, read_only: bool, match: str) -> None:
        before = path.read_bytes()
        for _ in range(2):  # the first refusal must leave no lock behind
            with pytest.raises(StoreRefused, match=match):
                SqliteStore.open(path, "first", read_only=read_only)
        assert path.read_bytes() == before

    def test_of_a_file_that_is_no_database(self, path: Path, read_only: bool) -> None:
        path.write_bytes(b"# Shopping list\n" * 100)
        self.refuses(path, read_only, "not a SQLite file")

    def test_of_the_database_of_another_application(self, path: Path, read_only: bool) -> None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE shopping (item)")
        connection.close()
        self.refuses(path, read_only, "another application")

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_of_another_schema_version(self, path: Path, read_only: bool, version: int) -> None:
        SqliteStore.open(path, "first").close_now()
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version={version}")
        connection.close()
        self.refuses(path, read_only, f"schema version {version}, this program knows 2")


def test_the_journal_syncs_each_commit_and_readers_cannot_write(path: Path) -> None:
    store = SqliteStore.open(path, "first")
    with store.readers.connect() as reader, pytest.raises(Exception, match="readonly database"):
        reader.exec_driver_sql("DELETE FROM events")
    settings: Future[list[object]] = Future()

    def look(writer: LogWriter) -> list[object]:
        names = ("journal_mode", "synchronous")
        return [writer.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    store.journal.submit(TaskEntry(look, settings))
    assert settings.result() == ["wal", 2]
    store.close_now()
