"""Processes that die, files that are gone on with, and what the command line says of it (R4.3, R7.1, R8.6)."""

import json
import os
import signal
from typing import Any

import pytest

from domain.errors import StoreLocked
from tests.acceptance.office import CHECK_UP, ROOT, WAIT_S, Office

ONE = (
    *("book", "--calendar", "main", "--start", "2031-03-03T09:00:00Z", "--end", "2031-03-03T09:30:00Z"),
    *("--time-zone", "Europe/Berlin", "--summary", "Check-up", "--key", "order-1", "--json"),
)
UNTIL_IT_IS_SETTLED = {"settle_ms": 500, "cleanup_ms": 60_000, "deadline_ms": 60_000}


def row(number: int) -> dict[str, Any]:
    """One line of a bulk file."""
    day = number % 28 + 1
    times = {"start": f"2031-03-{day:02}T09:00:00Z", "end": f"2031-03-{day:02}T10:00:00Z", "time_zone": "Europe/Berlin"}
    return {"key": f"order-{number}", "summary": f"number {number}", **times}


@pytest.mark.evidence(target="kill -9", answers=("R7.1", "R7.2", "G1", "G2", "G6"), seen_in="ledger, `show`")
async def test_a_process_that_is_killed_during_the_call_books_once(office: Office) -> None:
    """
    Given a command whose create has been applied by the provider, and whose answer is not there yet
    When the process is killed with SIGKILL, and the same command is given again
    Then it is confirmed, one booking is live, and every create carried the same operation id
    """
    office.provider.script("create", "delayed", delay_ms=5_000, apply="before", times=1)
    process = await office.start(*ONE, call_timeout_ms=20_000)
    await office.until(office.committed, lambda commits: commits == 1)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    said = await office.run(*ONE, **UNTIL_IT_IS_SETTLED)
    assert (said.code, said.json["state"], said.json["replayed"]) == (0, "confirmed", True)
    assert len(office.live()) == 1
    assert len(office.keys()) > 1
    assert len(set(office.keys())) == 1


@pytest.mark.evidence(
    target="kill -9", answers=("R7.1", "R7.2", "R4.3", "G1", "G5"), seen_in="summary, ledger, `check`"
)
async def test_a_bulk_file_that_was_interrupted_is_gone_on_with(office: Office) -> None:
    """
    Given a file of 120 appointments, and a run that is killed with SIGKILL when the provider has seen forty
    When the same file is booked again, and then once more
    Then all 120 are confirmed with one live booking each, the third run books nothing, and the store is well
    """
    file = office.folder / "march.jsonl"
    file.write_text("".join(json.dumps(row(n)) + "\n" for n in range(120)), encoding="utf-8")
    process = await office.start("book", "--file", file.name, "--json")
    await office.called("create", 40)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    second = await office.run("book", "--file", file.name, "--json", **UNTIL_IT_IS_SETTLED)
    third = await office.run("book", "--file", file.name, "--json")
    assert (second.code, third.code) == (0, 0)
    counts = second.json["counts"]
    assert counts["booked"] + counts["already_booked"] == 120
    assert third.json["counts"]["already_booked"] == 120
    assert set(office.provider.ledger()["live_by_client_ref"].values()) == {1}
    assert len(office.live()) == 120
    check = await office.run("check", "--json")
    assert (check.code, check.json["appointments"], check.json["unfinished"]) == (0, 120, 0)


@pytest.mark.evidence(target="bad input", answers=("R4.3", "R7.4"), seen_in="summary, exit code")
async def test_of_a_bulk_file_each_bad_line_is_refused_by_itself(office: Office) -> None:
    """
    Given a calendar file of three visits, of which one lies in an hour that the clocks skip
    When it is booked from the command line
    Then two are booked, the third is refused with its item and the reason, and the exit code is 0
    """
    said = await office.run("book", "--file", str(ROOT / "docs" / "examples" / "week.ics"), "--json")
    assert said.code == 0
    assert (said.json["counts"]["booked"], said.json["counts"]["refused"]) == (2, 1)
    (refused,) = (one for one in said.json["items"] if one["outcome"] == "refused")
    assert "visit-2@clinic.example" in refused["item"]
    assert "does not exist in Europe/Berlin: clocks skip it that day" in refused["reason"]
    assert len(office.live()) == 2


@pytest.mark.evidence(target="store file", answers=("R7.1", "R7.4"), seen_in="refusal, exit code")
@pytest.mark.parametrize("database", [None], ids=["sqlite"])
async def test_a_second_writer_is_refused_and_readers_are_not(office: Office) -> None:
    """
    Given a desk that has the store open
    When another process wants to book in it, and a third one lists
    Then the first is refused and books nothing, the other reads
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-0", wait=WAIT_S)
        with pytest.raises(StoreLocked):
            async with office.desk():
                pass
        refused = await office.run(*ONE)
        listed = await office.run("list", "--json")
    assert refused.code != 0
    assert [one["id"] for one in listed.json["items"]] == [str(booked.id)]
    assert len(office.live()) == 1


@pytest.mark.evidence(target="shared database", answers=("R7.3", "G5"), seen_in="answers, ledger")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_any_number_of_processes_book_on_one_database(office: Office) -> None:
    """
    Given a desk that has the database open
    When another process books with the same key, and with a key of its own
    Then it finds the appointment that is there, books its own, and each has one booking
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        async with office.desk() as other:
            again = await other.book(CHECK_UP, key="order-1", wait=WAIT_S)
            third = await other.book({**CHECK_UP, "calendar": "second"}, key="order-2", wait=WAIT_S)
        assert (again.id, again.replayed) == (booked.id, True)
        assert (await desk.show(third.id)).state == "confirmed"
    assert len(office.live()) == 2


@pytest.mark.evidence(target="health", answers=("R8.6", "G6"), seen_in="`appointments check`, exit code")
async def test_what_is_overdue_does_not_look_healthy(office: Office) -> None:
    """
    Given an appointment that is pending when the process that drives it ends, and whose due time lies a day back
    When `appointments check` is run
    Then it ends with exit code 1 and names the appointment as overdue; once the desk is open again it is confirmed
    """
    office.provider.script("create", "pending", settle_ms=10, via="poll")
    async with office.desk(poll_ms=60_000) as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.until(lambda: desk.show(booked.id), lambda seen: seen.state == "pending")
    office.change("UPDATE open_work SET due_at = due_at - 86400000000")
    said = await office.run("check", "--json")
    assert said.code == 1
    assert [(one["kind"], one["subject"]) for one in said.json["findings"]] == [("overdue", str(booked.id))]
    async with office.desk() as desk:
        assert (await desk.show(booked.id, wait=WAIT_S)).state == "confirmed"
        assert (await desk.health()).ok


@pytest.mark.evidence(target="command line", answers=("R4.3", "R1.2"), seen_in="exit codes, JSON")
async def test_the_command_line_books_moves_and_cancels(office: Office) -> None:
    """
    Given a store that is not there yet
    When an appointment is booked, moved, cancelled and shown, each by a process of its own
    Then each ends with exit code 0 and tells the state as JSON; in the end none is live
    """
    booked = await office.run(*ONE)
    id = booked.json["id"]
    moved = await office.run("reschedule", id, "--start", "2031-03-04T14:00", "--end", "2031-03-04T14:30", "--json")
    gone = await office.run("cancel", id, "--reason", "caller asked", "--json")
    shown = await office.run("show", id, "--json")
    told = (booked, moved, gone, shown)
    assert [one.code for one in told] == [0, 0, 0, 0]
    assert [one.json["state"] for one in told] == ["confirmed", "confirmed", "cancelled", "cancelled"]
    assert moved.json["start"] == "2031-03-04T13:00:00Z"
    assert office.live() == []
