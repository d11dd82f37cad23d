"""What was erased is gone from the files, wherever the process was killed and however SQLite was built."""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unicodedata import normalize
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from domain.personal import ERASED_EMAIL
from projections.views import Views
from providers.local import LocalProvider
from store import sqlite_file
from store.port import Append, Private, RecordedEvent
from store.sqlite import SqliteStore
from store.sqlite_writer import SqliteLogWriter

WHO = "zaphod@example.org"
BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "UTC",
    "summary": "Zaphod's second head",
    "attendees": [{"email": WHO}],
}
SUBJECTS = 400


def settings(folder: Path) -> Settings:
    return Settings(store=f"sqlite:///{folder}/desk.db", provider="local:", log_level="error", settle_ms=0)


def keys_in(folder: Path) -> set[bytes]:
    with closing(sqlite3.connect(f"file:{folder}/desk.db?mode=ro", uri=True)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM subject_keys")}


def found_in(folder: Path, *wanted: bytes) -> list[str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [f"{path.name}: {one!r}" for path in files for one in wanted if one in path.read_bytes()]


def killed(work: Callable[[], None]) -> None:
    """Do `work` in a process of its own, which must end by being killed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), status


def die(*_: object, **_how: object) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return False


async def die_soon(*_: object) -> int:
    return die()


async def append_and_die(folder: Path) -> None:
    store = SqliteStore.open(folder / "desk.db", "killed")
    await store.append(Append(UUID(int=1), 0, (RecordedEvent(UUID(int=1), 1, "a.v1", b"{}"),)))
    die()


async def book_and_erase(folder: Path, erase: bool = True) -> None:
    async with Orchestrator.open(settings(folder), providers=(LocalProvider("main"),)) as desk:
        if not erase:
            await desk.book(BOOKING, key="zaphod", wait=5)
            await desk.list()
            return
        for (kind, name), dying in DYING_AT.items():
            setattr(kind, name, dying)
        await desk.erase(email=WHO, reference="request-1", dry_run=False)


DYING_AT: dict[tuple[type, str], Callable[..., object]] = {}
BEFORE_THE_WIPE = (SqliteLogWriter, "clean_up"), die
BEFORE_THE_READ_MODELS = (Views, "catch_up"), die_soon


@pytest.mark.evidence(
    target="erasure",
    answers=("R7.4", "R7.1"),
    given="an erasure under way",
    when="the process is killed at any of its steps, and started again",
    then="the erasure is finished; the key is in no file",
    seen_in="bytes of the files",
)
@pytest.mark.parametrize("instant", [BEFORE_THE_WIPE, BEFORE_THE_READ_MODELS], ids=["wipe", "read models"])
async def test_an_erasure_that_was_killed_is_finished_by_the_next_start(
    tmp_path: Path, instant: tuple[tuple[type, str], Callable[..., object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await book_and_erase(tmp_path, erase=False)
    before = keys_in(tmp_path)
    monkeypatch.setitem(DYING_AT, *instant)
    killed(lambda: asyncio.run(book_and_erase(tmp_path)))
    (key,) = before - keys_in(tmp_path)
    left = key if instant is BEFORE_THE_WIPE else b"Zaphod"
    assert found_in(tmp_path, left), "the control: it was killed in time"
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        await desk.list()
        assert found_in(tmp_path, key, b"Zaphod", WHO.encode()) == []


async def test_a_key_leaves_no_copy_where_sqlite_does_not_wipe_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every build wipes by default; pages that were split hold copies of rows that moved."""
    connect = sqlite3.connect

    def without_wiping(*given: object, **more: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*given, **more)  # type: ignore[call-overload]
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    monkeypatch.setattr("store.sqlite_file.sqlite3.connect", without_wiping)
    store = SqliteStore.open(tmp_path / "desk.db", "test")
    try:
        for n in range(SUBJECTS):
            event = RecordedEvent(UUID(int=n), 1, "a.v1", b"{}", private=(Private((f"subject-{n}",), b"{}"),))
            await store.append(Append(UUID(int=n), 0, (event,)))
        left = []
        for n in range(0, SUBJECTS, 8):
            before = keys_in(tmp_path)
            told = RecordedEvent(UUID(int=n), 2, "b.v1", b"{}")
            await store.erase(f"subject-{n}", (Append(UUID(int=n), 1, (told,)),))
            (key,) = before - keys_in(tmp_path)
            left += found_in(tmp_path, key)
        assert left == []
    finally:
        await store.close()


async def test_a_reader_that_does_not_end_holds_up_no_other_write(tmp_path: Path) -> None:
    """What is left in the write-ahead log is wiped when that costs no waiting."""
    killed(lambda: asyncio.run(append_and_die(tmp_path)))
    with closing(sqlite3.connect(f"file:{tmp_path}/desk.db?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        store = SqliteStore.open(tmp_path / "desk.db", "test")
        begun = time.monotonic()
        for n in range(2, 5):
            await store.append(Append(UUID(int=1), n - 1, (RecordedEvent(UUID(int=1), n, "a.v1", b"{}"),)))
        took_s = time.monotonic() - begun
        reader.rollback()
    await store.close()
    assert took_s < sqlite_file.BUSY_TIMEOUT_S


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
async def test_an_address_is_one_person_however_its_letters_are_composed(tmp_path: Path, form: str) -> None:
    address = "Jürgen.Łuké@exämple.org"
    booking = {**BOOKING, "attendees": [{"email": normalize("NFD", address)}, {"email": "pat@example.org"}]}
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        await desk.book(booking, key="one", wait=5)
        await desk.book({**BOOKING, "attendees": [{"email": address.upper()}]}, key="two", wait=5)
        erased = await desk.erase(email=normalize(form, address), reference="request-1", dry_run=False)  # type: ignore[arg-type]
        assert len(erased.appointments) == 2
        assert (await desk.health()).ok
    assert found_in(tmp_path, "Łuk".encode(), "łuk".encode(), b"rgen") == []


async def test_what_is_typed_after_an_erasure_can_be_erased_too(tmp_path: Path) -> None:
    """The texts are about whoever is still named, else about the appointment; never about all who were ever erased."""
    both = {**BOOKING, "attendees": [{"email": WHO}, {"email": "pat@example.org"}]}
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        one = await desk.book(BOOKING, key="one", wait=5)
        other = await desk.book(both, key="other", wait=5)
        await desk.erase(email=WHO, reference="r-1", dry_run=False)
        for id in (one.id, other.id):
            await desk.cancel(id, key=f"cancel-{id}", reason="Zaphod is ill again", wait=5)
        nobody = await desk.erase(email=ERASED_EMAIL, reference="r-2", dry_run=False)
        assert not nobody.appointments
        for whom, concerned in (({"appointment": one.id}, one.id), ({"email": "pat@example.org"}, other.id)):
            assert (await desk.erase(**whom, reference="r-2", dry_run=False)).appointments == (concerned,)
        told = [event.model_dump_json() for id in (one.id, other.id) for event in await desk.events(id)]
        assert not any("Zaphod" in text for text in told)
        assert (await desk.health()).ok
