"""What the page on operations says to do, done: backups, a restore, and findings that can be mended."""

import inspect
import re
import shlex
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from typer.testing import CliRunner

from appointments import Orchestrator, Settings
from appointments.cli.app import app
from domain.provider import Retryable
from projections.findings import Finding
from providers.local import LocalProvider

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
START = datetime(2031, 3, 3, 9, tzinfo=UTC)


def run(words: Sequence[str], log: Path) -> int:
    """One command on this store; its exit code."""
    return CliRunner().invoke(app, [*words, "--store", f"sqlite:///{log}"]).exit_code


def _words(said: str, folder: Path) -> list[str]:
    for place in ("safe", "keys"):
        (folder / place).mkdir(exist_ok=True)
    return shlex.split(said.replace("/media", str(folder)))[1:]


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


def test_the_backups_of_the_page_are_made_and_restored(tmp_path: Path) -> None:
    said = re.findall(r"^    (appointments (?:backup|restore) .*)$", PAGE, re.MULTILINE)
    assert len(said) == 3
    log = tmp_path / "data" / "appointments.db"
    booked = ("book", "--calendar", "main", "--start", "2031-03-03T09:00", "--end", "2031-03-03T10:00", "--key", "k1")
    further = ("--time-zone", "UTC", "--summary", "Visit", "--provider", "local:")
    assert run((*booked, *further), log) == 0
    assert run(_words(said[0], tmp_path), log) == 0
    (tmp_path / "safe" / "2026-11-25.db").unlink()
    assert run(_words(said[1], tmp_path), log) == 0
    log.rename(tmp_path / "old.db")
    assert run(_words(said[2], tmp_path)[:-2], log) == 0


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
