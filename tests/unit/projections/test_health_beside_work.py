"""The check beside the process that writes: what moves while it looks is no finding."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appointments import Orchestrator, Settings
from domain.commands import BookAppointment
from projections import health as checks
from projections.health import health
from providers.local import LocalProvider
from store.sqlite import SqliteStore

BOOK = BookAppointment.model_validate(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "UTC",
        "summary": "x",
        "attendees": [{"email": "pat@example.org"}],
    }
)
ROUNDS = 40


async def findings_beside_work(log: Path) -> list[str]:
    """What checks find, one after another, while appointments are booked and cancelled as fast as it goes."""
    settings = Settings(store=f"sqlite:///{log}", provider="local:", log_level="error")
    found: list[str] = []
    async with Orchestrator.open(settings, providers=(LocalProvider("main"),)) as desk:

        async def busy(client: int) -> None:
            for n in range(ROUNDS):
                booked = await desk.book(BOOK, key=f"{client}-{n}", wait=30)
                await desk.cancel(booked.id, key="cancel", wait=30)

        working = asyncio.gather(*(busy(client) for client in range(8)))
        reader = SqliteStore.open(log, "checker", read_only=True)
        while not working.done():
            seen = await health(reader, datetime.now(UTC), desk.runtime.runs)
            found += [f"{one.kind} {one.subject} {one.detail}" for one in seen.findings]
        await working
        await reader.close()
        assert (await desk.health()).ok
    return found


async def test_work_under_way_is_no_finding(tmp_path: Path) -> None:
    assert await findings_beside_work(tmp_path / "x.db") == []


async def test_without_a_second_look_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(checks, "LOOKS_MAX", 0)
    assert await findings_beside_work(tmp_path / "x.db") != []
