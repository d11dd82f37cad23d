"""A backup is the log as it was at one moment, made while work goes on; what is restored goes on where that was."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from appointments import Orchestrator, Settings
from appointments.backup import Copied, backup, restore
from appointments.cli.app import app
from appointments.privacy import ErasureRequest, erase
from domain.errors import InvalidFields
from domain.personal import subject
from projections.health import health
from saga.clock import WallClock
from store.sqlite import SqliteStore

NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)
evidence = pytest.mark.evidence


def settings(log: Path) -> Settings:
    return Settings(store=f"sqlite:///{log}", provider="local:", log_level="error")


async def book(desk: Orchestrator, n: int) -> str:
    start = NINE + timedelta(days=n)
    fields = {"calendar": "main", "start": start, "end": start + timedelta(hours=1), "time_zone": "UTC"}
    who = [{"email": f"zaphod{n}@example.org", "name": "Zaphod"}]
    return str((await desk.book({**fields, "summary": f"Visit {n}", "attendees": who}, key=f"k{n}", wait=10)).id)


async def live(log: Path, count: int = 5) -> list[str]:
    async with Orchestrator.open(settings(log)) as desk:
        return [await book(desk, n) for n in range(count)]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def store(path: Path) -> str:
    return f"sqlite:///{path}"


async def copied_during_work(folder: Path) -> tuple[Copied, int]:
    """A backup that is overtaken by bookings after its first pages; and the position at its beginning."""
    async with Orchestrator.open(settings(folder / "desk.db")) as desk:
        for n in range(5):
            await book(desk, n)
        loop, began, overtaken = asyncio.get_running_loop(), await desk.runtime.store.position(), 0

        def told(_: int) -> None:
            nonlocal overtaken
            if (overtaken := overtaken + 1) <= 3:
                asyncio.run_coroutine_threadsafe(book(desk, 100 + overtaken), loop).result(10)

        log = desk.runtime.store
        made = await asyncio.to_thread(backup, log, folder / "desk.db", folder / "copy.db", None, True, told)
        assert await log.position() > began + 10, "nothing went on meanwhile"
        return made, began


@evidence(
    target="Backup",
    answers=("R7.1",),
    given="a log that bookings are added to",
    when="it is copied, page by page, and bookings come in between",
    then="the copy is the log as it was when the copy began: every check of it is well",
    seen_in="answers",
)
async def test_a_copy_is_the_log_of_one_moment_whatever_is_booked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.copying.ROWS_AT_ONCE", 7)
    made, began = await copied_during_work(tmp_path)
    assert made.position == began
    copy = SqliteStore.open(tmp_path / "copy.db", "test", read_only=True)
    original = SqliteStore.open(tmp_path / "desk.db", "test", read_only=True)
    try:
        assert await copy.log(limit=1_000) == await original.log(limit=began)
        assert (await health(copy, WallClock().now(), frozenset({("booking", 1, "main")}))).findings == ()
    finally:
        await copy.close()
        await original.close()


async def test_control_without_one_moment_the_copy_holds_what_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.copying.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("appointments.backup.as_one_moment", nullcontext)
    made, began = await copied_during_work(tmp_path)
    assert made.position > began


@evidence(
    target="Backup",
    answers=("R7.1",),
    given="a backup of a log, with checkpoints and tokens beside it, its persons' keys in a file of their own",
    when="a new store is made of it",
    then="what was booked, what is signed and who may sign in is there as it was, and a key is still taken once",
    seen_in="answers",
)
def test_what_is_restored_goes_on_where_the_backup_was(tmp_path: Path) -> None:
    log, copy, keys, new = (tmp_path / name for name in ("desk.db", "copy.db", "keys.db", "new.db"))
    ids = asyncio.run(live(log))
    assert run("act", ids[0], "park", "--reason", "later", "--store", store(log), "--provider", "local:").exit_code == 0
    assert run("checkpoint", "--store", store(log)).exit_code == 0
    assert run("token", "create", "--name", "ops", "--role", "admin", "--store", store(log)).exit_code == 0
    assert run("backup", copy, "--keys", keys, "--store", store(log)).exit_code == 0

    done = run("restore", copy, "--keys", keys, "--store", store(new), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["check"]["ok"], told
    assert told["check"]["checkpoints"] == 1
    assert told["keys"] == 5
    assert sorted(told["beside"]) == ["new.db.access.db", "new.db.checkpoints.jsonl"]
    assert "ops" in run("token", "list", "--store", store(new)).output
    for id in ids:
        before, after = (run("show", id, "--json", "--store", store(one)).stdout for one in (log, new))
        assert before == after
        assert "zaphod" in after
    again = asyncio.run(live(new))
    assert again == ids
    resumed = run("act", ids[0], "resume", "--reason", "now", "--store", store(new), "--provider", "local:", "--json")
    assert resumed.exit_code == 0, resumed.output


def test_without_the_keys_nobody_is_named_and_nobody_but_the_owner_reads_the_files(tmp_path: Path) -> None:
    log, copy, keys = (tmp_path / name for name in ("desk.db", "copy.db", "keys.db"))
    asyncio.run(live(log))
    assert run("backup", copy, "--keys", keys, "--store", store(log)).exit_code == 0
    assert sqlite3.connect(copy).execute("SELECT count(*) FROM subject_keys").fetchone() == (0,)
    assert b"zaphod" not in copy.read_bytes().lower()
    assert sqlite3.connect(keys).execute("SELECT count(*) FROM events").fetchone() == (0,)
    assert {file.stat().st_mode & 0o777 for file in (copy, keys)} == {0o600}
    told = json.loads(run("restore", copy, "--store", store(tmp_path / "new.db"), "--json").stdout)
    assert {finding["kind"] for finding in told["check"]["findings"]} == {"key_gone"}


async def test_keys_from_before_an_erasure_are_told_of(tmp_path: Path) -> None:
    log, keys = tmp_path / "desk.db", tmp_path / "keys.db"
    async with Orchestrator.open(settings(log)) as desk:
        await book(desk, 1)
        held = desk.runtime.store
        await asyncio.to_thread(backup, held, log, tmp_path / "before.db", keys, True, lambda _: None)
        request = ErasureRequest(actor="ops", reference="r-1")
        await erase(held, subject("default", "zaphod1@example.org"), request, WallClock(), desk.runtime.forget)
        await asyncio.to_thread(backup, held, log, tmp_path / "after.db", None, False, lambda _: None)
    new = SqliteStore.open(tmp_path / "new.db", "test")
    try:
        await restore(new, tmp_path / "new.db", tmp_path / "after.db", keys, lambda _: None)
        found = await health(new, WallClock().now(), frozenset({("booking", 1, "main")}))
    finally:
        await new.close()
    assert {finding.kind for finding in found.findings} == {"key_kept"}


async def test_a_restore_that_is_cut_off_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.copying.ROWS_AT_ONCE", 7)
    log, copy = tmp_path / "desk.db", tmp_path / "copy.db"
    await live(log)
    held = SqliteStore.open(log, "test")
    await asyncio.to_thread(backup, held, log, copy, None, True, lambda _: None)
    await held.close()
    new = SqliteStore.open(tmp_path / "new.db", "test")

    def cut_off(_: int) -> None:
        raise RuntimeError("cut off")

    try:
        with pytest.raises(RuntimeError, match="cut off"):
            await restore(new, tmp_path / "new.db", copy, None, cut_off)
        assert await new.position() == 0
        made = await restore(new, tmp_path / "new.db", copy, None, lambda _: None)
        assert await new.position() == made.position > 0
        with pytest.raises(InvalidFields, match="already"):
            await restore(new, tmp_path / "new.db", copy, None, lambda _: None)
        assert await new.position() == made.position
    finally:
        await new.close()


async def test_a_backup_that_is_cut_off_leaves_no_file(tmp_path: Path) -> None:
    log = tmp_path / "desk.db"
    await live(log)
    held = SqliteStore.open(log, "test", read_only=True)

    def cut_off(_: int) -> None:
        raise RuntimeError("cut off")

    try:
        with pytest.raises(RuntimeError, match="cut off"):
            await asyncio.to_thread(backup, held, log, tmp_path / "copy.db", None, True, cut_off)
    finally:
        await held.close()
    assert not list(tmp_path.glob("copy.db*"))


def _another_application(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.write_text("hello" * 100), "not a SQLite file"),
        (_another_application, "of another application"),
    ],
)
def test_what_is_no_backup_is_refused_and_nothing_is_made_of_it(
    tmp_path: Path, make: Callable[[Path], Any], detail: str
) -> None:
    given = tmp_path / "given.db"
    make(given)
    refused = run("restore", given, "--store", store(tmp_path / "new.db"))
    assert refused.exit_code in (1, 2)
    assert detail in refused.output
    if (tmp_path / "new.db").exists():
        assert sqlite3.connect(tmp_path / "new.db").execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    log, copy = tmp_path / "desk.db", tmp_path / "copy.db"
    asyncio.run(live(log, 1))
    copy.write_text("mine")
    refused = run("backup", copy, "--store", store(log))
    assert refused.exit_code == 2
    assert "is there already" in refused.output
    assert copy.read_text() == "mine"
