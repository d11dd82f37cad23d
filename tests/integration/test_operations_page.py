"""What the page on operations says to do, done: copies, keys kept apart, a restore, and findings that can be mended."""

import inspect
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appointments import Orchestrator, Settings
from domain.provider import Retryable
from projections.findings import Finding
from providers.local import LocalProvider

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
SQL = re.compile(r'^    sqlite3 (\S+) "([^"]+)"', re.MULTILINE)
START = datetime(2031, 3, 3, 9, tzinfo=UTC)


def run(folder: Path, command: tuple[str, str]) -> None:
    """One `sqlite3 FILE "SQL"` of the page, in a folder."""
    file, sql = command
    sql = re.sub(r"'(\w+\.db)'", lambda name: f"'{folder / name[1]}'", sql.replace("\\\n", " "))
    with closing(sqlite3.connect(folder / file, isolation_level=None)) as connection:
        for statement in sql.split(";"):
            connection.execute(statement)


def settings(folder: Path) -> Settings:
    return Settings(store=f"sqlite:///{folder}/x.db", provider="local:", log_file=folder / "desk.log")


def booking(n: int) -> dict[str, object]:
    fields = {"calendar": "main", "time_zone": "UTC", "summary": f"Visit {n}"}
    start = START + timedelta(days=n)
    return {
        **fields,
        "start": start,
        "end": start + timedelta(hours=1),
        "attendees": [{"email": f"pat{n}@example.org"}],
    }


async def findings(folder: Path) -> list[tuple[str, str]]:
    async with Orchestrator.open(settings(folder)) as desk:
        return [(found.kind, found.subject) for found in (await desk.health()).findings]


def test_every_kind_of_finding_is_on_the_page() -> None:
    told = re.search(r'kind: str\n    """(.*?)"""', inspect.getsource(Finding), re.DOTALL)
    assert told is not None
    kinds = {kind for group in re.findall(r": ([a-z_|\s]+)", told[1]) for kind in group.split() if kind != "|"}
    rows = re.search(r"^\| finding \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert rows is not None
    assert len(kinds) > 15
    named = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows[0].splitlines() if row]
    assert {kind for kinds_of_row in named for kind in kinds_of_row} == kinds


async def test_a_copy_without_keys_names_nobody_and_is_whole_again_with_them(tmp_path: Path) -> None:
    copy, part, bring_back = SQL.findall(PAGE)
    async with Orchestrator.open(settings(tmp_path)) as desk:
        ids = [(await desk.book(booking(n), key=f"key-{n}", wait=5)).id for n in range(3)]
        before = [await desk.show(id) for id in ids]
        run(tmp_path, copy)  # while it is in use
    with closing(sqlite3.connect(tmp_path / "backup.db")) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM subject_keys")]
    run(tmp_path, part)
    assert len(keys) == 3
    assert not any(key in (tmp_path / "backup.db").read_bytes() for key in keys)
    assert all(key in (tmp_path / "keys.db").read_bytes() for key in keys)

    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(tmp_path / "backup.db", restored / "x.db")
    shutil.copy(tmp_path / "keys.db", restored / "keys.db")
    assert await findings(restored) == [("key_gone", id) for id in sorted(map(str, ids))]
    run(restored, bring_back)
    assert await findings(restored) == []
    async with Orchestrator.open(settings(restored)) as desk:
        assert [await desk.show(id) for id in ids] == before


async def test_read_models_that_are_deleted_are_made_anew(tmp_path: Path) -> None:
    for _ in range(2):
        async with Orchestrator.open(settings(tmp_path)) as desk:
            one = await desk.book(booking(0), key="key-0", wait=5)
            assert [seen.id for seen in await desk.list()] == [one.id]
        shutil.rmtree(tmp_path / "x.db.views", ignore_errors=True)


async def test_open_work_that_is_missing_is_made_anew_by_a_command(tmp_path: Path) -> None:
    provider = LocalProvider("main")
    provider.answer_next("create", Retryable(reason="later", retry_after_ms=60_000))
    async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
        one = await desk.book(booking(0), key="key-0", wait=0.1)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        assert connection.execute("DELETE FROM open_work").rowcount == 1
    assert await findings(tmp_path) == [("unowned", str(one.id))]
    async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
        await desk.act(one.id, "park", actor="dana", reason="its row is missing")
        await desk.act(one.id, "resume", actor="dana", reason="its row is missing")
        await desk.act(one.id, "retry", actor="dana", reason="at once")
        assert (await desk.show(one.id, wait=5)).state == "confirmed"
    assert await findings(tmp_path) == []
