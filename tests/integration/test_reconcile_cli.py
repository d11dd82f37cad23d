"""`appointments reconcile`: its forms, its exit codes, what it refuses; beside a real provider on loopback."""

import asyncio
import csv
import io
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from appointments.cli import reconcile_table
from appointments.cli.app import app
from domain.provider import Call
from mocks import MockProvider
from projections.reconciliation.model import Finding, Kind, Proposal, Report
from providers.api_v2 import ApiV2Provider

BOOKING = ("--calendar", "main", "--time-zone", "UTC", "--summary", "Root canal, Ms Pat Example")


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Place:
    """A folder with a log, and the provider that its appointments are booked at."""

    folder: Path
    mock: MockProvider

    async def run(self, *words: str) -> Said:
        """In a thread, because a command has an event loop of its own."""
        result = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--provider", self.mock.url])
        assert "Traceback" not in result.output, result.output
        return Said(result.exit_code, result.stdout, result.stderr)

    async def book(self, day: int) -> dict[str, Any]:
        times = ("--start", f"2031-03-{day:02}T09:00", "--end", f"2031-03-{day:02}T09:30")
        said = await self.run("book", *BOOKING, *times, "--key", f"order-{day:04}", "--json")
        assert said.code == 0, said
        return dict(said.json)

    async def behind_our_back(self, booked: dict[str, Any]) -> None:
        provider = ApiV2Provider("main", self.mock.url)
        call = Call(operation_id="somebody-else", client_ref=booked["id"], timeout_ms=5_000)
        await provider.cancel(call, "main", booked["provider_ref"])
        await provider.close()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    for name in [name for name in os.environ if name.startswith("APPOINTMENTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APPOINTMENTS_STORE", "sqlite:///desk.db")
    monkeypatch.setenv("APPOINTMENTS_SETTLE_MS", "0")
    async with MockProvider() as mock:
        yield Place(tmp_path, mock)


async def test_what_agrees_ends_with_zero_and_what_differs_with_one(place: Place) -> None:
    await place.book(1)
    second = await place.book(2)
    agrees = await place.run("reconcile", "main")
    assert (agrees.code, "calendar agrees: yes" in agrees.out) == (0, True), agrees
    assert "listing: 2 of 2" in agrees.err

    await place.behind_our_back(second)
    differs = await place.run("reconcile", "main")
    assert (differs.code, "calendar agrees: no" in differs.out) == (1, True), differs
    for words in ("missing", second["id"], "cancelled in the calendar", "appointment-confirmed.v1, version 6", "park"):
        assert words in differs.out
    assert "Pat" not in differs.out + differs.err


async def test_every_form_says_the_same(place: Place) -> None:
    booked = await place.book(1)
    await place.behind_our_back(booked)
    document = (await place.run("reconcile", "main", "--json")).json
    assert [finding["kind"] for finding in document["findings"]] == ["missing"]
    assert (await place.run("reconcile", "main", "--format", "json")).json["findings"] == document["findings"]
    rows = list(csv.DictReader((await place.run("reconcile", "main", "--format", "csv")).out.splitlines()))
    assert [(row["class"], row["appointment"]) for row in rows] == [("missing", booked["id"])]
    for format, begins in (("html", "<!doctype html>"), ("csv", "class,"), ("json", "{")):
        said = await place.run("reconcile", "main", "--format", format, "--output", f"report.{format}")
        assert (said.code, "calendar agrees: no" in said.out) == (1, True)
        text = (place.folder / f"report.{format}").read_text(encoding="utf-8")
        assert text.startswith(begins)
        assert booked["id"] in text
        assert "Pat" not in text


async def test_only_the_classes_that_are_asked_for_are_shown(place: Place) -> None:
    first, second = await place.book(1), await place.book(2)
    await place.behind_our_back(second)
    for words, kinds in (
        (("--class", "drifted"), []),
        (("--class", "missing", "--class", "drifted"), ["missing"]),
        (("--class", "matched"), ["matched"]),
    ):
        said = await place.run("reconcile", "main", *words, "--json")
        assert ([finding["kind"] for finding in said.json["findings"]], said.code) == (kinds, 1)
    matched = (await place.run("reconcile", "main", "--class", "matched", "--json")).json["findings"]
    assert [finding["appointment"] for finding in matched] == [first["id"]]


async def test_changes_go_on_from_the_last_reading(place: Place) -> None:
    first = await place.book(1)
    said = await place.run("reconcile", "main", "--changes", "--json")
    assert (said.json["mode"], said.json["note"]) == ("full", "no earlier reading is kept")
    await place.behind_our_back(first)
    said = await place.run("reconcile", "main", "--changes", "--json")
    assert (said.json["mode"], said.json["listed"], said.json["counts"]["missing"]) == ("changes", 1, 1)
    (place.folder / "desk.db.views" / "reconciliation.json").unlink()
    assert (await place.run("reconcile", "main", "--changes", "--json")).json["mode"] == "full"


@pytest.mark.parametrize("policy", ["adopt", "restore", "park"])
async def test_a_dry_run_shows_the_commands_and_gives_none(place: Place, policy: str) -> None:
    booked = await place.book(1)
    await place.behind_our_back(booked)
    said = await place.run("reconcile", "main", "--heal", "--policy", policy, "--json")
    assert [(cure["command"], cure["appointment"]) for cure in said.json["healing"]] == [(policy, booked["id"])]
    shown = await place.run("show", booked["id"], "--json")
    assert (shown.json["version"], shown.json["state"]) == (booked["version"], "confirmed")


async def test_applied_it_is_done_and_a_second_time_there_is_nothing_to_do(place: Place) -> None:
    first, second = await place.book(1), await place.book(2)
    await place.behind_our_back(first)
    said = await place.run("reconcile", "main", "--policy", "adopt", "--heal", "--apply", "--json", "--actor", "dana")
    (healed,) = said.json["healing"]
    assert (said.code, healed["outcome"], healed["detail"]) == (0, "given", "cancelled"), said
    assert (await place.run("show", second["id"], "--json")).json["version"] == second["version"]
    again = await place.run("reconcile", "main", "--heal", "--apply")
    assert (again.code, "nothing that a command could mend" in again.out) == (0, True), again


async def test_a_repair_that_fails_is_told_and_keeps_the_exit_code(place: Place) -> None:
    """This provider takes each reference once, so what it has cancelled cannot be booked again."""
    await place.behind_our_back(await place.book(1))
    said = await place.run("reconcile", "main", "--policy", "restore", "--heal", "--apply", "--json")
    (healed,) = said.json["healing"]
    assert (said.code, healed["outcome"], healed["detail"]) == (1, "failed", "failed: rejected"), said


async def test_what_only_a_person_can_mend_keeps_the_exit_code(place: Place) -> None:
    booked = await place.book(1)
    await place.run("act", booked["id"], "park", "--reason", "wait")
    said = await place.run("reconcile", "main", "--heal", "--apply")
    assert said.code == 1, said
    assert "nothing that a command could mend" in said.out


@pytest.mark.parametrize(("classes", "parked", "code"), [(("missing",), True, 1), (("matched", "missing"), False, 0)])
async def test_the_exit_code_is_of_all_classes_also_when_some_are_healed(
    place: Place, classes: tuple[str, ...], parked: bool, code: int
) -> None:
    first, second = await place.book(1), await place.book(2)
    await place.behind_our_back(first)
    if parked:
        await place.run("act", second["id"], "park", "--reason", "wait")
    words = [word for kind in classes for word in ("--class", kind)]
    said = await place.run("reconcile", "main", *words, "--policy", "adopt", "--heal", "--apply", "--json")
    assert [one["outcome"] for one in said.json["healing"]] == ["given"]
    assert said.code == code


async def test_a_report_that_cannot_be_written_is_said_before_anything_is_done(place: Place) -> None:
    await place.behind_our_back(await place.book(1))
    (place.folder / "folder").mkdir()
    options = ("--policy", "adopt", "--heal", "--apply", "--format", "csv", "--output", "folder")
    said = await place.run("reconcile", "main", *options)
    assert (said.code, "folder" in said.err) == (2, True), said
    assert (await place.run("reconcile", "main", "--json")).json["counts"]["missing"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("MAIN",),
        ("main", "--apply"),
        ("main", "--output", "report.txt"),
        ("main", "--format", "csv", "--output", "nowhere/report.csv"),
        ("main", "--format", "html", "--json"),
        ("main", "--class", "lost"),
        ("main", "--policy", "none"),
        ("main", "--store", "sqlite:///none.db"),
    ],
)
async def test_what_cannot_be_is_refused(place: Place, words: tuple[str, ...]) -> None:
    await place.book(1)
    assert (await place.run("reconcile", *words)).code == 2


async def test_a_calendar_that_is_kept_elsewhere_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.book(1)
    monkeypatch.setenv("APPOINTMENTS_CALENDARS", '{"main": "another"}')
    assert (await place.run("reconcile", "main")).code == 2


def test_no_reference_from_outside_commands_the_terminal() -> None:
    evil = Finding(kind=Kind.ORPHANED, provider_ref="a\x1b]0;owned\x07b\x9b2J", detail="x", repair=Proposal.BY_HAND)
    now = datetime(2031, 3, 3, tzinfo=UTC)
    report = Report(
        calendar="main",
        provider="main",
        tenant="default",
        began=now,
        ended=now,
        mode="full",
        listed=1,
        checked_again=1,
        in_progress=0,
        counts={Kind.ORPHANED: 1},
        findings=(evil,),
    )
    shown = Console(file=io.StringIO(), force_terminal=False, width=200)
    shown.print(reconcile_table.report(report))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "owned" in text
    assert all(c.isprintable() or c == "\n" for c in text)


async def test_a_provider_that_cannot_be_listed_is_one_clear_line(place: Place) -> None:
    await place.book(1)
    place.mock.script("list", "rate_limited", times=-1)
    said = await place.run("reconcile", "main")
    assert (said.code, "cannot be listed" in said.err) == (1, True), said


async def test_a_place_kept_of_one_server_is_not_taken_to_another(place: Place) -> None:
    await place.book(1)
    assert (await place.run("reconcile", "main")).code == 0
    async with MockProvider() as another:
        there = Place(place.folder, another)
        said = await there.run("reconcile", "main", "--changes", "--json")
    assert (said.json["mode"], said.json["counts"]["missing"]) == ("full", 1), said
