"""JSON lines and CSV rows become bookings or refusals."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appointments.intake import Intake, Item, Refusal, csv, jsonl, read_file
from appointments.intake.items import ROW_CHARS_MAX, FileRefused, Reader, Scope
from domain.errors import InvalidFields
from domain.provider import Party

BODY: dict[str, Any] = {
    "calendar": "second",
    "start": "2027-03-01T09:00:00+01:00",
    "end": "2027-03-01T09:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "attendees": [{"email": "kim@example.org", "name": "Kim"}],
    "metadata": {"order": "4711"},
}
HEADER = "key,start,end,time_zone,summary,attendees,organizer,metadata.order,deadline_ms,all_day\n"
ROW = "k-1,2027-03-01T09:00,2027-03-01 10:00:00,Europe/Berlin,Check-up,a@b.org; c@d.org,e@f.org,4711,5000,\n"


def read(name: str, text: str, tmp_path: Path, default_zone: str | None = None) -> list[Item]:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return list(read_file(path, "main", default_zone))


def lines(tmp_path: Path, *bodies: dict[str, Any]) -> list[Item]:
    return read("some.jsonl", "\n".join(json.dumps(body) for body in bodies), tmp_path)


def reason(item: Item) -> str:
    assert isinstance(item, Refusal), item
    return item.reason


def key(item: Item) -> str:
    assert isinstance(item, Intake), item
    return item.key


def test_a_json_line_is_the_body_that_http_takes(tmp_path: Path) -> None:
    (item,) = lines(tmp_path, BODY | {"key": "order-4711"})
    assert isinstance(item, Intake)
    assert (item.key, item.item, item.command.calendar) == ("order-4711", "line 1", "second")
    assert item.command.start == datetime(2027, 3, 1, 8, tzinfo=UTC)
    assert item.command.attendees == (Party(email="kim@example.org", name="Kim"),)
    assert item.command.metadata == {"order": "4711"}


def test_the_calendar_and_zone_of_the_caller_stand_in(tmp_path: Path) -> None:
    bare = {"start": "2027-03-01T09:00", "end": "2027-03-01T10:00", "summary": "Check-up"}
    (item,) = read("some.ndjson", json.dumps(bare), tmp_path, "Asia/Tokyo")
    assert isinstance(item, Intake)
    assert (item.command.calendar, item.command.time_zone, item.command.start.hour) == ("main", "Asia/Tokyo", 0)


def test_without_a_key_the_content_is_the_key_whatever_the_order_of_its_fields(tmp_path: Path) -> None:
    (item,) = lines(tmp_path, BODY)
    (turned,) = lines(tmp_path, dict(reversed(BODY.items())))
    (other,) = lines(tmp_path, BODY | {"summary": "Other"})
    assert re.fullmatch("jsonl-[0-9a-f]{40}", key(item))
    assert key(item) == key(turned) != key(other)


def test_a_key_that_comes_back_is_refused_with_the_line_that_has_it(tmp_path: Path) -> None:
    first, same = lines(tmp_path, BODY, BODY)
    assert key(first)
    assert reason(same) == "/key: line 1 has the same key, with the same content"
    _, other = lines(tmp_path, BODY | {"key": "k"}, BODY | {"key": "k", "summary": "Other"})
    assert reason(other) == "/key: line 1 has the same key, with other content"


def test_whole_days_may_be_given_as_dates(tmp_path: Path) -> None:
    days = BODY | {"start": "2027-03-28", "end": "2027-03-29", "all_day": True}
    (item,) = lines(tmp_path, days)
    assert isinstance(item, Intake)
    assert (item.command.end - item.command.start).total_seconds() == 23 * 3600


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ("null", "no JSON object"),
        ('{"summary": "a", "summary": "b"}', "'summary' stands there twice"),
        ('{"metadata": {"a": "1", "a": "2"}}', "'a' stands there twice"),
        ('{"deadline_ms": NaN}', "NaN is no JSON value"),
        ('{"deadline_ms": -Infinity}', "-Infinity is no JSON value"),
        ('{"deadline_ms": ' + "9" * 5_000 + "}", "not JSON"),
        ("[" * 20_000, "nested deeper than 8"),
        ('{"a": "' + "x" * ROW_CHARS_MAX + '"}', "longer than"),
        ("\x00", "not JSON"),
    ],
    ids=lambda text: text[:24],
)
def test_a_line_that_is_no_plain_json_object_is_refused(line: str, why: str, tmp_path: Path) -> None:
    refused, intact = read("some.jsonl", f"{line}\n\n{json.dumps(BODY)}\n", tmp_path)
    assert why in reason(refused)
    assert isinstance(intact, Intake)
    assert intact.item == "line 3"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"start": "soon"}, "/start: not an RFC 3339 time"),
        ({"start": 1_800_000_000}, "/start: a time is a text"),
        ({"start": "2027-02-30T09:00:00Z"}, "/start: no such date"),
        ({"start": "2027-03-28T02:30"}, "/start: 2027-03-28 02:30:00 does not exist"),
        ({"start": "2027-10-31T02:30"}, "/start: 2027-10-31 02:30:00 happens twice"),
        ({"start": "2027-03-01"}, "/start: a date alone is for all_day"),
        ({"start": "2027-02-30", "all_day": True}, "/start: no such date"),
        ({"all_day": True}, "/start: an all_day booking begins and ends at midnight"),
        ({"start": "2027-03-01T09:00", "time_zone": None}, "/start: a local time needs a time_zone"),
        ({"start": "2027-03-01T09:00", "time_zone": "Berlin"}, "did you mean 'Europe/Berlin'"),
        ({"end": "2027-03-01T07:00:00Z"}, "end must be later"),
        ({"time_zone": "Europe/Nowhere"}, "/time_zone: no such IANA time zone"),
        ({"summary": ""}, "/summary"),
        ({"summary": "x" * 256}, "/summary: String should have at most 255"),
        ({"summary": "\ud800"}, "/summary"),
        ({"calendar": "No Such"}, "/calendar"),
        ({"surprise": 1}, "/surprise: Extra inputs"),
        ({"\x1b[2J": 1}, "/ [2J: Extra inputs"),
        ({"attendees": [{"email": "nobody"}]}, "/attendees/0/email"),
        ({"metadata": {"a": [1]}}, "/metadata/a"),
        ({"deadline_ms": 1}, "/deadline_ms"),
        ({"key": ""}, "/key"),
        ({"key": "has blank"}, "/key"),
        ({"key": 7}, "/key"),
    ],
)
def test_fields_at_fault_are_named(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    (item,) = lines(tmp_path, BODY | change)
    assert why in reason(item)


def test_a_csv_row_is_a_booking(tmp_path: Path) -> None:
    (item,) = read("some.csv", "\ufeff" + HEADER + "\n" + ROW + ",,,,,,,,,\n", tmp_path)
    assert isinstance(item, Intake)
    command = item.command
    assert (item.key, item.item) == ("k-1", "line 3")
    assert (command.calendar, command.summary, command.deadline_ms) == ("main", "Check-up", 5_000)
    assert (command.start, command.end) == (datetime(2027, 3, 1, 8, tzinfo=UTC), datetime(2027, 3, 1, 9, tzinfo=UTC))
    assert command.attendees == (Party(email="a@b.org"), Party(email="c@d.org"))
    assert command.organizer == Party(email="e@f.org")
    assert command.metadata == {"order": "4711"}


def test_a_csv_row_counts_from_the_line_where_it_begins(tmp_path: Path) -> None:
    first, second = read("some.csv", HEADER + ROW.replace("Check-up", '"Check\nup"') + ROW, tmp_path)
    assert isinstance(first, Intake)
    assert first.command.summary == "Check\nup"
    assert isinstance(second, Refusal)
    assert (second.item, second.summary) == ("line 4", "Check-up")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column start, end, summary"),
        ("start,end\n", "no column summary"),
        ("start,end,summary,color\n", "unknown column 'color'"),
        ("start,end,summary,metadata.\n", "unknown column 'metadata.'"),
        ("start,end,summary,start\n", "a column twice"),
        (HEADER, "holds no appointment"),
        (HEADER + 'k,"open', "line 2: not CSV"),
    ],
    ids=lambda text: text[:24],
)
def test_a_broken_csv_file_is_one_refusal(text: str, why: str, tmp_path: Path) -> None:
    (item,) = read("some.csv", text, tmp_path)
    assert why in reason(item)
    assert isinstance(item, Refusal)
    assert item.item == ""


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("k-1,2027-03-01T09:00\n", "the row has 2 cells, the header 10"),
        (ROW.replace("4711", "x" * (ROW_CHARS_MAX + 1)), "a cell is longer"),
        (ROW.replace("5000", "soon"), "/deadline_ms"),
        (ROW.replace("5000,", "5000,maybe"), "/all_day"),
        (ROW.replace("c@d.org", "nobody"), "/attendees/1/email"),
        (ROW.replace("2027-03-01T09:00", ""), "/start: Field required"),
        (ROW.replace(",Europe/Berlin", ","), "/start: a local time needs a time_zone"),
    ],
    ids=lambda text: text[:40],
)
def test_a_broken_csv_row_leaves_the_others(row: str, why: str, tmp_path: Path) -> None:
    refused, intact = read("some.csv", HEADER + row + ROW.replace("k-1", "k-2"), tmp_path)
    assert why in reason(refused)
    assert isinstance(intact, Intake)


@pytest.mark.parametrize("name", ["some.txt", "some", "some.ics.gz"])
def test_a_file_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    (item,) = read(name, "", tmp_path)
    assert "must end in one of: .ics" in reason(item)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for path in (tmp_path / "none.csv", folder, tmp_path / "a\x00b.csv", tmp_path / ("x" * 5_000 + ".csv")):
        (item,) = read_file(path, "main")
        assert isinstance(item, Refusal)
        assert "no file of this name" in item.reason or "cannot be read" in item.reason


def test_an_unknown_default_zone_is_the_callers_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidFields, match="did you mean 'Europe/Berlin'"):
        read_file(tmp_path / "some.csv", "main", "europe/berlin")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("2027-03-01T09:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["key", "policy", *BODY, "location", "organizer", "recurrence", "all_day"]), _JSON, max_size=6
)


@settings(max_examples=300, deadline=None)
@given(_FIELDS)
def test_no_json_raises(fields: dict[str, Any]) -> None:
    (item,) = jsonl.read(json.dumps(BODY | fields), Scope("any.jsonl", "main"))
    assert isinstance(item, Intake) or item.reason.isprintable()


@pytest.mark.parametrize("read_text", [jsonl.read, csv.read])
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_text_raises(read_text: Reader, text: str) -> None:
    for content in (text, HEADER + text, HEADER + ROW.replace("Check-up", text)):
        try:
            list(read_text(content, Scope("any", "main")))
        except FileRefused as refused:
            assert str(refused).isprintable()  # noqa: PT017 - either end is right, none other
