"""`replay` on a store file: what a real process wrote is whole; what somebody did to the file is found and named."""

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appointments import Orchestrator, Settings
from appointments.cli import replay as command
from appointments.cli.app import app
from domain.commands import BookAppointment
from domain.errors import UnknownAppointment
from domain.provider import Rejected, Retryable
from providers.local import LocalProvider
from saga.audit import Auditor
from saga.changes import Changes
from saga.lanes import LimitPolicy
from saga.recorded_streams import Wanted, read_recordings
from saga.replay import BrokenAt
from saga.what_if import what_if
from store.sqlite import SqliteStore

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
BOOK = BookAppointment(
    calendar="main", start=START, end=START + timedelta(hours=1), time_zone="Europe/Berlin", summary="Check-up"
)
KEYS = [f"key-{number}" for number in range(8)]


def said(folder: Path, *words: str) -> tuple[int, Any]:
    """What a command answered as JSON, and how it ended."""
    ended = CliRunner().invoke(app, [*words, "--json", "--store", f"sqlite:///{folder}/store.db"])
    assert "Traceback" not in ended.output
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, json.loads(ended.stdout)


@pytest.fixture
async def written(tmp_path: Path) -> dict[str, str]:
    """A store with appointments of several ends; key to id."""
    provider = LocalProvider("main")
    provider.answer_next("create", *[Retryable(reason="connection refused")] * 2)
    settings = Settings.model_validate({"store": f"sqlite:///{tmp_path}/store.db", "backoff_ms": 1, "attempts_max": 2})
    ids = {}
    async with Orchestrator.open(settings, providers=(provider,)) as desk:
        for key in KEYS:
            ids[key] = str((await desk.book(BOOK, key=key, wait=5)).id)
        await desk.cancel(ids[KEYS[-1]], key="cancel", wait=5)
        assert (await desk.replay(ids[KEYS[0]])).ok
        with pytest.raises(UnknownAppointment):
            await desk.replay(ids[KEYS[0]], tenant="another")
    return ids


def change(folder: Path, statement: str, *values: object) -> None:
    """As one who can write to the file."""
    with sqlite3.connect(folder / "store.db") as file:
        assert file.execute(statement, values).rowcount == 1
    file.close()


async def test_what_a_process_wrote_is_whole(tmp_path: Path, written: dict[str, str]) -> None:
    store = SqliteStore.open(tmp_path / "store.db", "reader", read_only=True)
    verdicts = [one async for one in Auditor(store).replay_all()]
    await store.close()
    assert len(verdicts) == len(KEYS) + 1, "and the definition"
    assert all(one.ok for one in verdicts)
    assert sum(one.decisions for one in verdicts) > 3 * len(KEYS)


def test_one_appointment_by_its_id(tmp_path: Path, written: dict[str, str]) -> None:
    code, found = said(tmp_path, "replay", written[KEYS[0]])
    assert (code, found["matches"], found["chain"], found["divergences"]) == (0, True, "ok", [])


@pytest.mark.parametrize("alone_max", [1_000_000, 0], ids=["here", "in several processes"])
def test_the_whole_store(
    tmp_path: Path, written: dict[str, str], monkeypatch: pytest.MonkeyPatch, alone_max: int
) -> None:
    monkeypatch.setattr(command, "ALONE_MAX", alone_max)
    monkeypatch.setattr(command, "PARTS", 4)
    code, found = said(tmp_path, "replay", "--all", "--processes", "2")
    assert (code, found["ok"], found["streams"]) == (0, True, len(KEYS) + 1)
    change(
        tmp_path,
        "UPDATE events SET body = CAST(json_set(CAST(body AS TEXT), '$.due_at', '2040-01-01T00:00:00Z') AS BLOB)"
        " WHERE position = (SELECT min(position) FROM events WHERE type = 'retry-scheduled.v1')",
    )
    code, found = said(tmp_path, "replay", "--all", "--processes", "2")
    assert (code, found["ok"], found["diverging"], found["broken_chains"]) == (1, False, 1, 1)
    assert [one["divergences"][0]["found"]["due_at"] for one in found["wrong"]] == ["2040-01-01T00:00:00Z"]


@pytest.mark.evidence(
    target="replay",
    answers=("R3.2", "G7"),
    given="a store file that a process wrote",
    when="one decision is changed",
    then="`replay` names it with its version",
    seen_in="`appointments replay --json`",
)
def test_a_changed_decision_is_named_with_its_version_and_the_chain_breaks_there(
    tmp_path: Path, written: dict[str, str]
) -> None:
    id = written[KEYS[0]]
    change(
        tmp_path,
        "UPDATE events SET body = CAST(json_set(CAST(body AS TEXT), '$.due_at', '2040-01-01T00:00:00Z') AS BLOB)"
        " WHERE type = 'retry-scheduled.v1' AND hex(stream_id) = ?",
        id.replace("-", "").upper(),
    )
    code, found = said(tmp_path, "replay", id)
    assert (code, found["matches"]) == (1, False)
    assert found["chain"] == {"broken_at": 4}
    assert (found["divergences"][0]["version"], set(found["divergences"][0]["found"])) == (4, {"type", "due_at"})


async def test_a_definition_that_was_changed_fails_every_appointment_that_goes_by_it(
    tmp_path: Path, written: dict[str, str]
) -> None:
    change(
        tmp_path,
        "UPDATE events SET body = CAST(json_set(CAST(body AS TEXT), '$.plan.deadline_ms', 1000) AS BLOB)"
        " WHERE type = 'definition-registered.v1'"
        " AND position = (SELECT min(position) FROM events WHERE type = 'definition-registered.v1')",
    )
    store = SqliteStore.open(tmp_path / "store.db", "reader", read_only=True)
    verdicts = [one async for one in Auditor(store).replay_all()]
    await store.close()
    assert [one.matches for one in verdicts] == [False] * (len(KEYS) + 1)
    assert [one.chain for one in verdicts if one.chain != "ok"] == [BrokenAt(broken_at=1)]


async def test_what_was_erased_is_decided_again_all_the_same(tmp_path: Path) -> None:
    settings = Settings.model_validate({"store": f"sqlite:///{tmp_path}/store.db", "backoff_ms": 1, "attempts_max": 2})
    provider = LocalProvider("main")
    provider.answer_next("create", Retryable(reason="busy, says pat@example.org"), Rejected(reason="Pat is not known"))
    book = BookAppointment.model_validate({**BOOK.model_dump(), "attendees": [{"email": "pat@example.org"}]})
    async with Orchestrator.open(settings, providers=(provider,)) as desk:
        refused = await desk.book(book, key="refused", wait=5)
        cancelled = await desk.book(book, key="cancelled", wait=5)
        await desk.cancel(cancelled.id, key="cancel", reason="Pat is ill", wait=5)
        await desk.erase(email="pat@example.org", reference="request-1", dry_run=False)
        for id in (refused.id, cancelled.id):
            assert "Pat" not in repr(await desk.events(id))
            assert (await desk.replay(id)).ok
        store = desk.runtime.store
        there = await read_recordings(store, Wanted(tenant="default"))
    assert (there.unreadable, len(there.recordings)) == (0, 2)
    report = await asyncio.to_thread(what_if, there.recordings, there.plans, Changes(deadline_ms=60_000), LimitPolicy())
    assert (report.control.equal, report.differing) == (2, 0)


def test_rows_that_no_event_can_stand_in_are_findings_and_no_traceback(tmp_path: Path, written: dict[str, str]) -> None:
    ids = iter(written.values())
    for what in ("body = X'FF'", "body = 'x'", "type = 'no-such.v1'", "at = 'never'", "digest = X''"):
        change(
            tmp_path,
            f"UPDATE events SET {what} WHERE version = 2 AND hex(stream_id) = ?",
            next(ids).replace("-", "").upper(),
        )
    code, found = said(tmp_path, "replay", "--all")
    assert code == 1
    assert len(found["wrong"]) == 5


def test_bad_requests_are_refused(tmp_path: Path, written: dict[str, str]) -> None:
    for words in (("replay",), ("replay", written[KEYS[0]], "--all"), ("replay", "no-id")):
        assert said(tmp_path, *words)[0] == 2
    code, found = said(tmp_path, "replay", "0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11")
    assert (code, found["status"]) == (2, 404)
