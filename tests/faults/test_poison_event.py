"""Events that nobody can read: their streams are set aside, and everybody else's work, lists and figures go on."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from domain.errors import HistoryError
from providers.local import LocalProvider
from saga.runtime import Runtime

NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)
COUNT = 20
POISON: dict[str, str] = {
    "unknown type": "UPDATE events SET type = 'appointment-teleported.v1' WHERE stream_id = ? AND version = 1",
    "bad payload": 'UPDATE events SET body = CAST(\'{"at": "yesterday"}\' AS BLOB) WHERE stream_id = ? AND version = 1',
    "future version": "UPDATE events SET type = 'appointment-requested.v99' WHERE stream_id = ? AND version = 1",
    "no JSON": "UPDATE events SET body = x'ff00' WHERE stream_id = ? AND version = 1",
}


def settings(folder: Path) -> Settings:
    return Settings(store=f"sqlite:///{folder / 'log.db'}", provider="local:", log_level="error", backoff_ms=0)


def booking(n: int) -> dict[str, object]:
    start = NINE + timedelta(hours=n)
    return {
        "calendar": "main",
        "start": start,
        "end": start + timedelta(minutes=30),
        "time_zone": "UTC",
        "summary": f"Visit {n}",
    }


async def unfinished(folder: Path) -> list[UUID]:
    """Appointments that a process has accepted, and died before it did anything for them."""
    provider = LocalProvider("main")
    async with Orchestrator.open(settings(folder), providers=(provider,)) as desk:
        desk.runtime.lanes.target("main").running = 10_000  # nothing leaves
        return [(await desk.book(booking(n), key=f"k{n}")).id for n in range(COUNT)]


def poison(folder: Path, ids: list[UUID]) -> list[UUID]:
    with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as connection:
        for statement, id in zip(POISON.values(), ids, strict=False):
            assert connection.execute(statement, (id.bytes,)).rowcount == 1
    return ids[: len(POISON)]


async def goes_on(folder: Path) -> tuple[set[UUID], set[UUID]]:
    """Who was booked by the next process, and whose work it has set aside; it is given some more meanwhile."""
    async with Orchestrator.open(settings(folder)) as desk:
        for n in range(COUNT, COUNT + 5):
            assert (await desk.book(booking(n), key=f"k{n}", wait=5)).state == "confirmed"
        store = desk.runtime.store
        async with asyncio.timeout(10):
            while any(not row.parked and row.due_at is not None for row in await store.open_work()):
                await asyncio.sleep(0.01)
        listed = {one.id for one in await desk.list() if one.state == "confirmed"}
        return listed, {row.stream_id for row in await store.open_work()}


@pytest.mark.evidence(
    target="poison event",
    answers=("R7.1", "G6"),
    given="a log with unfinished appointments, some of whose events are of unknown type, version or form",
    when="a process is started on it, and books more",
    then="those streams alone are set aside and named; every other one is confirmed, listed and counted",
    seen_in="list, open work, health",
)
async def test_only_the_streams_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    ids = await unfinished(tmp_path)
    bad = poison(tmp_path, ids)
    confirmed, aside = await goes_on(tmp_path)
    assert aside == set(bad)
    assert len(confirmed) == COUNT + 5 - len(bad)
    assert not confirmed & aside
    async with Orchestrator.open(settings(tmp_path)) as desk:
        found = await desk.health()
        assert {UUID(one.subject) for one in found.findings if one.kind == "undecodable"} >= aside
        for id in bad:
            with pytest.raises(HistoryError):
                await desk.show(id)


async def test_control_without_setting_aside_they_are_handed_out_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def let_be(_runtime: Runtime, _id: UUID) -> None:
        return

    monkeypatch.setattr(Runtime, "_set_aside", let_be)
    poison(tmp_path, await unfinished(tmp_path))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(goes_on(tmp_path), 2)
