"""Backfill: what the legacy system has booked is taken over, each booking once, and nothing that is not so."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from caldav.collection import Calendar
from caldav.davclient import DAVClient

from appointments import Orchestrator, Settings
from appointments.migration import backfill
from appointments.migration.records import Defaults, Entry, from_lines, from_listing
from appointments.migration.standing import Standing
from domain.identity import appointment_id
from mocks.server import MockProvider
from projections.reconciliation.model import Kind
from providers.caldav import CalDavProvider
from tests.contract import servers
from tests.contract.mock_client import Client

pytestmark = pytest.mark.evidence(
    target="backfill",
    answers=("R6.7",),
    given="bookings that the legacy system made, without a reference",
    when="its records, or the provider's listing, are taken over",
    then="each is an appointment once, and what does not stand there is refused",
    seen_in="the report, the list, reconciliation",
)

ROOT = Path(__file__).resolve().parents[2]
COUNT = 12


def day(n: int) -> dict[str, str]:
    return {"start": f"2031-03-{n + 1:02d}T09:00:00Z", "end": f"2031-03-{n + 1:02d}T10:00:00Z", "time_zone": "UTC"}


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider(lenient=True) as served:
        yield served


@pytest.fixture
async def booked(mock: MockProvider) -> list[dict[str, Any]]:
    """What the legacy system has booked by its bare call, as the provider answered."""
    async with Client(mock.url) as client:
        made = []
        for n in range(COUNT):
            who = {"organizer": {"email": "desk@example.org"}, "attendees": [{"email": f"a{n}@example.org"}]}
            body = {"calendar_id": "main", "summary": f"Visit {n}", **day(n), **who}
            made.append((await client.send("POST", "/bookings", json=body)).json)
        return made


def record(n: int, booking: dict[str, Any], **otherwise: Any) -> dict[str, Any]:
    told = {"id": f"A-{n}", "summary": f"Visit {n}", "provider_ref": booking["id"], "calendar": "main"}
    return {**told, **day(n), "attendees": [{"email": f"a{n}@example.org"}], **otherwise}


class Desk:
    """The command line on one store and provider."""

    def __init__(self, folder: Path, mock: MockProvider) -> None:
        self.folder, self.mock = folder, mock
        self.settings = Settings(store=f"sqlite:///{folder}/desk.db", provider=mock.url, log_level="warning")

    def write(self, *lines: dict[str, Any] | str) -> Path:
        file = self.folder / "legacy.jsonl"
        text = (one if isinstance(one, str) else json.dumps(one) for one in lines)
        file.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return file

    async def run(self, *words: str | Path, fails: int = 0) -> dict[str, int]:
        command = [sys.executable, "-m", "appointments.cli", "backfill", *map(str, words), "--json"]
        where = ["--store", self.settings.store, "--provider", self.mock.url]
        done = await asyncio.to_thread(
            subprocess.run, [*command, *where], cwd=ROOT, env=os.environ, capture_output=True, text=True
        )
        assert done.returncode == fails, done.stdout + done.stderr
        self.said = done.stdout + done.stderr
        if fails:
            return {}
        self.document = json.loads(done.stdout)
        return dict(self.document["counts"])

    async def shown(self, *words: str | Path) -> str:
        command = [sys.executable, "-m", "appointments.cli", "backfill", *map(str, words)]
        where = ["--store", self.settings.store, "--provider", self.mock.url]
        done = await asyncio.to_thread(
            subprocess.run, [*command, *where], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
        )
        return done.stdout

    async def items(self) -> list[Any]:
        async with Orchestrator.open(self.settings) as desk:
            return list(await desk.list())

    async def kinds(self) -> dict[Kind, int]:
        async with Orchestrator.open(self.settings) as desk:
            report = await desk.reconcile("main")
        return {kind: count for kind, count in report.counts.items() if count}


@pytest.fixture
def desk(tmp_path: Path, mock: MockProvider) -> Desk:
    return Desk(tmp_path, mock)


def counts(**some: int) -> dict[str, int]:
    return {"imported": 0, "already_there": 0, "skipped": 0, "refused": 0, **some}


class TestRecords:
    async def test_a_dry_run_writes_nothing_and_tells_what_would_come(self, desk: Desk, booked: list[Any]) -> None:
        file = desk.write(*(record(n, one) for n, one in enumerate(booked)))
        assert await desk.run(file) == counts(imported=COUNT)
        assert not (desk.folder / "desk.db").exists()

    async def test_applied_each_is_confirmed_and_a_second_run_finds_them(self, desk: Desk, booked: list[Any]) -> None:
        file = desk.write(*(record(n, one) for n, one in enumerate(booked)))
        calls = desk.mock.calls()["create"]
        assert await desk.run(file, "--apply") == counts(imported=COUNT)
        assert await desk.run(file, "--apply") == counts(already_there=COUNT)
        assert await desk.run(file) == counts(already_there=COUNT)
        found = await desk.items()
        assert {(one.state, one.provider_ref) for one in found} == {("confirmed", one["id"]) for one in booked}
        assert desk.mock.calls()["create"] == calls
        assert await desk.kinds() == {Kind.MATCHED: COUNT}

    async def test_clients_find_it_under_the_key_that_they_know(self, desk: Desk, booked: list[Any]) -> None:
        file = desk.write(record(0, booked[0], key="order-4711"), record(1, booked[1]))
        await desk.run(file, "--apply")
        ids = {one.id for one in await desk.items()}
        assert ids == {appointment_id("default", "order-4711"), appointment_id("default", "legacy:A-1")}

    async def test_what_does_not_stand_as_it_says_is_refused_and_named(self, desk: Desk, booked: list[Any]) -> None:
        gone, cancelled = record(0, {"id": "bk_nowhere"}), record(1, booked[1])
        async with Client(desk.mock.url) as client:
            await client.send("POST", f"/bookings/{booked[1]['id']}/cancel", key="by-hand-0001")
        moved = record(2, booked[2], **day(9))
        report = desk.folder / "report.jsonl"
        file = desk.write(gone, cancelled, moved, record(3, booked[3]))
        assert await desk.run(file, "--apply", "--report", report) == counts(imported=1, refused=3)
        told = [json.loads(line) for line in report.read_text().splitlines()]
        assert [(one["where"], one["outcome"]) for one in told] == [
            ("legacy.jsonl:1", "refused"),
            ("legacy.jsonl:2", "refused"),
            ("legacy.jsonl:3", "refused"),
            ("legacy.jsonl:4", "imported"),
        ]
        assert "bk_nowhere" in told[0]["reason"]
        assert "cancelled in the calendar" in told[1]["reason"]
        assert "it stands in the calendar from" in told[2]["reason"]
        assert desk.document["refused"] == told[:3]

    async def test_people_are_told_each_refusal_in_a_line_and_the_skipped_by_reason(
        self, desk: Desk, booked: list[Any]
    ) -> None:
        left = [record(n, booked[n], status="cancelled") for n in (1, 2)]
        file = desk.write(record(0, booked[0]), "{", *left)
        said = await desk.shown(file, "--apply")
        assert "legacy.jsonl:2: refused: not JSON" in said
        rows = [line.split() for line in said.splitlines()]
        assert ["the", "booking", "is", "cancelled", "2"] in rows
        assert ["taken", "over", "1"] in rows

    async def test_unchecked_a_record_is_believed(self, desk: Desk, booked: list[Any]) -> None:
        """The control of the test before: without the look, what is not there would be confirmed."""
        file = desk.write(record(0, {"id": "bk_nowhere"}))
        assert await desk.run(file, "--apply", "--unchecked") == counts(imported=1)
        assert [one.state for one in await desk.items()] == ["confirmed"]

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("{", "not JSON"),
            ("[]", "no JSON object"),
            ('{"id": "x", "id": "y"}', "stands there twice"),
            ('{"id": "x"}', "/provider_ref: Field required"),
            ('{"id": "x", "provider_ref": "b", "sumary": "?"}', "/sumary: Extra inputs"),
            ("x" * 70_000, "longer than"),
        ],
    )
    async def test_a_line_that_is_no_record_is_refused_and_stops_no_other(
        self, desk: Desk, booked: list[Any], line: str, why: str
    ) -> None:
        report = desk.folder / "report.jsonl"
        file = desk.write(record(0, booked[0]), line)
        assert await desk.run(file, "--apply", "--report", report) == counts(imported=1, refused=1)
        (refused,) = (json.loads(one) for one in report.read_text().splitlines() if "refused" in one)
        assert refused["where"] == "legacy.jsonl:2"
        assert why in refused["reason"]

    async def test_two_records_of_one_booking_are_one_appointment(self, desk: Desk, booked: list[Any]) -> None:
        file = desk.write(record(0, booked[0]), record(0, booked[0], id="A-again"))
        assert await desk.run(file, "--apply") == counts(imported=1, refused=1)
        assert len(await desk.items()) == 1

    async def test_a_name_is_that_of_its_calendar_alone(self, desk: Desk, booked: list[Any]) -> None:
        """Files of one name may lie in two calendars: two bookings."""
        two = (record(0, booked[0]), record(1, booked[0], id="B-1", calendar="other"))
        file = desk.write(*two)
        assert await desk.run(file, "--apply", "--unchecked") == counts(imported=2)
        assert await desk.run(file, "--apply", "--unchecked") == counts(already_there=2)

    async def test_a_booking_that_an_appointment_holds_is_left_to_it(self, desk: Desk, booked: list[Any]) -> None:
        await desk.run(desk.write(record(0, booked[0])), "--apply")
        other = desk.write(record(0, booked[0], id="B-0"))
        assert await desk.run(other, "--apply") == counts(skipped=1)
        assert len(await desk.items()) == 1

    async def test_a_key_that_was_used_for_something_else_is_refused(self, desk: Desk, booked: list[Any]) -> None:
        await desk.run(desk.write(record(0, booked[0], key="k")), "--apply")
        other = desk.write(record(1, booked[1], key="k"))
        for apply in ((), ("--apply",)):
            assert await desk.run(other, *apply) == counts(refused=1)

    async def test_bad_input_is_refused_before_anything(self, desk: Desk) -> None:
        for words in (("nowhere.jsonl",), ("--time-zone", "Mars/Base"), ("--source", "A B"), ("--report", "/no/such")):
            await desk.run(*words, fails=2)


class TestListing:
    async def test_what_stands_there_is_taken_over_but_for_our_own(self, desk: Desk, booked: list[Any]) -> None:
        async with Orchestrator.open(desk.settings) as opened:
            wanted = {"calendar": "main", "summary": "Ours", **day(20)}
            ours = await opened.book(wanted, key="ours", wait=10)
        async with Client(desk.mock.url) as client:
            await client.send("POST", f"/bookings/{booked[0]['id']}/cancel", key="by-hand-0001")
        assert await desk.run("--apply") == counts(imported=COUNT - 1, skipped=2)
        assert await desk.run("--apply", "--time-zone", "Europe/Berlin") == counts(already_there=COUNT - 1, skipped=2)
        assert {one.provider_ref for one in await desk.items()} == {one["id"] for one in booked[1:]} | {
            ours.provider_ref
        }
        assert await desk.kinds() == {Kind.MATCHED: COUNT}


KILLED = """
import os, signal
from appointments.cli import main
from appointments.migration import backfill
from appointments.orchestrator import Orchestrator
backfill.BATCH = 4
give, given = Orchestrator.import_booking, []
async def killed(self, command, **who):
    given.append(await give(self, command, **who))
    if len(given) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return given[-1]
Orchestrator.import_booking = killed
main()
"""


async def logged(settings: Settings) -> dict[UUID, list[Any]]:
    """What the log says of each appointment, but for when."""
    async with Orchestrator.open(settings) as desk:
        trails = {one.id: await desk.events(one.id) for one in await desk.list()}
    return {
        id: [(event.version, event.type, {**event.data, "at": None}) for event in trail] for id, trail in trails.items()
    }


@pytest.mark.parametrize("after", [1, 6, COUNT])
async def test_killed_in_the_middle_of_a_batch_and_run_again_it_ends_with_the_same_log(
    desk: Desk, booked: list[Any], tmp_path: Path, after: int
) -> None:
    file = desk.write(*(record(n, one) for n, one in enumerate(booked)))
    words = ["backfill", str(file), "--apply", "--store", desk.settings.store, "--provider", desk.mock.url]
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED.format(after=after), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = len(await desk.items())
    assert after <= before <= COUNT
    assert await desk.run(file, "--apply") == counts(imported=COUNT - before, already_there=before)
    whole = Settings(store=f"sqlite:///{tmp_path}/whole.db", provider=desk.mock.url, log_level="warning")
    async with Orchestrator.open(whole) as opened:
        run = backfill.Backfill(opened, Defaults(), lambda _one: None, apply=True)
        await run.run(given(file), Standing(opened))
    assert await logged(desk.settings) == await logged(whole)
    assert await desk.kinds() == {Kind.MATCHED: COUNT}


async def given(file: Path) -> AsyncIterator[Entry]:
    for entry in from_lines(file, Defaults()):
        yield entry


def event(uid: str, *lines: str) -> str:
    named = (f"UID:{uid}", "DTSTAMP:20310101T000000Z", *lines)
    whole = ("BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//", "BEGIN:VEVENT", *named, "END:VEVENT")
    return "\r\n".join((*whole, "END:VCALENDAR", ""))


TIMES = ("DTSTART:20310303T080000Z", "DTEND:20310303T090000Z")
BY_HAND = {
    "lunch": event("lunch", *TIMES, "SUMMARY:Lunch with Kim"),
    "emoji": event("1f0cbbd2-9d4a-4f6e-8d4b-0e51a4f2f7a1", *TIMES, "SUMMARY:👩\u200d⚕️  and  Pat"),
    "gone": event("gone", *TIMES, "SUMMARY:Not any more", "STATUS:CANCELLED"),
    "untitled": event("untitled", *TIMES),
    "timeless": event("timeless", "DTSTART:not-a-time", "SUMMARY:Some day"),
    "long": event("long", *TIMES, f"SUMMARY:{'x' * 300}"),
}


async def test_a_real_calendar_is_taken_over_and_then_agrees(tmp_path: Path) -> None:
    """Events that a calendar program has made on Radicale, and one of ours among them."""
    async with servers.radicale(tmp_path / "server") as url:
        login = (servers.USER, servers.PASSWORD)
        provider = CalDavProvider("main", url, *login, now=lambda: datetime.now(UTC), settle_ms=0)
        await provider.ensure_calendar("main")

        def by_hand() -> None:
            with DAVClient(url=url, username=servers.USER, password=servers.PASSWORD, timeout=20) as client:
                calendar = Calendar(client=client, url=f"{url}main/")
                for name in ("lunch", "emoji", "gone", "untitled"):
                    calendar.add_event(BY_HAND[name])
                for name in ("long", "timeless"):
                    client.put(f"{url}main/{name} of Kim.ics", BY_HAND[name], {"Content-Type": "text/calendar"})

        await asyncio.to_thread(by_hand)
        settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider="local:", log_level="warning")
        async with Orchestrator.open(settings, providers=(provider,)) as opened:
            ours = await opened.book({"calendar": "main", "summary": "Ours", **day(1)}, key="ours", wait=20)
            assert ours.state == "confirmed"
            told: list[backfill.Backfilled] = []
            for again in ("imported", "already_there"):
                told.clear()
                run = backfill.Backfill(opened, Defaults(), told.append, apply=True)
                await run.run(from_listing(provider, Defaults()))
                assert run.counts[backfill.Outcome(again)] == 2
            assert run.skipped[backfill.HELD] == 1
            refused = sorted(one.reason or "" for one in told if one.outcome is backfill.Outcome.REFUSED)
            assert any(reason.startswith("/summary: the listing tells none") for reason in refused)
            assert any("255" in reason for reason in refused)
            found = {one.summary: one for one in await opened.list()}
            assert found.keys() == {"Lunch with Kim", "👩\u200d⚕️ and Pat", "Ours"}

            report = await opened.reconcile("main")
            assert report.counts[Kind.MATCHED] == 3, report
            drifted = [one for one in report.findings if one.appointment is not None]
            assert not drifted, drifted
            lunch = found["Lunch with Kim"]
            assert (await opened.cancel(lunch.id, key="no-lunch", wait=20)).state == "cancelled"
            assert (await opened.reconcile("main")).counts[Kind.MATCHED] == 3


async def test_without_asking_who_holds_a_booking_it_would_be_taken_over_twice(
    desk: Desk, booked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the question to the log is what keeps one booking from having two appointments."""

    async def nobody(_self: Orchestrator, _refs: list[str]) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(Orchestrator, "holders", nobody)
    async with Orchestrator.open(desk.settings) as opened:
        for name in ("A-0", "B-0"):
            file = desk.write(record(0, booked[0], id=name))
            await backfill.Backfill(opened, Defaults(), lambda _one: None, apply=True).run(given(file))
        assert [one.provider_ref for one in await opened.list()] == [booked[0]["id"]] * 2
