"""The command line: exit codes, one clear line for each refusal, JSON, and reading beside whoever writes."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from command_line import BOOKING, PROVIDER_GONE, appointments, booked
from freezegun import freeze_time

from appointments.views import Appointment
from mocks.server import MockProvider
from store.sqlite import SqliteStore

pytestmark = pytest.mark.usefixtures("own_folder")

NOBODY = "0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11"
COMMANDS = [
    "book",
    "cancel",
    "reschedule",
    "act",
    "show",
    "list",
    "audit",
    "check",
    "checkpoint",
    "export",
    "erase",
    "figures",
    "rebuild",
    "reconcile",
    "replay",
    "what-if",
    "settings",
    "cases",
    "mock-provider",
    "demo",
    "replay",
    "what-if",
]


def without(option: str) -> list[str]:
    at = BOOKING.index(option)
    return [*BOOKING[:at], *BOOKING[at + 2 :]]


def instead(option: str, value: str) -> list[str]:
    return [*without(option), option, value]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_common_options(command: str) -> None:
    said = appointments(command, "--help")
    assert said.code == 0
    for word in (f"Example: appointments {command}", "--json", "--store", "--provider", "--tenant", "--actor"):
        assert word in said.out


def test_a_booking_is_confirmed_and_shown_in_its_own_zone() -> None:
    said = appointments("book", *BOOKING, "--key", "order-1")
    assert said.code == 0
    assert "confirmed" in said.out
    assert "2031-03-03 09:00 CET to 2031-03-03 09:30 CET, Europe/Berlin" in said.out


def test_json_is_the_appointment_as_every_other_way_in_gives_it() -> None:
    document = booked("order-1", "--attendee", "a@example.org", "--metadata", "room=2", "--location", "Here")
    assert set(document) == set(Appointment.model_fields)
    assert document["start"] == "2031-03-03T08:00:00Z"
    assert document["attendees"] == [{"email": "a@example.org", "name": None}]
    assert (document["metadata"], document["location"]) == ({"room": "2"}, "Here")
    assert appointments("show", document["id"], "--json").json == document


def test_the_same_key_again_is_the_same_appointment() -> None:
    first, second = booked(), booked()
    assert second["replayed"]
    assert (second["id"], second["version"]) == (first["id"], first["version"])


def test_the_same_key_with_another_payload_is_refused_and_records_nothing() -> None:
    first = booked()
    said = appointments("book", *instead("--summary", "Other"), "--key", "order-1", "--json")
    assert said.code == 2
    assert said.json["type"] == "urn:appointments:problem:idempotency-key-reused"
    assert appointments("show", first["id"], "--json").json == first


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (BOOKING, "missing: --key; the key makes a repeat safe"),
        ((*without("--start"), "--key", "k"), "missing: --start"),
        ((*without("--time-zone"), "--key", "k"), "--start: a local time needs --time-zone"),
        ((*instead("--time-zone", "Europe/Berlln"), "--key", "k"), "did you mean 'Europe/Berlin'?"),
        ((*instead("--start", "2031-03-30T02:30"), "--key", "k"), "does not exist in Europe/Berlin"),
        ((*instead("--start", "tomorrow"), "--key", "k"), "--start: not an RFC 3339 time"),
        ((*instead("--end", "2031-03-03T08:00"), "--key", "k"), "end must be later than start"),
        ((*instead("--summary", ""), "--key", "k"), "/summary"),
        ((*instead("--calendar", "Main!"), "--key", "k"), "/calendar"),
        ((*BOOKING, "--key", "k", "--attendee", "nobody"), "/attendees/0/email"),
        ((*BOOKING, "--key", "k", "--metadata", "room"), "--metadata takes NAME=VALUE"),
        ((*BOOKING, "--key", "with space"), "/key"),
        ((*BOOKING, "--file", "x.csv"), "leave out --start"),
        (("--file", "nowhere.ics"), "there is no such file"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_recorded(words: tuple[str, ...], told: str) -> None:
    said = appointments("book", *words)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not Path("desk.db").exists()


@pytest.mark.parametrize(
    "words", [("list", "--limit", "0"), ("list", "--state", "odd"), ("nonsense",), ("show",), ("book", "--odd")]
)
def test_what_the_parser_refuses_ends_with_2_too(words: tuple[str, ...]) -> None:
    assert appointments(*words).code == 2


@pytest.mark.parametrize("command", [("show",), ("audit",), ("cancel",), ("act",)])
@pytest.mark.parametrize("id", [NOBODY, "nonsense"])
def test_an_unknown_appointment_is_refused(command: tuple[str, ...], id: str) -> None:
    booked()
    more = ("retry", "--reason", "why") if command == ("act",) else ()
    said = appointments(*command, id, *more, "--json")
    assert said.code == 2
    assert said.json["type"] == "urn:appointments:problem:unknown-appointment"


def test_another_tenant_sees_nothing() -> None:
    document = booked()
    assert appointments("show", document["id"], "--tenant", "other").code == 2
    assert appointments("list", "--tenant", "other", "--json").json["items"] == []


def test_no_end_in_time_is_still_in_progress() -> None:
    said = appointments("book", *BOOKING, "--key", "order-1", "--provider", PROVIDER_GONE, "--wait", "0")
    assert said.code == 3
    assert "run the same command again" in said.err


def test_a_provider_that_is_gone_fails_the_booking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_ATTEMPTS_MAX", "1")
    said = appointments("book", *BOOKING, "--key", "order-1", "--provider", PROVIDER_GONE)
    assert said.code == 1
    assert "failed (retry_exhausted)" in said.out
    assert "what happened: appointments audit" in said.err


def test_the_audit_trail_says_who_when_and_why_and_shows_the_state_back_then() -> None:
    document = booked("order-1", "--actor", "dana")
    items = appointments("audit", document["id"], "--json").json["items"]
    assert [item["version"] for item in items] == list(range(1, document["version"] + 1))
    assert (items[0]["type"], items[0]["actor"]) == ("appointment-requested.v1", "dana")
    assert appointments("audit", document["id"], "--version", "1", "--json").json["state"] == "requested"
    assert appointments("audit", document["id"], "--at", "2100-01-01T00:00", "--json").json["state"] == "confirmed"
    assert appointments("audit", document["id"], "--at", "1999-01-01T00:00").code == 2
    assert appointments("audit", document["id"], "--at", "1999-01-01T00:00", "--version", "1").code == 2


def test_list_filters() -> None:
    booked("order-1")
    booked("order-2")
    assert len(appointments("list", "--json").json["items"]) == 2
    assert len(appointments("list", "--state", "confirmed", "--limit", "1", "--json").json["items"]) == 1
    assert appointments("list", "--state", "failed", "--json").json["items"] == []
    assert "no appointments" in appointments("list", "--parked").out


def test_cancelling_twice_is_cancelling_once() -> None:
    document = booked()
    first = appointments("cancel", document["id"], "--reason", "asked", "--json")
    second = appointments("cancel", document["id"], "--reason", "asked", "--json")
    assert (first.code, second.code) == (0, 0)
    assert first.json["state"] == "cancelled"
    assert second.json["version"] == first.json["version"]


def test_an_operators_action_is_recorded_with_who_and_why() -> None:
    document = booked()
    said = appointments("act", document["id"], "park", "--reason", "call first", "--actor", "dana", "--json")
    assert (said.code, said.json["parked"]) == (0, True)
    trail = appointments("audit", document["id"], "--json").json["items"]
    acted = next(item for item in trail if item["type"] == "operator-acted.v1")
    assert (acted["actor"], acted["data"]["reason"]) == ("dana", "call first")
    assert appointments("act", document["id"], "resume", "--reason", "called").code == 0


def test_a_move_that_the_provider_refuses_fails_and_says_why() -> None:
    """The provider inside the process forgets with it: there is nothing to move any more."""
    document = booked()
    said = appointments("reschedule", document["id"], "--start", "2031-03-04T09:00", "--end", "2031-03-04T10:00")
    assert said.code == 1
    assert "there is no live booking to move" in said.out


@pytest.mark.parametrize(
    "words",
    [
        ("cancel", "nonsense"),
        ("cancel", NOBODY),
        ("cancel", NOBODY, "--reason", "x" * 501),
        ("cancel", NOBODY, "--key", "two words"),
        ("reschedule", NOBODY, "--start", "tomorrow", "--end", "2031-03-04T10:00"),
        ("reschedule", NOBODY, "--start", "2031-03-04T09:00", "--end", "2031-03-04T10:00", "--tenant", "two words"),
        ("act", NOBODY, "retry", "--reason", ""),
        ("act", NOBODY, "retry", "--reason", "why"),
    ],
)
def test_what_is_refused_makes_no_store(words: tuple[str, ...], own_folder: Path) -> None:
    assert appointments(*words).code == 2
    assert list(own_folder.iterdir()) == []


def test_the_same_move_again_while_it_is_under_way_is_that_move() -> None:
    """As the note of the first says: run the same command again."""
    document = booked()
    move = ("reschedule", document["id"], "--start", "2031-03-04T09:00", "--end", "2031-03-04T10:00", "--wait", "0")
    first = appointments(*move, "--provider", PROVIDER_GONE)
    assert first.code == 3
    assert "run the same command again" in first.err
    assert appointments(*move, "--provider", PROVIDER_GONE).code == 3
    trail = appointments("audit", document["id"], "--json").json["items"]
    assert [item["type"] for item in trail].count("reschedule-requested.v1") == 1


async def test_a_booking_is_moved_and_cancelled_at_a_provider() -> None:
    """Local times without a zone are read in the appointment's own."""
    async with MockProvider() as mock:
        there = ("--provider", mock.url)
        document = await asyncio.to_thread(booked, "order-1", *there)
        times = ("--start", "2031-07-04T09:00", "--end", "2031-07-04T10:00")
        moved = await asyncio.to_thread(appointments, "reschedule", document["id"], *times, *there, "--json")
        assert (moved.code, moved.json["start"]) == (0, "2031-07-04T07:00:00Z")
        assert mock.live() == 1
        assert (await asyncio.to_thread(appointments, "cancel", document["id"], *there)).code == 0
        assert mock.live() == 0


def test_a_locked_store_is_read_but_not_written_and_says_who_holds_it() -> None:
    document = booked()
    holder = SqliteStore.open("desk.db", owner="test")
    try:
        said = appointments("book", *BOOKING, "--key", "order-2")
        assert said.code == 1
        assert f"held by process {os.getpid()}" in said.err
        assert appointments("cancel", document["id"], "--json").json["status"] == 503
        for words in (("show", document["id"]), ("list",), ("audit", document["id"]), ("check",)):
            assert appointments(*words).code == 0
    finally:
        holder.close_now()


def test_check_finds_what_is_overdue() -> None:
    gone = ("--provider", PROVIDER_GONE)
    assert appointments("book", *BOOKING, "--key", "order-1", *gone, "--wait", "0").code == 3
    assert appointments("check", *gone, "--json").json["ok"]
    with freeze_time("2099-01-01", real_asyncio=True):
        said = appointments("check", *gone, "--json")
    assert said.code == 1
    assert [finding["kind"] for finding in said.json["findings"]] == ["overdue"]


def test_check_finds_what_nobody_runs() -> None:
    """Under the settings in force, no provider of that name is there to go on with it."""
    assert appointments("book", *BOOKING, "--key", "k", "--provider", PROVIDER_GONE, "--wait", "0").code == 3
    os.environ["APPOINTMENTS_PROVIDER_NAME"] = "other"
    try:
        said = appointments("check", "--json")
    finally:
        del os.environ["APPOINTMENTS_PROVIDER_NAME"]
    assert [finding["kind"] for finding in said.json["findings"]] == ["nobody_runs"]


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_PROVIDER_PASSWORD", "hunter2")
    monkeypatch.setenv("APPOINTMENTS_PROVIDER", "caldav+https://dana:hunter2@cal.example.org/dana/")
    for words in (("settings",), ("settings", "--json")):
        said = appointments(*words)
        assert said.code == 0
        assert "hunter2" not in said.out
        assert "cal.example.org" in said.out


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("DEADLINE_MS", "soon", "/deadline_ms"), ("CALENDARS", "{", "calendars"), ("STORE", "mysql:x", "cannot open")],
)
def test_unusable_settings_are_refused(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"APPOINTMENTS_{name}", value)
    said = appointments("list")
    assert said.code == 2
    assert told in said.err


def test_a_store_that_is_not_there_is_not_made_by_looking(own_folder: Path) -> None:
    said = appointments("list")
    assert said.code == 2
    assert "there is no store at desk.db" in said.err
    assert not (own_folder / "desk.db").exists()


def test_a_file_that_is_no_store_is_left_alone(own_folder: Path) -> None:
    (own_folder / "desk.db").write_text("a letter to my aunt, and much longer than a page header would be" * 20)
    before = (own_folder / "desk.db").read_bytes()
    said = appointments("book", *BOOKING, "--key", "order-1")
    assert said.code == 1
    assert "not a SQLite file" in said.err
    assert (own_folder / "desk.db").read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_argument_that_is_no_text_is_told_as_an_escape(more: tuple[str, ...]) -> None:
    said = appointments("cases", "--case", "c\udcff", *more)
    assert said.code == 2
    assert "no such case: c\\" in (said.out if more else said.err)


def test_unknown_case_and_unusable_cases_are_refused(own_folder: Path) -> None:
    assert appointments("cases", "--case", "c99").code == 2
    assert appointments("cases", "--cases", str(own_folder)).code == 2


def test_one_case_runs_and_leaves_results_and_log(own_folder: Path) -> None:
    said = appointments("cases", "--case", "c01", "--json")
    assert (said.code, said.json["totals"]["passed"]) == (0, 1)
    assert (own_folder / "results" / "results_post.json").exists()
    assert (own_folder / "logs" / "log_post.txt").exists()


def test_a_setting_that_is_none_is_told_beside_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_TENNANT", "acme")
    said = appointments("settings", "--json")
    assert said.code == 0
    assert said.json["tenant"] == "default"
    assert said.err.splitlines() == [
        "'APPOINTMENTS_TENNANT' is no setting and changes nothing: did you mean APPOINTMENTS_TENANT?"
    ]


def test_the_note_of_an_action_under_way_is_true() -> None:
    """Run again as it says, the command waits on and does nothing twice; without the key it would be another action."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        away = ("--provider", f"http://127.0.0.1:{silent.getsockname()[1]}/api/v2", "--wait", "0")
        document = appointments("book", *BOOKING, "--key", "order-1", "--json", *away).json
        words = ("act", document["id"], "compensate", "--reason", "why", *away)
        first = appointments(*words)
        assert first.code == 3, first
        assert f"appointments show {document['id']}" in first.err
        key = first.err.strip().rpartition("run the same command again with --key ")[2]
        assert appointments(*words, "--key", key, "--json").json["replayed"]
        acted = [line for line in appointments("audit", document["id"]).out.splitlines() if "operator-acted" in line]
        assert len(acted) == 1
        named = appointments(*words, "--key", key)
    assert named.err.endswith("to wait on, run the same command again\n")
