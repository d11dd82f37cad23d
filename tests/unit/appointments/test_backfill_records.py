"""What a backfill reads: each line is a candidate or a refusal that says where and why, and stops no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from appointments.migration.records import LINE_MAX, Candidate, Defaults, Entry, LeftOut, from_lines, made_key

RECORD: dict[str, Any] = {
    "id": "A-17",
    "provider_ref": "bk_1",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T10:00:00Z",
    "summary": "Check-up",
}


def read(folder: Path, *lines: dict[str, Any] | bytes, **defaults: str) -> list[Entry]:
    file = folder / "legacy.jsonl"
    file.write_bytes(b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines))
    return list(from_lines(file, Defaults.model_validate(defaults)))


def only(entries: list[Entry]) -> LeftOut:
    (entry,) = entries
    assert isinstance(entry, LeftOut), entry
    return entry


def test_what_a_record_does_not_say_is_said_by_the_defaults(tmp_path: Path) -> None:
    given = {"source": "salon", "calendar": "north", "time_zone": "Europe/Berlin"}
    (first, second) = read(tmp_path, RECORD, RECORD | {"calendar": "south", "key": "order-1"}, **given)
    assert isinstance(first, Candidate)
    assert isinstance(second, Candidate)
    assert (first.key, first.booked.calendar, first.booked.time_zone) == ("salon:A-17", "north", "Europe/Berlin")
    assert (second.key, second.booked.calendar) == ("order-1", "south")


@pytest.mark.parametrize(
    ("otherwise", "pointer"),
    [
        ({"unknown": 1}, "/unknown: Extra inputs"),
        ({"provider_ref": ""}, "/provider_ref: "),
        ({"provider_ref": "x" * 1_025}, "/provider_ref: "),
        ({"provider_ref": "\ud800"}, "/provider_ref: "),
        ({"client_ref": "x" * 1_025}, "/client_ref: "),
        ({"id": "two words"}, "/id: "),
        ({"key": "two words"}, "/key: "),
        ({"status": "booked"}, "/status: "),
        ({"time_zone": "Mars/Base"}, "/time_zone: no such IANA time zone"),
        ({"start": "2031-03-03T09:00:00"}, "/start: "),
        ({"attendees": [{"email": "nobody"}]}, "/attendees/0/email: "),
    ],
)
def test_a_refusal_names_line_and_field(tmp_path: Path, otherwise: dict[str, Any], pointer: str) -> None:
    refused = only(read(tmp_path, b"", RECORD | otherwise))
    assert (refused.where, refused.skipped) == ("legacy.jsonl:2", False)
    assert refused.reason.startswith(pointer)


def test_a_line_that_is_too_long_is_one_refusal_and_hides_none_behind_it(tmp_path: Path) -> None:
    entries = read(tmp_path, RECORD, b"x" * (3 * LINE_MAX), RECORD, b"y" * LINE_MAX, RECORD)
    assert [(entry.where, type(entry)) for entry in entries] == [
        ("legacy.jsonl:1", Candidate),
        ("legacy.jsonl:2", LeftOut),
        ("legacy.jsonl:3", Candidate),
        ("legacy.jsonl:4", LeftOut),
        ("legacy.jsonl:5", Candidate),
    ]


def test_a_mark_at_the_beginning_and_a_last_line_without_an_end_are_no_faults(tmp_path: Path) -> None:
    file = tmp_path / "legacy.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(RECORD).encode() + b"\r\n\n" + json.dumps(RECORD).encode())
    assert [(type(one), one.where) for one in from_lines(file, Defaults())] == [
        (Candidate, "legacy.jsonl:1"),
        (Candidate, "legacy.jsonl:3"),
    ]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert only(read(tmp_path, b"\xff{}")).reason == "the line is not UTF-8"


@pytest.mark.parametrize("status", ["pending", "rejected", "cancelled"])
def test_what_is_not_accepted_is_skipped_and_says_why(tmp_path: Path, status: str) -> None:
    left = only(read(tmp_path, RECORD | {"status": status}))
    assert (left.skipped, left.reason) == (True, f"the booking is {status}")


def test_names_that_can_be_no_key_have_keys_of_their_own() -> None:
    assert made_key("legacy", "bk_1") == "legacy:bk_1"
    odd = ["Treffen mit Kim.ics", "Treffen mit Kim 2.ics", "é", "x" * 300 + "1", "x" * 300 + "2", "\ud800"]
    keys = {made_key("legacy", name) for name in odd}
    assert len(keys) == len(odd)
    assert all(key.isascii() and len(key) <= 255 and " " not in key for key in keys)
