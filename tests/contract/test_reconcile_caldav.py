"""Edits that people make with a calendar program, on real CalDAV servers: each is found, and told for what it is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from caldav.collection import Calendar
from caldav.davclient import DAVClient

from appointments import Orchestrator, Settings
from appointments.views import Appointment
from projections.reconciliation.bookmarks import Bookmark, Bookmarks
from projections.reconciliation.intended import Scope
from projections.reconciliation.model import Difference, Finding, Kind, Policy, Proposal, Report
from projections.reconciliation.run import Wanted, reconcile
from projections.reconciliation.survey import Sides
from providers.caldav import CalDavProvider
from store.memory import MemoryStore
from tests.contract import servers

pytestmark = pytest.mark.evidence(
    target="reconciliation",
    answers=("R3.3", "R8.1", "R8.5"),
    given="real CalDAV servers, edited by another client",
    when="they are compared with the log, and healed",
    then="every edit is found in its class; our own writes are none",
    seen_in="report",
)

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
SECRET = "Root canal, Ms Pat Example"
SCOPE = Scope("main", "main", "default")
FOREIGN = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//
BEGIN:VEVENT
UID:a-foreign-one
DTSTAMP:20310101T000000Z
DTSTART:20310303T080000Z
DTEND:20310303T090000Z
SUMMARY:Lunch with Kim
END:VEVENT
END:VCALENDAR
"""


@dataclass
class Clinic:
    """A desk on a CalDAV server, and the calendar program of somebody else beside it."""

    desk: Orchestrator
    store: MemoryStore
    provider: CalDavProvider
    url: str
    bookmarks: Bookmarks

    async def book(self, key: str, hours: int = 0) -> Appointment:
        start = START + timedelta(hours=hours)
        wanted = {
            "calendar": "main",
            "start": start,
            "end": start + timedelta(minutes=30),
            "time_zone": "Europe/Berlin",
        }
        booked = await self.desk.book({**wanted, "summary": SECRET}, key=key, wait=20)
        assert booked.state == "confirmed", booked
        return booked

    async def edit(self, id: object, change: Callable[[Any], None]) -> None:
        """Change an event as a calendar program does: read, change, write under its etag."""

        def work(calendar: Calendar) -> None:
            event = calendar.event_by_uid(str(id))
            with event.edit_icalendar_instance() as component:
                change(component.walk("VEVENT")[0])
            event.save()

        await self.by_hand(work)

    async def delete(self, id: object) -> None:
        await self.by_hand(lambda calendar: calendar.event_by_uid(str(id)).delete())

    async def by_hand(self, work: Callable[[Calendar], Any]) -> None:
        def run() -> None:
            with DAVClient(url=self.url, username=servers.USER, password=servers.PASSWORD, timeout=20) as client:
                work(Calendar(client=client, url=f"{self.url}main/"))

        await asyncio.to_thread(run)

    async def compared(self, **wanted: Any) -> Report:
        sides = Sides(self.store, self.provider, lambda: datetime.now(UTC))
        return await reconcile(sides, Wanted(calendar="main", **wanted), self.bookmarks)


@pytest.fixture(params=["radicale", "xandikos"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(getattr(servers, request.param)(tmp_path / "server"))
        login = (servers.USER, servers.PASSWORD)
        provider = CalDavProvider("main", url, *login, now=lambda: datetime.now(UTC), settle_ms=0)
        await provider.ensure_calendar("main")
        store = MemoryStore()
        settings = Settings(store="memory:", provider="local:", log_level="warning")
        desk = await stack.enter_async_context(Orchestrator.open(settings, providers=(provider,), store=store))
        yield Clinic(desk, store, provider, url, Bookmarks(tmp_path / "views" / "reconciliation.json"))


def moved(component: Any) -> None:
    for name in ("DTSTART", "DTEND"):
        component[name].dt += timedelta(hours=3)


def cancelled(component: Any) -> None:
    component.pop("STATUS", None)
    component.add("STATUS", "CANCELLED")


def renamed(component: Any) -> None:
    component.pop("SUMMARY")
    component.add("SUMMARY", "Something else altogether")


def one(report: Report) -> Finding:
    assert len(report.findings) == 1, report
    return report.findings[0]


async def test_every_edit_is_found_and_told_for_what_it_is(clinic: Clinic) -> None:
    ids = [(await clinic.book(f"key-{hour}", hour)).id for hour in range(6)]
    gone = await clinic.book("gone", 6)
    await clinic.desk.cancel(gone.id, key="cancel", wait=20)
    untouched = await clinic.compared()
    assert untouched.agrees
    assert (untouched.counts[Kind.MATCHED], untouched.findings, untouched.in_progress) == (7, (), 0)

    await clinic.edit(ids[0], moved)
    await clinic.edit(ids[1], cancelled)
    await clinic.delete(ids[2])
    await clinic.edit(ids[3], renamed)
    await clinic.by_hand(lambda calendar: calendar.add_event(FOREIGN))
    report = await clinic.compared(policy=Policy.RESTORE)

    found = {finding.appointment: finding for finding in report.findings}
    assert {id: found[id].kind for id in ids[:4]} == dict(
        zip(ids[:4], (Kind.DRIFTED, Kind.MISSING, Kind.MISSING, Kind.DRIFTED), strict=True)
    )
    assert [field.field for field in found[ids[0]].fields] == ["start", "end"]
    assert found[ids[0]].fields[0].there == "2031-03-03T12:00:00Z"
    assert [field.field for field in found[ids[1]].fields] == ["status"]
    assert found[ids[3]].fields == (Difference(field="summary", there="differs"),)
    assert {found[id].event.type for id in ids[:4] if found[id].event} == {"appointment-confirmed.v1"}
    assert found[None].kind is Kind.ORPHANED
    assert found[None].repair is Proposal.BY_HAND
    assert len(report.findings) == 5
    assert [found[id].repair for id in ids[:4]] == ["restore", "restore", "restore", "by_hand"]
    assert (report.counts[Kind.MATCHED], report.unchecked, report.agrees) == (3, (), False)
    for text in (SECRET, "Lunch with Kim", "Something else"):
        assert text not in report.model_dump_json()


async def test_only_what_changed_is_read_again_and_our_own_writes_are_no_edits(clinic: Clinic) -> None:
    first, second = await clinic.book("first"), await clinic.book("second", 1)
    assert (await clinic.compared()).mode == "full"
    times = {"start": START + timedelta(days=1), "end": START + timedelta(days=1, minutes=30)}
    await clinic.desk.reschedule(second.id, **times, key="move", wait=20)
    third = await clinic.book("third", 2)
    ours = await clinic.compared(changes=True)
    assert (ours.mode, ours.listed, ours.findings, ours.counts[Kind.MATCHED]) == ("changes", 2, (), 2)

    await clinic.edit(third.id, moved)
    await clinic.delete(first.id)
    report = await clinic.compared(changes=True)
    assert {finding.appointment: finding.kind for finding in report.findings} == {
        third.id: Kind.DRIFTED,
        first.id: Kind.MISSING,
    }
    again = await clinic.compared(changes=True)
    assert (again.listed, len(again.findings)) == (0, 2), "what was not mended is told again"


async def test_a_token_that_the_server_has_forgotten_costs_a_full_reading(clinic: Clinic) -> None:
    booked = await clinic.book("first")
    await clinic.compared()
    clinic.bookmarks.write(SCOPE, Bookmark(token='["no-token-of-theirs",null,""]'))
    await clinic.edit(booked.id, moved)
    report = await clinic.compared(changes=True)
    assert one(report).kind is Kind.DRIFTED
    assert (report.mode, report.note) == ("full", "the provider no longer knows where the last reading ended")
    assert (await clinic.compared(changes=True)).mode == "changes"


async def test_an_event_that_was_put_under_another_name_is_the_same_booking(clinic: Clinic) -> None:
    booked = await clinic.book("first")

    def rename(calendar: Calendar) -> None:
        event = calendar.event_by_uid(str(booked.id))
        body = event.data
        event.delete()
        calendar.client.put(f"{clinic.url}main/another-name.ics", body, {"Content-Type": "text/calendar"})

    await clinic.compared()
    await clinic.by_hand(rename)
    for changes in (True, False):
        finding = one(await clinic.compared(changes=changes, policy=Policy.RESTORE))
        assert (finding.kind, finding.provider_ref, finding.fields) == (Kind.DRIFTED, "another-name.ics", ())

    # What has gone tells only its name, and that says no longer whose it was.
    (healed,) = await clinic.desk.heal(await clinic.compared(policy=Policy.ADOPT), dry_run=False, wait=20)
    assert healed.outcome == "given"
    assert (await clinic.compared(changes=True)).agrees
    await clinic.delete(booked.id)
    for changes in (True, False):
        finding = one(await clinic.compared(changes=changes))
        assert (finding.kind, finding.appointment) == (Kind.MISSING, booked.id)


@pytest.mark.parametrize(("policy", "there"), [(Policy.RESTORE, 3), (Policy.ADOPT, 1)])
async def test_what_was_healed_agrees(clinic: Clinic, policy: Policy, there: int) -> None:
    first, second, third = [(await clinic.book(f"key-{hour}", hour)).id for hour in range(3)]
    await clinic.edit(first, moved)
    await clinic.edit(second, cancelled)
    await clinic.delete(third)
    report = await clinic.compared(policy=policy)
    assert len(report.findings) == 3
    healed = await clinic.desk.heal(report, dry_run=False, wait=20)
    assert [one.outcome for one in healed] == ["given"] * 3, healed
    after = await clinic.compared()
    assert after.agrees, after
    states = sorted([(await clinic.desk.show(id)).state for id in (first, second, third)])
    assert states == ["cancelled"] * (3 - there) + ["confirmed"] * there
    control: list[str] = []
    await clinic.by_hand(lambda calendar: control.extend(one.data for one in calendar.events()))
    live = [body for body in control if "STATUS:CANCELLED" not in body]
    assert len(live) == there
    assert all(SECRET.split(",")[0] in body for body in live)


ALPHABET = [*"aN n\\;,:\"'\t\n^%&<>[]=+-@", "é", "😀", "\u0301", "\u2028", "\u200d", "\u00a0", "\ufeff", "\u202e"]
ZONES = (
    *("Europe/Kyiv", "Europe/Kiev", "UTC", "Etc/GMT+5", "US/Eastern", "Asia/Kolkata", "Pacific/Chatham"),
    *("Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Europe/Dublin"),
)
TEXTS = ("C:\\News\\N", "\ufeffbegins with a mark", "trailing blanks   ", "\\", "é" * 255, "👩‍⚕️" * 51, "a\\,b\\;c\\nd")


def odd(rng: Random, number: int) -> dict[str, Any]:
    """A booking with content that a calendar may write otherwise than it was told."""

    def text(most: int) -> str:
        return "".join(rng.choices(ALPHABET, k=rng.randint(1, most)))

    start = datetime(2031, rng.choice((3, 10)), 1, tzinfo=UTC) + timedelta(minutes=15 * rng.randrange(3_000))
    start += timedelta(microseconds=rng.choice((0, 1, 500_000, 999_999)))
    wanted: dict[str, Any] = {"time_zone": rng.choice(ZONES), "summary": (TEXTS[number:] or (text(60),))[0]}
    if rng.random() < 0.2:
        midnight = datetime.combine(start.date(), datetime.min.time(), ZoneInfo(wanted["time_zone"]))
        start, wanted["all_day"] = midnight, True
        wanted["end"] = midnight + timedelta(days=rng.randint(1, 3))
    people = ("MailTo@Example.org", "mailto:x@example.org", "a+b@example.org", "ä@exämple.org")
    return {
        "calendar": "main",
        "start": start,
        "end": start + timedelta(minutes=rng.randint(1, 600), microseconds=rng.choice((0, 7))),
        "location": rng.choice((None, "", text(20), "Room, 1; left")),
        "attendees": [
            {"email": email, "name": rng.choice((None, "", 'O"Neil, Pat'))} for email in rng.sample(people, 2)
        ],
        "metadata": rng.choice(({}, {text(5): text(20)})),
        **wanted,
    }


async def test_whatever_content_we_booked_is_no_edit(clinic: Clinic) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    rng = Random(seed)
    asked = [odd(rng, number) for number in range(60)]
    booked = await asyncio.gather(*(clinic.desk.book(one, key=f"odd-{n}", wait=60) for n, one in enumerate(asked)))
    failed = [(one.detail, of) for one, of in zip(booked, asked, strict=True) if one.state != "confirmed"]
    assert not failed
    report = await clinic.compared()
    by_id = {one.id: fields for one, fields in zip(booked, asked, strict=True)}
    wrong = [f"{f.kind} {f.detail}: {by_id[f.appointment] if f.appointment else f}" for f in report.findings]
    assert not wrong, "\n".join(wrong)
    assert (report.agrees, report.counts[Kind.MATCHED]) == (True, len(asked))


async def test_an_entry_that_can_no_longer_be_read_is_not_taken_for_matched(clinic: Clinic) -> None:
    booked = await clinic.book("first")

    def spoil(calendar: Calendar) -> None:
        zone = "TZID=Nowhere/Nobody:20310303T100000"
        body = FOREIGN.replace("a-foreign-one", str(booked.id)).replace("DTSTART:20310303T080000Z", f"DTSTART;{zone}")
        calendar.client.put(f"{clinic.url}main/{booked.id}.ics", body, {"Content-Type": "text/calendar"})

    await clinic.compared()
    await clinic.by_hand(spoil)
    for changes in (False, True):
        report = await clinic.compared(changes=changes)
        assert [entry.appointment for entry in report.unchecked] == [booked.id]
        assert (report.agrees, report.findings, report.counts[Kind.MATCHED]) == (False, (), 0)
