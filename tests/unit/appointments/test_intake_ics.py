"""iCalendar files become bookings or refusals, one for each event."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appointments.intake import Intake, Item, Refusal, ics, read_file
from appointments.intake.items import FILE_BYTES_MAX, ITEMS_MAX, LINE_CHARS_MAX, FileRefused, Scope
from domain.provider import Party

TIMES = "DTSTART:20270301T090000Z\nDTEND:20270301T100000Z\n"
EVENT = f"BEGIN:VEVENT\nUID:one\nSUMMARY:Check-up\n{TIMES}END:VEVENT\n"
CUSTOM_ZONE = """BEGIN:VTIMEZONE
TZID:House Time
BEGIN:STANDARD
DTSTART:16011028T030000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:16010325T020000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
X-NOTE:ignored
END:DAYLIGHT
END:VTIMEZONE
"""


def calendar(body: str, head: str = "") -> str:
    return f"BEGIN:VCALENDAR\nVERSION:2.0\n{head}{body}END:VCALENDAR\n"


def event(properties: str, head: str = "") -> str:
    return calendar(f"BEGIN:VEVENT\nUID:one\nSUMMARY:Check-up\n{properties}END:VEVENT\n", head)


def read(text: str, tmp_path: Path, default_zone: str | None = None) -> list[Item]:
    path = tmp_path / "some.ics"
    path.write_bytes(text.encode())
    return list(read_file(path, "main", default_zone))


def booked(text: str, tmp_path: Path, default_zone: str | None = None) -> Intake:
    (item,) = read(text, tmp_path, default_zone)
    assert isinstance(item, Intake), item
    return item


def refused(text: str, tmp_path: Path) -> str:
    (item,) = read(text, tmp_path)
    assert isinstance(item, Refusal), item
    return item.reason


def test_an_event_becomes_a_booking(tmp_path: Path) -> None:
    text = event(
        "DTSTART;TZID=Europe/Berlin:20270301T090000\r\nDTEND;TZID=Europe/Berlin:20270301T100000\r\n"
        "LOCATION:Room 1\\, first\r\n  floor\r\nDESCRIPTION:Bring the\\nletter\r\nURL:https://example.org/a\r\n"
        "CATEGORIES:WORK,CARE\r\nSTATUS:TENTATIVE\r\nORGANIZER;CN=Dana:mailto:dana@example.org\r\n"
        'ATTENDEE;CN="Kim, Dr.":MAILTO:kim@example.org\r\nATTENDEE:mailto:KIM@example.org\r\n'
        "ATTENDEE;EMAIL=lee@example.org:urn:uuid:1\r\nATTENDEE;CN=Room:ldap://example.org/room\r\n"
        "BEGIN:VALARM\r\nTRIGGER:nonsense\r\nSUMMARY:not mine\r\nEND:VALARM\r\n"
    )
    item = booked(text, tmp_path)
    command = item.command
    assert item.item == "one"
    assert (command.calendar, command.summary, command.location) == ("main", "Check-up", "Room 1, first floor")
    assert (command.start, command.end) == (datetime(2027, 3, 1, 8, tzinfo=UTC), datetime(2027, 3, 1, 9, tzinfo=UTC))
    assert (command.time_zone, command.all_day, command.recurrence) == ("Europe/Berlin", False, None)
    assert command.organizer == Party(email="dana@example.org", name="Dana")
    assert command.attendees == (Party(email="kim@example.org", name="Kim, Dr."), Party(email="lee@example.org"))
    assert command.metadata == {
        "ical_uid": "one",
        "description": "Bring the\nletter",
        "url": "https://example.org/a",
        "categories": "WORK,CARE",
        "status": "TENTATIVE",
        "other_people": "ldap://example.org/room",
    }


def test_an_event_without_a_summary_is_booked_as_such(tmp_path: Path) -> None:
    for summary in ("", "SUMMARY:\n", "SUMMARY:  \n"):
        text = calendar(f"BEGIN:VEVENT\nUID:one\n{summary}{TIMES}END:VEVENT\n")
        assert booked(text, tmp_path).command.summary == "(no summary)"


def test_an_event_that_stands_alone_is_booked(tmp_path: Path) -> None:
    assert booked(EVENT, tmp_path).command.summary == "Check-up"


def test_a_byte_order_mark_blank_lines_and_old_line_ends_are_taken(tmp_path: Path) -> None:
    for text in ("\ufeff" + calendar(EVENT), "\n\n" + calendar(EVENT).replace("\n", "\n\n")):
        assert booked(text, tmp_path) == booked(calendar(EVENT), tmp_path)
    assert booked(calendar(EVENT).replace("\n", "\r"), tmp_path) == booked(calendar(EVENT), tmp_path)


@pytest.mark.parametrize(
    ("properties", "hours", "days"),
    [
        ("DTSTART;VALUE=DATE:20270301\n", 24, 1),
        ("DTSTART:20270301\n", 24, 1),
        ("DTSTART;VALUE=DATE:20270301\nDTEND;VALUE=DATE:20270303\n", 48, 2),
        ("DTSTART;VALUE=DATE:20270301\nDURATION:P1W\n", 168, 7),
        ("DTSTART;VALUE=DATE:20270328\n", 23, 1),
    ],
)
def test_dates_are_whole_days_of_the_calendars_zone(properties: str, hours: int, days: int, tmp_path: Path) -> None:
    command = booked(event(properties, "X-WR-TIMEZONE:Europe/Berlin\n"), tmp_path).command
    assert command.all_day
    assert command.end - command.start == timedelta(hours=hours)
    assert command.start.hour == 23
    in_utc = booked(event(properties), tmp_path).command
    assert (in_utc.time_zone, in_utc.start.hour, in_utc.end - in_utc.start) == ("UTC", 0, timedelta(days=days))


@pytest.mark.parametrize(
    ("duration", "hours"), [("PT45M", 0.75), ("P1D", 23), ("PT24H", 24), ("P1DT2H", 25), ("PT1H30M", 1.5)]
)
def test_days_of_a_duration_are_counted_by_the_clock_and_hours_exactly(
    duration: str, hours: float, tmp_path: Path
) -> None:
    text = event(f"DTSTART;TZID=Europe/Berlin:20270327T120000\nDURATION:{duration}\n")
    command = booked(text, tmp_path).command
    assert command.end - command.start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("tzid", "zone"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("/freeassociation.sourceforge.net/Europe/Berlin", "Europe/Berlin"),
        ("/x/Tzfile/America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("America/New York", "America/New_York"),
        ("US/Eastern", "US/Eastern"),
        ("GMT", "UTC"),
    ],
)
def test_a_tzid_is_read_as_the_iana_zone_that_it_means(tzid: str, zone: str, tmp_path: Path) -> None:
    text = event(f"DTSTART;TZID={tzid}:20270701T090000\nDURATION:PT1H\n")
    assert booked(text, tmp_path).command.time_zone == zone


def test_a_zone_of_the_files_own_gives_instants_and_is_shown_as_utc(tmp_path: Path) -> None:
    for month, hour in (("02", 8), ("07", 7)):
        text = event(f"DTSTART;TZID=House Time:2027{month}01T090000\nDURATION:PT1H\n", CUSTOM_ZONE)
        command = booked(text, tmp_path).command
        assert (command.start.hour, command.time_zone) == (hour, "UTC")
    named = CUSTOM_ZONE.replace("TZID:House Time\n", "TZID:House Time\nX-LIC-LOCATION:Europe/Berlin\n")
    text = event("DTSTART;TZID=House Time:20270701T090000\nDURATION:PT1H\n", named)
    assert booked(text, tmp_path).command.time_zone == "Europe/Berlin"


def test_a_zone_defined_in_one_file_is_unknown_in_the_next(tmp_path: Path) -> None:
    times = "DTSTART;TZID=House Time:20270701T090000\nDURATION:PT1H\n"
    booked(event(times, CUSTOM_ZONE), tmp_path)
    assert "no such IANA time zone" in refused(event(times), tmp_path)


@pytest.mark.parametrize("local", ["20270328T023000", "20271031T023000"])
def test_gaps_and_folds_are_seen_in_a_zone_of_the_files_own(local: str, tmp_path: Path) -> None:
    text = event(f"DTSTART;TZID=House Time:{local}\nDURATION:PT1H\n", CUSTOM_ZONE)
    assert re.search("does not exist|happens twice", refused(text, tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("FREQ=YEARLY;BYDAY=-1SU", "FREQ=SECONDLY;BYDAY=-1SU", "yearly"),
        ("BYDAY=-1SU;BYMONTH=10", "BYHOUR=1,2,3", "yearly"),
        ("TZOFFSETTO:+0100", "TZOFFSETTO:soon", "cannot be read"),
        ("TZOFFSETTO:+0100", "TZOFFSETTO:\x1b[2J", "got:  [2J"),
        ("TZOFFSETTO:+0100\n", "", "needs one TZOFFSETTO"),
        ("DTSTART:16011028T030000", "DTSTART:00011028T030000", "before the year"),
        ("BEGIN:STANDARD", "BEGIN:OTHER", ""),
    ],
)
def test_a_zone_that_cannot_be_computed_within_bounds_is_refused(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    zone = CUSTOM_ZONE.replace(old, new).replace("END:STANDARD", "END:OTHER" if "OTHER" in new else "END:STANDARD")
    items = read(event("DTSTART;TZID=House Time:20270701T090000\nDURATION:PT1H\n", zone), tmp_path)
    if reason:
        assert isinstance(items[0], Refusal)
        assert reason in items[0].reason


def test_floating_times_take_the_calendars_zone_then_the_callers(tmp_path: Path) -> None:
    times = "DTSTART:20270701T090000\nDURATION:PT1H\n"
    assert "floating" in refused(event(times), tmp_path)
    assert booked(event(times), tmp_path, "Asia/Tokyo").command.time_zone == "Asia/Tokyo"
    head = "X-WR-TIMEZONE:Europe/Berlin\n"
    assert booked(event(times, head), tmp_path, "Asia/Tokyo").command.start.hour == 7


def test_utc_times_are_shown_in_the_calendars_zone_but_a_series_stays_in_utc(tmp_path: Path) -> None:
    head = "X-WR-TIMEZONE:Europe/Berlin\n"
    single, series = booked(event(TIMES, head), tmp_path), booked(event(TIMES + "RRULE:FREQ=DAILY\n", head), tmp_path)
    assert (single.command.time_zone, series.command.time_zone) == ("Europe/Berlin", "UTC")
    assert single.command.start == series.command.start


def test_a_series_keeps_its_rule(tmp_path: Path) -> None:
    rule = "freq=weekly;byday=MO,-1FR;UNTIL=20270401T000000Z;"
    command = booked(event(f"{TIMES}RRULE:{rule}\n"), tmp_path).command
    assert command.recurrence == "FREQ=WEEKLY;BYDAY=MO,-1FR;UNTIL=20270401T000000Z"
    assert booked(event(f"{TIMES}RRULE:\nEXDATE:\n"), tmp_path).command.recurrence is None


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("COUNT=3", "FREQ is missing"),
        ("FREQ=SOMETIMES", "FREQ must be"),
        ("FREQ=SECONDLY", "not SECONDLY"),
        ("FREQ=DAILY;COUNT=0", "COUNT must lie"),
        ("FREQ=DAILY;COUNT=-1", "COUNT must lie"),
        ("FREQ=DAILY;COUNT=1,2", "COUNT is one number"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL must lie"),
        ("FREQ=DAILY;INTERVAL=x", "INTERVAL must lie"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270401T000000Z", "exclude each other"),
        ("FREQ=DAILY;COUNT=2;COUNT=3", "twice"),
        ("FREQ=DAILY;UNTIL=20270401", "UNTIL must be a UTC time"),
        ("FREQ=DAILY;UNTIL=20270401T000000", "UNTIL must be a UTC time"),
        ("FREQ=DAILY;UNTIL=20270231T000000Z", "no date that exists"),
        ("FREQ=DAILY;UNTIL=20260401T000000Z", "no occurrence is left"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "not 0"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY must lie"),
        ("FREQ=YEARLY;BYMONTH=13", "BYMONTH must lie"),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY"),
        ("FREQ=WEEKLY;WKST=XX", "WKST"),
        ("FREQ=DAILY;BYHOUR=9,10;BYMINUTE=0,5,10,15,20,25,30,35,40,45,50,55,59", "times a day"),
        ("RSCALE=HEBREW;FREQ=YEARLY", "unknown part"),
        ("FREQ=DAILY;BYMONTHDAY=" + ",".join(["1"] * 300), "500 characters"),
    ],
)
def test_a_rule_that_no_provider_can_keep_is_refused(rule: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(event(f"{TIMES}RRULE:{rule}\n"), tmp_path)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ("DTEND:20270301T100000Z\n", "DTSTART is missing"),
        ("DTSTART:20270301T090000Z\n", "no end"),
        ("DTSTART:20270301T100000Z\nDTEND:20270301T090000Z\n", "end must be later"),
        ("DTSTART:20270301T100000Z\nDTEND:20270301T100000Z\n", "end must be later"),
        ("DTSTART;VALUE=DATE:20270301\nDTEND;VALUE=DATE:20270301\n", "end must be later"),
        ("DTSTART:20270301T100000Z\nDTEND;VALUE=DATE:20270302\n", "DTEND is a date"),
        ("DTSTART;VALUE=DATE:20270301\nDTEND:20270302T000000Z\n", "DTEND is a time"),
        ("DTSTART;VALUE=DATE:20270301T000000Z\nDURATION:P1D\n", "VALUE=DATE"),
        ("DTSTART;VALUE=DATE:20270301\nDURATION:PT5H\n", "in days"),
        ("DTSTART;VALUE=DATE:20270301\nDURATION:P1D\nDTEND;VALUE=DATE:20270302\n", "exclude each other"),
        (TIMES + "DURATION:PT1H\n", "exclude each other"),
        ("DTSTART:20270301T100000Z\nDURATION:-PT1H\n", "must be positive"),
        ("DTSTART:20270301T100000Z\nDURATION:PT0S\n", "must be positive"),
        ("DTSTART:20270301T100000Z\nDURATION:P\n", "not a duration"),
        ("DTSTART:20270301T100000Z\nDURATION:P999D\n", "366 days"),
        ("DTSTART:99991231T100000Z\nDURATION:P99999D\n", "outside the calendar"),
        ("DTSTART:99991231\n", "outside the calendar"),
        ("DTSTART:20270301T100000Z\nDTEND:20280401T100000Z\n", "366 days"),
        ("DTSTART:16010301T100000Z\nDURATION:PT1H\n", "1970"),
        ("DTSTART:20270230T100000Z\nDURATION:PT1H\n", "DTSTART: no date or time that exists"),
        ("DTSTART:20270301T100060Z\nDURATION:PT1H\n", "no date or time that exists"),
        ("DTSTART:20270301T10:00\nDURATION:PT1H\n", "neither a date nor a time"),
        ("DTSTART;TZID=Europe/Berlin:20270328T023000\nDURATION:PT1H\n", "DTSTART: 2027-03-28 02:30:00 does not exist"),
        ("DTSTART;TZID=Europe/Berlin:20271031T023000\nDURATION:PT1H\n", "happens twice"),
        ("DTSTART;TZID=Europe/Berlin:20270327T023000\nDURATION:P1D\n", "DURATION: 2027-03-28 02:30:00 does not exist"),
        ("DTSTART;TZID=Europe/Berln:20270301T090000\nDURATION:PT1H\n", "did you mean 'Europe/Berlin'"),
        (TIMES + "DTSTART:20270302T090000Z\n", "DTSTART stands there 2 times"),
        (TIMES + "STATUS:CANCELLED\n", "CANCELLED"),
        (TIMES + "RRULE:FREQ=DAILY\nEXDATE:20270302T090000Z\n", "EXDATE"),
        (TIMES + "RDATE:20270302T090000Z\n", "RDATE"),
        (TIMES + "RRULE:FREQ=DAILY\nRRULE:FREQ=WEEKLY\n", "RRULE stands there 2 times"),
        (TIMES + "RECURRENCE-ID;RANGE=THISANDFUTURE:20270301T090000Z\n", "all later ones"),
        (TIMES + "RECURRENCE-ID:20270301T090000Z\nRRULE:FREQ=DAILY\n", "all later ones"),
        (TIMES + "LOCATION:" + "x" * 256 + "\n", "/location: String should have at most 255"),
        (TIMES + "LOCATION:a\x07b\n", "/location: holds control characters"),
        (TIMES + "".join(f"ATTENDEE:mailto:p{n}@example.org\n" for n in range(51)), "/attendees"),
        (TIMES + "DTEND=never\n", "line 8: DTEND cannot be read"),
    ],
)
def test_an_event_that_asks_for_no_booking_is_refused_with_the_reason(
    properties: str, reason: str, tmp_path: Path
) -> None:
    assert reason in refused(event(properties), tmp_path)


def test_a_summary_over_the_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    text = calendar(EVENT.replace("Check-up", "x" * 256))
    assert "/summary: String should have at most 255 characters" in refused(text, tmp_path)


def test_a_refusal_names_the_event_and_is_fit_for_a_terminal(tmp_path: Path) -> None:
    text = calendar(f"BEGIN:VEVENT\nUID:\x1b[31m{'u' * 500}\nSUMMARY:\x1b[2Jboo\\nboo\nEND:VEVENT\n")
    (item,) = read(text, tmp_path)
    assert isinstance(item, Refusal)
    assert item.item.isprintable()
    assert item.summary.isprintable()
    assert len(item.item) <= 120
    (nameless,) = read(calendar("BEGIN:VEVENT\nEND:VEVENT\n"), tmp_path)
    assert isinstance(nameless, Refusal)
    assert (nameless.item, nameless.summary) == ("line 3", "(no summary)")


def test_a_series_in_a_zone_without_a_name_is_refused(tmp_path: Path) -> None:
    times = "DTSTART;TZID=House Time:20270701T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY\n"
    assert "no IANA name" in refused(event(times, CUSTOM_ZONE), tmp_path)


@pytest.mark.parametrize("name", ["VTODO", "VJOURNAL", "VFREEBUSY", "VAVAILABILITY", "X-THING"])
def test_what_is_not_an_event_is_refused_by_name(name: str, tmp_path: Path) -> None:
    assert refused(calendar(f"BEGIN:{name}\nUID:1\nEND:{name}\n"), tmp_path) == f"{name} is not an event"


@pytest.mark.parametrize("method", ["CANCEL", "REPLY", "REFRESH", "COUNTER"])
def test_a_method_that_announces_no_event_books_nothing(method: str, tmp_path: Path) -> None:
    assert f"METHOD is {method}" in refused(calendar(EVENT, f"METHOD:{method}\n"), tmp_path)
    assert booked(calendar(EVENT, "METHOD:REQUEST\n"), tmp_path)


def test_the_key_is_the_calendar_and_the_uid_whatever_the_file(tmp_path: Path) -> None:
    one = booked(calendar(EVENT), tmp_path)
    moved = booked(calendar(EVENT.replace("T100000Z", "T110000Z")), tmp_path)
    (other,) = ics.read(calendar(EVENT), Scope("other.ics", "second"))
    assert isinstance(other, Intake)
    assert re.fullmatch("ics-[0-9a-f]{40}", one.key)
    assert one.key == moved.key != other.key


def test_without_a_uid_the_content_is_the_key(tmp_path: Path) -> None:
    nameless = EVENT.replace("UID:one\n", "")
    one = booked(calendar(nameless), tmp_path)
    again = booked(calendar(nameless, "PRODID:x\n"), tmp_path)
    other = booked(calendar(nameless.replace("Check-up", "Other")), tmp_path)
    assert one.key == again.key != other.key
    assert one.item == "line 3"


def test_of_two_revisions_the_later_counts(tmp_path: Path) -> None:
    early = EVENT.replace("END:VEVENT", "SEQUENCE:9\nDTSTAMP:20260101T000000Z\nEND:VEVENT")
    late = EVENT.replace("Check-up", "Late").replace("END:VEVENT", "SEQUENCE:10\nEND:VEVENT")
    first, second = read(calendar(late + early), tmp_path)
    assert isinstance(first, Intake)
    assert first.command.summary == "Late"
    assert isinstance(second, Refusal)
    assert "later revision" in second.reason
    cancelled = late.replace("END:VEVENT", "STATUS:CANCELLED\nEND:VEVENT")
    assert all(isinstance(item, Refusal) for item in read(calendar(early + cancelled), tmp_path))


def test_a_uid_with_two_contents_books_neither(tmp_path: Path) -> None:
    items = read(calendar(EVENT + EVENT.replace("Check-up", "Other")), tmp_path)
    assert [isinstance(item, Refusal) and "2 different events" in item.reason for item in items] == [True, True]


def test_an_event_that_stands_there_twice_is_booked_once(tmp_path: Path) -> None:
    for text in (EVENT, EVENT.replace("UID:one\n", "")):
        first, second = read(calendar(text + text), tmp_path)
        assert isinstance(first, Intake)
        assert isinstance(second, Refusal)
        assert "stands in the file before" in second.reason


def test_a_series_with_changed_occurrences_is_refused_whole(tmp_path: Path) -> None:
    series = EVENT.replace("END:VEVENT", "RRULE:FREQ=DAILY\nEND:VEVENT")
    change = EVENT.replace("END:VEVENT", "RECURRENCE-ID:20270302T090000Z\nEND:VEVENT")
    master, changed = read(calendar(series + change), tmp_path)
    assert isinstance(master, Refusal)
    assert "1 changed occurrences" in master.reason
    assert isinstance(changed, Refusal)
    assert changed.item == "one (20270302T090000Z)"


def test_a_changed_occurrence_without_its_series_is_an_appointment_of_its_own(tmp_path: Path) -> None:
    changes = [EVENT.replace("END:VEVENT", f"RECURRENCE-ID:2027030{day}T090000Z\nEND:VEVENT") for day in (2, 3)]
    items = read(calendar("".join(changes)), tmp_path)
    assert len({item.key for item in items if isinstance(item, Intake)}) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no appointment"),
        (b"hello", "not iCalendar"),
        (b"BEGIN:VCALENDAR\nEND:VCALENDAR\n", "holds no appointment"),
        (b"\xff\xfe", "not UTF-8"),
        (b"BEGIN:VCALENDAR\nEND:VEVENT\n", "END:VEVENT without its BEGIN"),
        (b"BEGIN:A\n" * 100_000, "nested deeper"),
        (b"BEGIN:VCALENDAR\nX:" + b"x" * LINE_CHARS_MAX + b"\n", "line 2: longer than"),
        (b"BEGIN:VCALENDAR\nX:\n " + b"x" * LINE_CHARS_MAX + b"\n", "line 2: longer than"),
        (b"x" * (FILE_BYTES_MAX + 1), "larger than 16 MiB"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_a_broken_file_is_one_refusal(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.ics"
    path.write_bytes(content)
    (item,) = read_file(path, "main")
    assert isinstance(item, Refusal)
    assert item.item == ""
    assert reason in item.reason


def test_a_file_that_breaks_off_gives_what_stands_before(tmp_path: Path) -> None:
    whole, torn, frame = read(calendar(EVENT + EVENT.replace("one", "two"))[:-35], tmp_path)
    assert isinstance(whole, Intake)
    assert isinstance(torn, Refusal)
    assert "breaks off inside this event" in torn.reason
    assert isinstance(frame, Refusal)
    assert "breaks off inside this VCALENDAR" in frame.reason
    items = read(calendar(EVENT) + "END:VCALENDAR\n", tmp_path)
    assert [type(item) for item in items] == [Intake, Refusal]


def test_items_over_the_limit_are_not_read(tmp_path: Path) -> None:
    *items, last = read("BEGIN:X\nEND:X\n" * (ITEMS_MAX + 5), tmp_path)
    assert len(items) == ITEMS_MAX
    assert isinstance(last, Refusal)
    assert "more than" in last.reason


def read_or_refuse(text: str) -> list[Item]:
    try:
        return list(ics.read(text, Scope("any.ics", "main", "Europe/Berlin")))
    except FileRefused:
        return []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise(content: bytes) -> None:
    read_or_refuse(content.decode("utf-8", "replace"))


_NAMES = ["DTSTART", "DTEND", "DURATION", "RRULE", "UID", "ATTENDEE", "RECURRENCE-ID", "SEQUENCE", "BEGIN", "END"]
_VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["VEVENT", "VTIMEZONE", "STANDARD", "20270301", "20270301T090000", "99991231T235959Z", "00010101"]),
    st.sampled_from(["P1W", "-P1D", "FREQ=DAILY;COUNT=2", "mailto:a@b", "+0100", "a\\"]),
)
_PARAMETERS = st.sampled_from(["", ";VALUE=DATE", ";TZID=Zone", ";TZID=America/New_York", ';CN="', ";;", ";X=^n,"])


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_NAMES), _PARAMETERS, _VALUES), max_size=12), st.booleans())
def test_no_properties_raise(lines: list[tuple[str, str, str]], as_zone: bool) -> None:
    body = "".join(f"{name}{parameters}:{value}\n" for name, parameters, value in lines)
    zone = "BEGIN:VTIMEZONE\nTZID:Zone\nBEGIN:STANDARD\n" + body + "END:STANDARD\nEND:VTIMEZONE\n" if as_zone else ""
    text = event(f"{TIMES if as_zone else ''}{body}DTSTART;TZID=Zone:20270301T090000\n", zone)
    assert read_or_refuse(text) == read_or_refuse(text)
