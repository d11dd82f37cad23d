"""One booking, one appointment: what looks alike, what is on its way, and what another run or line was about."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import PROVIDER_GONE

from appointments import Orchestrator, Settings
from appointments.migration import backfill as module
from appointments.migration import standing
from appointments.migration.backfill import HELD, MAYBE_OURS, Backfill, Backfilled, Outcome
from appointments.migration.records import Candidate, Defaults, Entry, LeftOut, from_listing
from appointments.migration.standing import Standing
from domain.commands import BookAppointment
from domain.errors import InvalidFields, ProviderUnavailable
from domain.provider import BookingStatus, ProviderBooking
from mocks.server import MockProvider
from tests.contract.mock_client import Client

WANTED: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T10:00:00Z",
    "time_zone": "UTC",
    "summary": "Check-up",
}
PEOPLE = {"organizer": {"email": "desk@example.org"}, "attendees": [{"email": "ada@example.org"}]}
SEEN_WITHIN_S = 5.0


async def each(entries: Iterable[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry


def candidate(where: str, ref: str, key: str, client_ref: str = "", **otherwise: Any) -> Candidate:
    booking = ProviderBooking(provider_ref=ref, client_ref=client_ref, status=BookingStatus.ACCEPTED)
    return Candidate(where, key, BookAppointment.model_validate(WANTED | otherwise), booking)


@dataclass
class Office:
    """A desk, and the provider at which the legacy system books too."""

    desk: Orchestrator
    mock: MockProvider

    async def legacy_books(self, calendar: str = "main", **otherwise: Any) -> str:
        body = {name: value for name, value in (WANTED | PEOPLE | otherwise).items() if name != "calendar"}
        async with Client(self.mock.url) as client:
            made = (await client.send("POST", "/bookings", json={**body, "calendar_id": calendar})).json
        return str(made["id"])

    async def fill(self, *entries: Entry, apply: bool = True, checked: bool = False) -> list[Backfilled]:
        told: list[Backfilled] = []
        run = Backfill(self.desk, Defaults(), told.append, apply=apply)
        await run.run(each(entries), Standing(self.desk) if checked else None)
        return told

    async def from_listing(self) -> Counter[str]:
        told: list[Backfilled] = []
        run = Backfill(self.desk, Defaults(), told.append, apply=True)
        await run.run(from_listing(self.desk.provider("main"), Defaults()))
        return Counter(one.reason or str(one.outcome) for one in told)

    async def until_live(self, count: int) -> None:
        async with asyncio.timeout(SEEN_WITHIN_S):
            while self.mock.live() < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider(lenient=True) as served:
        yield served


@pytest.fixture
async def office(mock: MockProvider, tmp_path: Path) -> AsyncIterator[Office]:
    settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider=mock.url, log_level="warning")
    async with Orchestrator.open(settings) as desk:
        yield Office(desk, mock)


def outcomes(told: list[Backfilled]) -> list[str]:
    return [str(one.outcome) for one in told]


class TestTwoThatLookAlike:
    """One key and one content, and two bookings: nothing of the second may be lost without a word."""

    @pytest.mark.parametrize("apply", [False, True])
    async def test_the_second_line_is_refused_in_a_dry_run_too(self, office: Office, apply: bool) -> None:
        told = await office.fill(candidate("f:1", "bk_1", "k"), candidate("f:2", "bk_2", "k"), apply=apply)
        assert outcomes(told) == ["imported", "refused"]
        assert told[1].reason is not None
        assert told[1].reason.startswith("/key: the same key as f:1")

    @pytest.mark.parametrize("apply", [False, True])
    async def test_so_is_that_of_a_later_run(self, office: Office, apply: bool) -> None:
        await office.fill(candidate("f:1", "bk_1", "k"))
        told = await office.fill(candidate("g:1", "bk_2", "k"), apply=apply)
        assert outcomes(told) == ["refused"]
        assert "it stands for another booking" in (told[0].reason or "")

    async def test_so_is_one_whose_key_has_booked_here(self, office: Office) -> None:
        await office.desk.book(WANTED | PEOPLE, key="k", wait=5)
        told = await office.fill(candidate("f:1", "bk_theirs", "k", **PEOPLE))
        assert outcomes(told) == ["refused"]

    async def test_what_was_moved_to_another_reference_since_is_still_there(self, office: Office) -> None:
        ref = await office.legacy_books()
        (taken,) = await office.fill(candidate("f:1", ref, "k"))
        assert taken.appointment is not None
        await office.desk.reschedule(
            taken.appointment, start="2031-03-04T09:00:00Z", end="2031-03-04T10:00:00Z", key="move", wait=5
        )
        assert outcomes(await office.fill(candidate("f:1", ref, "k"))) == ["already_there"]


class TestOnItsWay:
    """A booking that the provider has made, and whose answer is not in the log as yet."""

    async def test_our_own_is_known_by_its_reference(self, office: Office) -> None:
        office.mock.script("create", "delayed", delay_ms=700, apply="before", times=1)
        begun = await office.desk.book(WANTED | PEOPLE, key="ours")
        await office.until_live(1)
        assert (await office.desk.show(begun.id)).provider_ref is None, "the answer came too early for this test"
        assert await office.from_listing() == {HELD: 1}
        assert (await office.desk.show(begun.id, wait=5)).state == "confirmed"
        assert [one.id for one in await office.desk.list()] == [begun.id]
        assert (await office.desk.reconcile("main")).agrees

    async def test_one_that_the_legacy_system_is_asked_for_is_left_to_its_appointment(
        self, mock: MockProvider, tmp_path: Path
    ) -> None:
        settings = Settings(
            store=f"sqlite:///{tmp_path}/desk.db", provider=mock.url, legacy=mock.url, log_level="warning"
        )
        async with Orchestrator.open(settings) as desk:
            office = Office(desk, mock)
            mock.script("create", "delayed", delay_ms=700, apply="before", times=1)
            begun = await desk.book(WANTED | PEOPLE, key="led")
            await office.until_live(1)
            other = await office.legacy_books(start="2031-03-05T09:00:00Z", end="2031-03-05T10:00:00Z")
            assert (await desk.show(begun.id)).provider_ref is None, "the answer came too early for this test"
            assert await office.from_listing() == {MAYBE_OURS: 1, "imported": 1}
            assert (await desk.show(begun.id, wait=5)).state == "confirmed"
            assert {one.provider_ref for one in await desk.list()} > {other}
            assert await office.from_listing() == {HELD: 1, "already_there": 1}
            assert (await desk.reconcile("main")).agrees


class TestHeldAgainstTheCalendar:
    async def test_each_record_is_held_against_its_own_calendar(self, office: Office) -> None:
        north = await office.legacy_books("north")
        told = await office.fill(
            candidate("f:1", north, "a", calendar="north"), candidate("f:2", north, "b", calendar="south"), checked=True
        )
        assert outcomes(told) == ["imported", "refused"]
        assert told[1].reason == f"/provider_ref: no booking {north} is in the calendar 'south'"

    async def test_a_reference_that_is_another_one_there_is_refused(self, office: Office) -> None:
        ref = await office.legacy_books(client_ref="legacy-0001")
        assert outcomes(await office.fill(candidate("f:1", ref, "a", "legacy-0002"), checked=True)) == ["refused"]
        assert outcomes(await office.fill(candidate("f:1", ref, "a", "legacy-0001"), checked=True)) == ["imported"]

    async def test_what_cannot_be_looked_at_is_not_taken_over(self, mock: MockProvider) -> None:
        async with Orchestrator.open(Settings(store="memory:", provider=PROVIDER_GONE)) as desk:
            with pytest.raises(ProviderUnavailable, match="records cannot be held against calendar 'main'"):
                await Office(desk, mock).fill(candidate("f:1", "bk_1", "a"), checked=True)
            assert not (await desk.list()).items

    async def test_so_many_calendars_are_read_and_no_more(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standing, "CALENDARS_MAX", 1)
        refs = [await office.legacy_books(calendar) for calendar in ("north", "south")]
        told = await office.fill(
            *(candidate(ref, ref, ref, calendar=name) for ref, name in zip(refs, ("north", "south"), strict=True)),
            checked=True,
        )
        assert outcomes(told) == ["imported", "refused"]
        assert "at most 1 calendars" in (told[1].reason or "")

    async def test_a_calendar_that_is_too_large_ends_the_run(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standing, "BOOKINGS_MAX", 2)
        refs = [await office.legacy_books(name) for name in ("north", "south", "south")]
        with pytest.raises(standing.TooMany, match="against calendar 'south'"):
            await office.fill(
                candidate("f:1", refs[0], "a", calendar="north"),
                candidate("f:2", refs[1], "b", calendar="south"),
                checked=True,
            )


class TestOneRun:
    async def test_a_dry_run_says_what_is_then_done(self, office: Office) -> None:
        await office.fill(candidate("f:1", "bk_0", "held"))
        entries: list[Entry] = [
            candidate("g:1", "bk_1", "a"),
            candidate("g:2", "bk_1", "b"),
            candidate("g:3", "bk_2", "a"),
            candidate("g:4", "bk_0", "c"),
            candidate("g:5", "bk_3", "held", summary="Other"),
            LeftOut("g:6", "the booking is pending", skipped=True),
            candidate("g:7", "bk_0", "held"),
        ]
        dry = await office.fill(*entries, apply=False)
        assert dry == await office.fill(*entries)
        assert Counter(outcomes(dry)) == {"imported": 1, "refused": 4, "skipped": 2}

    async def test_a_history_that_cannot_be_read_is_one_refusal(self, mock: MockProvider, tmp_path: Path) -> None:
        settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider=mock.url, log_level="warning")
        async with Orchestrator.open(settings) as desk:
            (taken,) = await Office(desk, mock).fill(candidate("f:1", "bk_1", "a"))
            assert taken.appointment is not None
        with sqlite3.connect(tmp_path / "desk.db") as connection:
            connection.execute(
                "UPDATE events SET body = CAST('{' AS BLOB) WHERE stream_id = ?", (taken.appointment.bytes,)
            )
        connection.close()
        async with Orchestrator.open(settings) as desk:
            told = await Office(desk, mock).fill(candidate("f:1", "bk_2", "a"), candidate("f:2", "bk_3", "b"))
        assert outcomes(told) == ["refused", "imported"]
        assert "cannot be read" in (told[0].reason or "")

    async def test_a_run_has_an_end(self, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ENTRIES_MAX", 2)
        entries = [candidate(f"f:{n}", f"bk_{n}", f"k{n}") for n in range(3)]
        with pytest.raises(InvalidFields, match="one run takes 2 entries"):
            await office.fill(*entries)
        assert len(await office.desk.list()) == 2

    async def test_reasons_are_counted(self, office: Office) -> None:
        left = [LeftOut(f"f:{n}", "the booking is cancelled", skipped=True) for n in range(3)]
        run = Backfill(office.desk, Defaults(), lambda _one: None, apply=True)
        await run.run(each([*left, LeftOut("f:9", "/id: no id")]))
        assert run.skipped == {"the booking is cancelled": 3}
        assert run.counts == {Outcome.SKIPPED: 3, Outcome.REFUSED: 1}
