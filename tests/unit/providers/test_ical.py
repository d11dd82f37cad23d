"""Bookings as iCalendar: written and read back, moved with all else kept; strangers' bodies are refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import pytest
import recurring_ical_events
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from domain.provider import BookingDetails, BookingStatus, Party
from providers.ical import Unreadable, Unwritable, move_event, read_event, write_event

NOW = datetime(2027, 1, 5, 12, tzinfo=UTC)
START = datetime(2027, 3, 1, 9, tzinfo=UTC)


def details(start: datetime = START, **changes: Any) -> BookingDetails:
    end = changes.pop("end", start + timedelta(minutes=45))
    fields = {"calendar": "main", "time_zone": "Europe/Berlin", "summary": "Visit", **changes}
    return BookingDetails(start=start, end=end, **fields)


def only_event(body: bytes) -> Any:
    return Calendar.from_ical(body).events[0]


@given(
    st.integers(31_536_000, 5_680_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
    st.integers(1, 2_000),
)
def test_instants_survive_in_every_zone(start: datetime, zone: str, minutes: int) -> None:
    wanted = details(start, end=start + timedelta(minutes=minutes), time_zone=zone)
    assert read_event(write_event("booking-1", wanted, NOW)).same_content(wanted)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=255))
def test_any_printable_summary_survives(summary: str) -> None:
    wanted = details(summary=summary)
    assert read_event(write_event("booking-1", wanted, NOW)).same_content(wanted)


def test_a_backslash_before_an_n_is_no_line_break() -> None:
    body = write_event("booking-1", details(summary="C:\\News", location="D:\\North"), NOW)
    assert b"SUMMARY:C:\\\\News" in body
    assert b"LOCATION:D:\\\\North" in body


def test_a_local_time_is_written_with_its_zone_and_rules() -> None:
    body = write_event("booking-1", details(), NOW)
    assert b"DTSTART;TZID=Europe/Berlin:20270301T100000" in body
    assert b"BEGIN:VTIMEZONE" in body
    assert b"METHOD" not in body
    assert b"DTSTAMP:20270105T120000Z" in body


def test_the_second_pass_of_a_repeated_hour_is_written_in_utc() -> None:
    second_pass = datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
    assert b"DTSTART:20271031T013000Z" in write_event("booking-1", details(second_pass), NOW)
    with pytest.raises(Unwritable):
        write_event("booking-1", details(second_pass, recurrence="FREQ=DAILY"), NOW)


def test_whole_days_are_dates_and_read_back_as_local_midnights() -> None:
    start = datetime(2027, 3, 27, 23, tzinfo=UTC)  # midnight in Berlin; the day lasts 23 hours
    wanted = details(start, end=start + timedelta(hours=23), all_day=True)
    body = write_event("booking-1", wanted, NOW)
    assert b"DTSTART;VALUE=DATE:20270328" in body
    assert b"DTEND;VALUE=DATE:20270329" in body
    assert read_event(body).same_content(wanted)
    with pytest.raises(Unwritable):
        write_event("booking-1", details(all_day=True), NOW)


def test_a_series_keeps_its_wall_time_across_the_clock_change() -> None:
    start = datetime(2027, 3, 26, 9, tzinfo=UTC)
    body = write_event("booking-1", details(start, recurrence="FREQ=DAILY;COUNT=4"), NOW)
    shown = recurring_ical_events.of(Calendar.from_ical(body)).between((2027, 3, 1), (2027, 4, 30))
    starts = [event["DTSTART"].dt for event in shown]
    assert [s.strftime("%d %H:%M") for s in starts] == ["26 10:00", "27 10:00", "28 10:00", "29 10:00"]
    assert [s.astimezone(UTC).hour for s in starts] == [9, 9, 8, 8]


@pytest.mark.parametrize("rule", ["rubbish", "FREQ=DAILY\nX-A:1", "FREQ=NEVER", "COUNT=3", "FREQ=DAILY;COUNT=x"])
def test_a_recurrence_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(Unwritable):
        write_event("booking-1", details(recurrence=rule), NOW)


def test_people_and_metadata_are_written() -> None:
    people = Party(email="a@example.com", name='Ann "A", Ü; x')
    metadata = {"a": 'b,c;d\\n"x"\nü', "k": ""}
    event = only_event(write_event("b-1", details(organizer=people, attendees=(people,), metadata=metadata), NOW))
    assert str(event["ORGANIZER"]) == str(event["ATTENDEE"]) == "mailto:a@example.com"
    assert event["ATTENDEE"].params["CN"] == people.name
    assert json.loads(str(event["X-APPOINTMENTS-METADATA"])) == metadata


def test_a_move_keeps_every_other_property_and_counts_the_sequence() -> None:
    body = write_event("booking-1", details(location="Room 1", recurrence="FREQ=DAILY;COUNT=2"), NOW)
    body = body.replace(b"END:VEVENT", b"X-OWN;Y=1:kept\r\nBEGIN:VALARM\r\nACTION:DISPLAY\r\nEND:VALARM\r\nEND:VEVENT")
    later = details(datetime(2041, 7, 1, 9, tzinfo=UTC), time_zone="America/New_York")
    moved = move_event(body, later, NOW + timedelta(days=1))
    event = read_event(moved)
    assert event.same_times(later)
    assert event.sequence == 1
    kept = only_event(moved)
    assert (str(kept["LOCATION"]), str(kept["X-OWN"]), kept["RRULE"]["COUNT"]) == ("Room 1", "kept", [2])
    assert len(kept.subcomponents) == 1
    assert b"20410310" in moved.replace(b"\r\n ", b"")  # the zone's rules reach to the new times


def test_a_strangers_duration_is_read_and_replaced() -> None:
    body = (
        b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20270101T000000Z\r\n"
        b"DTSTART:20270301T090000Z\r\nDURATION:PT45M\r\nSTATUS:CANCELLED\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    event = read_event(body)
    assert event.same_times(details())
    assert event.status is BookingStatus.CANCELLED
    assert b"DURATION" not in move_event(body, details(START + timedelta(days=1)), NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
        b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTART:never\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nUID:u\r\nEND:VTODO\r\nEND:VCALENDAR\r\n",
    ],
)
def test_a_body_without_a_readable_event_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_event(body)
    if b"VEVENT" not in body:
        with pytest.raises(Unreadable):
            move_event(body, details(), NOW)


def strangers(times: str, *zones: str) -> bytes:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:x", *zones, "BEGIN:VEVENT", "UID:u", "DTSTAMP:20270101T000000Z"]
    return "\r\n".join([*lines, times, "END:VEVENT", "END:VCALENDAR", ""]).encode()


def zone(offset: str, rule: str = "", name: str = "Our Town", rules: int = 2) -> str:
    part = f"DTSTART:16010101T030000\r\nTZOFFSETFROM:{offset}\r\nTZOFFSETTO:{offset}{rule and chr(13) + chr(10) + rule}"
    parts = [f"BEGIN:{kind}\r\n{part}\r\nEND:{kind}" for kind in ("STANDARD", "DAYLIGHT") * (rules // 2)]
    return "\r\n".join(["BEGIN:VTIMEZONE", f"TZID:{name}", *parts, "END:VTIMEZONE"])


IN_OUR_TOWN = "DTSTART;TZID=Our Town:20270301T100000\r\nDTEND;TZID=Our Town:20270301T110000"


@pytest.mark.parametrize(("offset", "hour"), [("+0100", 9), ("+0500", 5), ("-0300", 13)])
def test_a_zone_that_a_body_defines_is_its_own_and_no_other_bodys(offset: str, hour: int) -> None:
    event = read_event(strangers(IN_OUR_TOWN, zone(offset, "RRULE:FREQ=YEARLY;BYDAY=1SU;BYMONTH=11")))
    assert event.start == datetime(2027, 3, 1, hour, tzinfo=UTC)
    assert event.end == datetime(2027, 3, 1, hour + 1, tzinfo=UTC)


def test_a_zone_that_nobody_defines_is_unreadable_though_another_body_defined_it() -> None:
    read_event(strangers(IN_OUR_TOWN, zone("+0100")))
    for body in (strangers(IN_OUR_TOWN), strangers(IN_OUR_TOWN.replace("Our Town", "Mars/Base"))):
        with pytest.raises(Unreadable, match="no such time zone"):
            read_event(body)


@pytest.mark.parametrize(
    "rule",
    [
        "RRULE:FREQ=SECONDLY",
        "RRULE:FREQ=YEARLY;BYHOUR=1,2,3",
        "RRULE:FREQ=YEARLY;INTERVAL=0",
        "RRULE:FREQ=YEARLY;BYDAY=MO,TU",
    ],
)
def test_a_zone_whose_rules_take_for_ever_to_work_out_is_unreadable(rule: str) -> None:
    with pytest.raises(Unreadable, match="not yearly"):
        read_event(strangers(IN_OUR_TOWN, zone("+0100", rule)))
    with pytest.raises(Unreadable, match="rules"):
        read_event(strangers(IN_OUR_TOWN, zone("+0100", rules=60)))


def test_a_duration_of_hours_is_exact_and_one_of_days_is_wall_time() -> None:
    before = "DTSTART;TZID=Europe/Berlin:20270328T003000\r\nDURATION:"  # the clocks change at 02:00
    assert read_event(strangers(f"{before}PT3H")).end == datetime(2027, 3, 28, 2, 30, tzinfo=UTC)
    assert read_event(strangers(f"{before}P1D")).end == datetime(2027, 3, 28, 22, 30, tzinfo=UTC)
    assert read_event(strangers("DTSTART;VALUE=DATE:20270328")).end == datetime(2027, 3, 29, tzinfo=UTC)


def test_a_sequence_beyond_what_the_format_allows_is_bounded() -> None:
    assert read_event(strangers("DTSTART:20270301T090000Z\r\nSEQUENCE:99999999999999999999")).sequence == 2**31 - 1


def test_a_series_is_moved_with_its_years_of_rules_wherever_it_stands_in_the_body() -> None:
    changed = "BEGIN:VEVENT\r\nUID:u\r\nRECURRENCE-ID:20270301T090000Z\r\nDTSTART:20270301T100000Z\r\nEND:VEVENT"
    body = strangers("DTSTART:20270301T090000Z\r\nRRULE:FREQ=WEEKLY", changed)
    moved = move_event(body, details(START + timedelta(days=1)), NOW).replace(b"\r\n ", b"")
    assert b"20450326T" in moved


@pytest.mark.parametrize(
    "times",
    [
        "DTSTART:20270301T090000Z\r\nBEGIN:VTIMEZONE\r\nEND:VTIMEZONE",
        "\r\n".join(f"EXDATE;TZID={name}:20270301T090000" for name in sorted(available_timezones())),
    ],
)
def test_a_body_that_cannot_be_written_again_is_unreadable(times: str) -> None:
    with pytest.raises(Unreadable):
        move_event(strangers(times), details(), NOW)
