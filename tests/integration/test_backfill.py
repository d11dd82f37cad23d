"""Backfill: what the legacy system has booked is taken over, each booking once, and nothing that is not so."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from appointments.migration import backfill
from appointments.migration.records import from_lines
from domain.identity import appointment_id
from mocks.server import MockProvider
from projections.reconciliation.model import Kind
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
        return dict(json.loads(done.stdout)["counts"]) if not fails else {}

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
import os, signal, sys
from appointments.migration import backfill
from appointments.migration.records import from_lines
backfill.BATCH = 3
take = backfill.Backfill._take
async def taken(self, batch):
    await take(self, batch)
    if sum(self.counts.values()) >= 6:
        os.kill(os.getpid(), signal.SIGKILL)
backfill.Backfill._take = taken
from appointments.cli import main
main()
"""


async def test_killed_in_the_middle_and_run_again_it_ends_the_same(desk: Desk, booked: list[Any]) -> None:
    file = desk.write(*(record(n, one) for n, one in enumerate(booked)))
    words = ["backfill", str(file), "--apply", "--store", desk.settings.store, "--provider", desk.mock.url]
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(await desk.items()) < COUNT
    again = await desk.run(file, "--apply")
    assert (again["imported"] + again["already_there"], again["already_there"] > 0) == (COUNT, True)
    assert await desk.kinds() == {Kind.MATCHED: COUNT}


async def test_without_asking_who_holds_a_booking_it_would_be_taken_over_twice(
    desk: Desk, booked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the question to the log is what keeps one booking from having two appointments."""

    async def nobody(_self: Orchestrator, _refs: list[str]) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(Orchestrator, "holders", nobody)
    defaults = backfill.Defaults()
    async with Orchestrator.open(desk.settings) as opened:
        for name in ("A-0", "B-0"):
            file = desk.write(record(0, booked[0], id=name))

            async def entries(file: Path = file) -> AsyncIterator[Any]:
                for one in from_lines(file, defaults):
                    yield one

            await backfill.Backfill(opened, defaults, lambda _one: None, apply=True).run(entries())
        assert [one.provider_ref for one in await opened.list()] == [booked[0]["id"]] * 2
