"""Two tenants keep their bookings in one calendar: a report tells each only what belongs to it, readable or not."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from domain.events import PersonalDataErased
from mocks import MockProvider
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.model import Kind, Report
from projections.reconciliation.run import OWNERLESS, UNREADABLE, Wanted, reconcile
from projections.reconciliation.survey import Sides
from providers.api_v2 import ApiV2Provider
from store.mapper import encode
from store.port import Append
from store.sqlite import SqliteStore

pytestmark = pytest.mark.evidence(
    target="reconciliation",
    answers=("R3.3", "R8.1"),
    given="a calendar that two tenants share, and histories of one that cannot be read",
    when="each compares it, all of it or what has changed",
    then="neither is told how many bookings the other has, nor any id of them",
    seen_in="report",
)

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
BOOKINGS = {"ours": 2, "theirs": 3}
LATER = "UPDATE events SET type = 'from-the-future.v9' WHERE stream_id = ? AND version = 3"
ROW = "UPDATE events SET body = 'x' WHERE stream_id = ? AND version = 3"
LAST_ROW = (
    "UPDATE events SET body = 'x' "
    "WHERE stream_id = ?1 AND version = (SELECT max(version) FROM events WHERE stream_id = ?1)"
)
FIRST_ROW = "UPDATE events SET body = 'x' WHERE stream_id = ? AND version = 1"
LAST_OF_NO_STREAM = LAST_ROW.replace("body = 'x'", "stream_id = x'00'")
WHOLLY = "UPDATE events SET body = x'00' WHERE stream_id = ? AND version = 1"


class Clinic:
    """A store and a calendar that two tenants share."""

    def __init__(self, folder: Path, mock: MockProvider) -> None:
        self._folder, self._mock = folder, mock
        self.sides = self._sides()
        self.ids: dict[str, list[str]] = {}

    def _sides(self) -> Sides:
        provider = ApiV2Provider("main", self._mock.url, settle_ms=0)
        store = SqliteStore.open(self._folder / "log.db", owner="test")
        return Sides(store, provider, lambda: datetime.now(UTC))

    async def book(self, tenant: str, key: str) -> None:
        settings = Settings(store="memory:", provider="local:", log_level="warning")
        wanted = {"calendar": "main", "start": START, "end": START + timedelta(hours=1), "time_zone": "UTC"}
        store, provider = self.sides.store, self.sides.provider
        async with Orchestrator.open(settings, providers=(provider,), store=store) as desk:
            booked = await desk.book({**wanted, "summary": "Check-up"}, key=key, tenant=tenant, wait=20)
            assert booked.state == "confirmed"
        self.ids.setdefault(tenant, []).append(str(booked.id))
        self.sides = self._sides()

    def damage(self, statement: str, id: str) -> None:
        with closing(sqlite3.connect(self._folder / "log.db")) as connection, connection:
            assert connection.execute(statement, (bytes.fromhex(id.replace("-", "")),)).rowcount == 1

    async def compared(self, tenant: str, **wanted: Any) -> Report:
        bookmarks = Bookmarks(self._folder / "reconciliation.json")
        report = await reconcile(self.sides, Wanted(calendar="main", tenant=tenant, **wanted), bookmarks)
        told = report.model_dump_json()
        others = [id for other, ids in self.ids.items() if other != tenant for id in ids]
        assert [id for id in others if id in told] == []
        return report


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with MockProvider() as mock:
        made = Clinic(tmp_path, mock)
        for tenant, many in BOOKINGS.items():
            for n in range(many):
                await made.book(tenant, f"key-{n}")
        yield made
        await made.sides.store.close()
        await made.sides.provider.close()


async def test_each_is_told_of_its_own_bookings_alone(clinic: Clinic) -> None:
    for tenant, many in BOOKINGS.items():
        report = await clinic.compared(tenant)
        assert (report.listed, report.counts[Kind.MATCHED], report.agrees) == (many, many, True)


@pytest.mark.parametrize("damage", [LATER, ROW, LAST_ROW], ids=["an event", "a row", "the last row"])
async def test_what_the_other_cannot_read_is_told_to_the_other(clinic: Clinic, damage: str) -> None:
    clinic.damage(damage, clinic.ids["theirs"][0])
    ours, theirs = await clinic.compared("ours"), await clinic.compared("theirs")
    assert (ours.listed, ours.unchecked, ours.agrees) == (2, (), True)
    assert [(str(one.appointment), one.reason) for one in theirs.unchecked] == [(clinic.ids["theirs"][0], UNREADABLE)]
    assert (theirs.listed, theirs.counts[Kind.MATCHED]) == (3, 2)


@pytest.mark.parametrize("damage", [WHOLLY, FIRST_ROW], ids=["an event", "a row"])
async def test_what_may_be_anybody_s_is_told_without_its_id(clinic: Clinic, damage: str) -> None:
    """Nothing is hidden: a report on a log that cannot be read does not agree."""
    clinic.damage(damage, clinic.ids["theirs"][0])
    for tenant, many in (("ours", 2), ("theirs", 2)):
        report = await clinic.compared(tenant)
        assert (report.listed, report.counts[Kind.MATCHED]) == (many, many)
        assert [(one.appointment, one.provider_ref, one.reason) for one in report.unchecked] == [
            (None, None, OWNERLESS)
        ]


async def test_a_row_that_does_not_tell_even_its_stream_is_nobody_s(clinic: Clinic) -> None:
    clinic.damage(LAST_OF_NO_STREAM, clinic.ids["theirs"][0])
    for tenant in BOOKINGS:
        assert OWNERLESS in [one.reason for one in (await clinic.compared(tenant)).unchecked]


async def test_what_was_lost_behind_a_state_that_would_match_is_missed_too(clinic: Clinic) -> None:
    id, store = clinic.ids["ours"][0], clinic.sides.store
    version = len(await store.events(UUID(id)))
    said = PersonalDataErased(at=START, actor="op", reference="request-1")
    await store.append(Append(UUID(id), version, (encode(UUID(id), version + 1, said),), touches_work=False))
    clinic.damage(LAST_ROW, id)
    report = await clinic.compared("ours")
    assert [(str(one.appointment), one.reason) for one in report.unchecked] == [(id, UNREADABLE)]
    assert report.counts[Kind.MATCHED] == 1


async def test_every_history_that_lost_a_row_is_counted(clinic: Clinic) -> None:
    for id in clinic.ids["theirs"][:2]:
        clinic.damage(ROW, id)
    clinic.damage(LAST_ROW, clinic.ids["ours"][0])
    for tenant, many in (("ours", 1), ("theirs", 2)):
        report = await clinic.compared(tenant)
        assert sorted(str(one.appointment) for one in report.unchecked) == sorted(clinic.ids[tenant][:many])
        assert (report.counts[Kind.MATCHED], report.differences) == (1, 0)


@pytest.mark.parametrize(
    ("statement", "unchecked"),
    [(None, 0), (LATER, 0), (WHOLLY, 1), (ROW, 0), (FIRST_ROW, 1)],
    ids=["whole", "a later event", "the first event", "a later row", "the first row"],
)
async def test_of_what_has_changed_each_is_told_its_own_alone(
    clinic: Clinic, statement: str | None, unchecked: int
) -> None:
    assert (await clinic.compared("ours", changes=True)).listed == 2
    await clinic.book("ours", "later")
    await clinic.book("theirs", "later")
    if statement is not None:
        clinic.damage(statement, clinic.ids["theirs"][-1])
    report = await clinic.compared("ours", changes=True)
    assert (report.mode, report.listed, report.checked_again, report.counts[Kind.MATCHED]) == ("changes", 1, 1, 1)
    assert len(report.unchecked) == unchecked
