"""Bulk booking: resumable, one line for each refusal, bounded, and honest about what did not go well."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import PROVIDER_GONE, appointments

from appointments import Orchestrator, Settings
from appointments.cli.book_file import expected_items
from appointments.cli.bulk import Booked, BulkBooking, Outcome, Tally
from appointments.intake import Item, read_file
from appointments.intake.items import FILE_BYTES_MAX

pytestmark = pytest.mark.usefixtures("own_folder")


def row(number: int, **other: Any) -> dict[str, Any]:
    day = number % 28 + 1
    times = {"start": f"2031-03-{day:02}T09:00:00Z", "end": f"2031-03-{day:02}T10:00:00Z", "time_zone": "Europe/Berlin"}
    return {"key": f"order-{number}", "summary": f"number {number}", **times, **other}


def write(name: str, *rows: dict[str, Any] | str) -> str:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def test_a_rerun_books_nothing_twice_and_a_changed_item_is_one_refusal() -> None:
    file = write("f.jsonl", *(row(n) for n in range(150)))
    first = appointments("book", "--file", file, "--json")
    assert (first.code, first.json["counts"]["booked"]) == (0, 150)
    events = appointments("check", "--json").json["events"]

    write("f.jsonl", *(row(n) for n in range(149)), row(149, summary="changed"))
    second = appointments("book", "--file", file, "--json")
    assert second.code == 0
    assert (second.json["counts"]["already_booked"], second.json["counts"]["booked"]) == (149, 0)
    assert [(one["outcome"], one["item"]) for one in second.json["items"]] == [("refused", "line 150")]
    assert "used before with another payload" in second.json["items"][0]["reason"]
    assert appointments("check", "--json").json["events"] == events


def test_each_refusal_is_one_line_with_file_item_and_reason() -> None:
    file = write("f.jsonl", row(1), "nonsense", row(2, end="2031-01-01T00:00:00Z"))
    said = appointments("book", "--file", file)
    assert said.code == 0
    lines = said.out.splitlines()
    assert sum(line.startswith("f.jsonl: line 2: refused: not JSON") for line in lines) == 1
    assert sum("line 3 (number 2): refused" in line and "end must be later" in line for line in lines) == 1
    assert "appointments audit ID --store sqlite:///desk.db" in said.out
    assert "booking: 3 of 3" in said.err


def test_calendar_files_and_tables_are_booked_too() -> None:
    event = ("UID:1@x", "DTSTART:20310303T080000Z", "DTEND:20310303T090000Z", "SUMMARY:Exam")
    lines = ("BEGIN:VCALENDAR", "BEGIN:VEVENT", *event, "END:VEVENT", "END:VCALENDAR")
    ics = write("f.ics", *lines)
    csv = write("f.csv", "key,start,end,time_zone,summary", "a,2031-03-03T09:00,2031-03-03T10:00,Europe/Berlin,Exam")
    assert appointments("book", "--file", ics, "--calendar", "clinic", "--json").json["counts"]["booked"] == 1
    assert appointments("book", "--file", csv, "--json").json["counts"]["booked"] == 1
    assert {one["calendar"] for one in appointments("list", "--json").json["items"]} == {"clinic", "main"}


async def test_the_same_item_from_two_files_at_once_is_booked_once() -> None:
    """Counted once as booked, once as booked already, also while both are under way."""
    read = [item for name in ("a.jsonl", "b.jsonl") for item in read_file(Path(write(name, row(1))), "main")]
    told: list[Booked] = []
    settings = Settings(store="memory:", provider="local:")
    async with Orchestrator.open(settings) as desk:
        tally = await BulkBooking(desk, lambda booked, _: told.append(booked), wait_s=10).run(iter(read))
    assert (tally[Outcome.BOOKED], tally[Outcome.ALREADY_BOOKED]) == (1, 1)
    assert len({booked.id for booked in told}) == 1


async def test_no_more_are_under_way_or_read_ahead_than_was_asked_for() -> None:
    taken: list[int] = []
    most = 0

    def items() -> Iterator[Item]:
        for item in read_file(Path(file), "main"):
            taken.append(1)
            yield item

    def tell(_: Booked, tally: Tally) -> None:
        nonlocal most
        # The items of one batch that was read, of the queue, and of the workers.
        most = max(most, len(taken) - tally.done)

    file = write("f.jsonl", *(row(n) for n in range(200)))
    async with Orchestrator.open(Settings(store="memory:", provider="local:")) as desk:
        bulk = BulkBooking(desk, tell, wait_s=10, in_flight=4)
        await bulk.run(items())
    assert bulk.tally[Outcome.BOOKED] == 200
    assert most <= 3 * 4


def test_what_fails_is_listed_and_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_ATTEMPTS_MAX", "1")
    said = appointments("book", "--file", write("f.jsonl", row(1)), "--provider", PROVIDER_GONE)
    assert said.code == 1
    assert "f.jsonl: line 1 (number 1): failed: retry_exhausted" in said.out


def test_what_has_no_end_in_time_is_listed_as_in_progress() -> None:
    said = appointments("book", "--file", write("f.jsonl", row(1)), "--provider", PROVIDER_GONE, "--wait", "0.05")
    assert said.code == 3
    assert "still in progress" in said.out


@pytest.mark.parametrize("more", [("--calendar", "Two Words"), ("--tenant", "two words"), ("--actor", "é")])
def test_what_would_refuse_every_item_is_refused_once(more: tuple[str, ...], own_folder: Path) -> None:
    file = write("f.jsonl", row(1), row(2))
    said = appointments("book", "--file", file, *more)
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert not (own_folder / "desk.db").exists()


@pytest.mark.parametrize(
    ("name", "content", "booked"),
    [
        ("foreign.ics", b"\xff\xfe", 0),
        ("empty.jsonl", b"\n", 0),
        ("torn.ics", b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1\nDTSTART:20310303T080000Z\nDURATION:PT1H\nEND:VEVENT\n", 1),
        ("torn.csv", b'start,end,time_zone,summary\n2031-03-03T09:00,2031-03-03T10:00,UTC,x\n"', 1),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_refused(name: str, content: bytes, booked: int) -> None:
    """Whoever deletes a file once it is booked must not be told that it is."""
    Path(name).write_bytes(content)
    said = appointments("book", "--file", name, "--json")
    assert (said.code, said.json["counts"]["booked"], said.json["counts"]["refused"]) == (2, booked, 1)


def test_a_file_over_the_limit_is_not_read_to_count_its_items() -> None:
    with Path("big.jsonl").open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    assert expected_items(Path("big.jsonl")) is None
    with Path("big.jsonl").open("wb") as file:
        file.write(b"x\nx\n")
    assert expected_items(Path("big.jsonl")) == 2


def test_a_store_that_cannot_be_opened_ends_the_run_with_one_document() -> None:
    said = appointments("book", "--file", write("f.jsonl", row(1)), "--store", "sqlite:////proc/desk.db", "--json")
    assert said.code == 1
    assert said.json["type"].startswith("urn:appointments:problem:")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly_and_is_gone_on_with(stop: signal.Signals) -> None:
    # The first line is refused at once, and so tells that the run has begun; the others wait for the provider.
    file = write("f.jsonl", "nonsense", *(row(n) for n in range(100)))
    command = [sys.executable, "-m", "appointments.cli", "book", "--file", file, "--in-flight", "16"]
    with subprocess.Popen(
        [*command, "--provider", PROVIDER_GONE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as begun:
        try:
            assert begun.stdout is not None
            assert "refused" in begun.stdout.readline()
            begun.send_signal(stop)
            _, err = begun.communicate(timeout=30)
        finally:
            begun.kill()
    assert begun.returncode == 3, err
    assert "nothing is lost: run the same command again" in err
    assert "Traceback" not in err

    said = appointments("book", "--file", file, "--json")
    assert (said.code, said.json["counts"]["booked"]) == (0, 100)
