"""The figures from Python: those of one's own writes, of the tenant that is asked for; a window needs an offset."""

from datetime import datetime

import pytest

from appointments.orchestrator import Orchestrator
from appointments.settings import Settings
from domain.errors import InvalidFields

SETTINGS = Settings(store="memory:", provider="local:")
WANTED = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "UTC",
    "summary": "Check-up",
}


async def test_what_was_booked_is_in_the_figures_at_once() -> None:
    async with Orchestrator.open(SETTINGS) as desk:
        await desk.book(WANTED, key="a", wait=10)
        await desk.book(WANTED, key="b", tenant="other", wait=10)
        own, other = await desk.figures(), await desk.figures(tenant="other")
        assert (own.total.confirmed, own.tenant, other.total.confirmed, other.tenant) == (1, "default", 1, "other")
        await desk.rebuild("figures")
        assert await desk.figures() == own


async def test_a_window_without_an_offset_is_refused() -> None:
    async with Orchestrator.open(SETTINGS) as desk:
        with pytest.raises(InvalidFields):
            await desk.figures(since=datetime(2031, 3, 3))  # noqa: DTZ001
