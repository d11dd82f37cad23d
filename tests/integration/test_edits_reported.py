"""Edits at real providers, reported to a desk: what the desk says afterwards is what stands there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appointments import Orchestrator, Settings
from appointments.views import Appointment
from domain.commands import Repair
from domain.errors import IllegalTransition, KeyReused
from domain.identity import operation_id
from domain.provider import LIVE, BookingDetails, Call, Found, Provider, ProviderBooking
from mocks import MockProvider
from providers.api_v2 import ApiV2Provider
from providers.caldav import CalDavProvider
from tests.contract import servers

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
ELSEWHERE = START + timedelta(days=2)
HOUR = timedelta(hours=1)
DETAILS: dict[str, Any] = {"calendar": "main", "time_zone": "Europe/Berlin", "summary": "Check-up"}


@dataclass
class Desk:
    """A desk, its provider, and somebody else who edits there."""

    desk: Orchestrator
    provider: Provider
    url: str = ""

    async def book(self) -> Appointment:
        booked = await self.desk.book({**DETAILS, "start": START, "end": START + HOUR}, key="key-1", wait=20)
        assert booked.state == "confirmed", booked
        return booked

    async def seen(self, id: object) -> ProviderBooking | None:
        found = await self.provider.find(self._call(id), "main")
        return found.booking if isinstance(found, Found) else None

    async def report(self, id: object, repair: str, key: str | None = None) -> Appointment:
        seen = await self.seen(id)
        return await self.desk.observe(str(id), seen, repair, actor="observer", reason="seen", key=key, wait=20)

    async def move(self, booked: Appointment) -> None:
        elsewhere = BookingDetails(**DETAILS, start=ELSEWHERE, end=ELSEWHERE + HOUR)
        await self.provider.reschedule(self._call(booked.id), str(booked.provider_ref), None, elsewhere)

    async def cancel(self, booked: Appointment) -> None:
        """As each provider keeps it: gone without a trace on CalDAV, kept as cancelled by /api/v2."""
        await self.provider.cancel(self._call(booked.id), "main", str(booked.provider_ref))

    async def mark_cancelled(self, booked: Appointment) -> None:
        login = {"Authorization": aiohttp.encode_basic_auth(servers.USER, servers.PASSWORD)}
        async with aiohttp.ClientSession(headers=login) as session:
            url = f"{self.url}main/{booked.provider_ref}"
            async with session.get(url) as answer:
                body = (await answer.read()).replace(b"STATUS:CONFIRMED", b"STATUS:CANCELLED")
            async with session.put(url, data=body, headers={"Content-Type": "text/calendar"}) as answer:
                assert answer.status < 300

    @staticmethod
    def _call(id: object) -> Call:
        return Call(operation_id="somebody-else", client_ref=str(id), timeout_ms=5_000)


async def _caldav(stack: AsyncExitStack, name: str, folder: Path) -> tuple[Provider, str]:
    url = await stack.enter_async_context(getattr(servers, name)(folder))
    login = (servers.USER, servers.PASSWORD)
    provider = CalDavProvider("main", url, *login, now=lambda: datetime.now(UTC), settle_ms=0)
    await provider.ensure_calendar("main")
    return provider, url


ON_CALDAV = pytest.mark.parametrize("desk", ["radicale", "xandikos"], indirect=True)
"""For what /api/v2 cannot say: it takes each reference once, and has no mark of a cancelled booking."""


@pytest.fixture(params=["radicale", "xandikos", "api-v2"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        if request.param == "api-v2":
            mock = await stack.enter_async_context(MockProvider())
            provider: Provider = ApiV2Provider("main", mock.url, settle_ms=0)
            url = ""
        else:
            provider, url = await _caldav(stack, request.param, tmp_path)
        settings = Settings(store="memory:", provider="local:", log_level="warning")
        opened = await stack.enter_async_context(Orchestrator.open(settings, providers=(provider,)))
        yield Desk(opened, provider, url)


async def test_a_move_is_adopted(desk: Desk) -> None:
    booked = await desk.book()
    await desk.move(booked)
    told = await desk.report(booked.id, "adopt")
    assert (told.state, told.start) == ("confirmed", ELSEWHERE)
    with pytest.raises(IllegalTransition, match="nothing differs"):
        await desk.report(booked.id, "adopt")
    moved = await desk.desk.reschedule(booked.id, start=START, end=START + HOUR, key="move-1", wait=20)
    assert (moved.state, moved.start, moved.detail) == ("confirmed", START, None)


async def test_a_move_is_taken_back(desk: Desk) -> None:
    booked = await desk.book()
    await desk.move(booked)
    told = await desk.report(booked.id, "restore")
    assert (told.state, told.start, told.parked) == ("confirmed", START, False)
    seen = await desk.seen(booked.id)
    assert seen is not None
    assert seen.start == START


@pytest.mark.evidence(
    target="healing",
    answers=("R8.5", "R5.1"),
    given="a booking that somebody removed at a real provider",
    when="it is reported with the policy restore",
    then="booked again, or failed where the provider does not take it",
    seen_in="calendar of the provider",
)
async def test_what_is_gone_is_booked_again_or_ends_in_truth(desk: Desk) -> None:
    """CalDAV takes the same reference again; /api/v2 takes each reference once, so there the appointment fails."""
    booked = await desk.book()
    await desk.cancel(booked)
    told = await desk.report(booked.id, "restore")
    seen = await desk.seen(booked.id)
    if isinstance(desk.provider, ApiV2Provider):
        assert (told.state, told.parked) == ("failed", False)
        assert seen is not None
        assert seen.status not in LIVE
        return
    assert told.state == "confirmed"
    assert seen is not None
    assert (seen.status in LIVE, seen.start) == (True, START)
    events = await desk.desk.events(booked.id)
    made = [e.data["operation_id"] for e in events if e.type == "step-started.v1" and e.data["step"] == "calendar"]
    assert len(made) == len(set(made)) == 2
    assert made[0] == operation_id(booked.id, "calendar", "action")  # type: ignore[arg-type]


@ON_CALDAV
async def test_what_was_marked_as_cancelled_is_booked_again_in_its_place(desk: Desk) -> None:
    booked = await desk.book()
    await desk.mark_cancelled(booked)
    assert (await desk.report(booked.id, "restore")).state == "confirmed"
    seen = await desk.seen(booked.id)
    assert seen is not None
    assert seen.status in LIVE
    moved = await desk.desk.reschedule(booked.id, start=ELSEWHERE, end=ELSEWHERE + HOUR, key="move-1", wait=20)
    assert (moved.start, moved.detail) == (ELSEWHERE, None)


async def test_a_cancellation_is_adopted(desk: Desk) -> None:
    booked = await desk.book()
    await desk.cancel(booked)
    told = await desk.report(booked.id, "adopt", key="seen-1")
    assert (told.state, told.reason) == ("cancelled", "cancelled_by_request")
    assert told.detail in ("gone from the calendar", "cancelled in the calendar")
    again = await desk.desk.observe(
        booked.id, await desk.seen(booked.id), "adopt", actor="observer", reason="seen", key="seen-1"
    )
    assert (again.replayed, again.version) == (True, told.version)
    with pytest.raises(KeyReused):
        await desk.report(booked.id, "restore", key="seen-1")


async def test_an_edit_is_parked_and_then_decided(desk: Desk) -> None:
    booked = await desk.book()
    await desk.move(booked)
    parked = await desk.report(booked.id, Repair.PARK)
    assert parked.parked
    assert "2031-03-05T09:00Z" in str(parked.parked_reason)
    told = await desk.report(booked.id, Repair.RESTORE)
    assert (told.state, told.start, told.parked) == ("confirmed", START, False)


@ON_CALDAV
async def test_a_leftover_of_an_ended_appointment_is_taken_away(desk: Desk) -> None:
    """Made by somebody under the reference of an appointment that was cancelled: only CalDAV lets that happen."""
    booked = await desk.book()
    await desk.desk.cancel(booked.id, key="cancel-1", wait=20)
    await desk.provider.create(desk._call(booked.id), BookingDetails(**DETAILS, start=START, end=START + HOUR))
    told = await desk.report(booked.id, "remove")
    assert (told.state, told.reason) == ("cancelled", "cancelled_by_request")
    assert await desk.seen(booked.id) is None
