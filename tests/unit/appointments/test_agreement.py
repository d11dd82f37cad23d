"""What a calendar is found to hold that the log does not say, and the other way round."""

from datetime import UTC, datetime

import pytest
from icalendar import Event

from appointments.cli.agreement import _differences
from domain.provider import BookingDetails

WANTED = BookingDetails(
    calendar="main",
    start=datetime(2031, 3, 3, 9, tzinfo=UTC),
    end=datetime(2031, 3, 3, 10, tzinfo=UTC),
    time_zone="UTC",
    summary="Check-up",
)


def event(**changes: str) -> Event:
    fields = {"UID": "1", "DTSTART": "20310303T090000Z", "DTEND": "20310303T100000Z", "SUMMARY": "Check-up", **changes}
    lines = [f"{name}:{value}" for name, value in fields.items() if value]
    made = Event.from_ical("\r\n".join(("BEGIN:VEVENT", *lines, "END:VEVENT")))
    assert isinstance(made, Event)
    return made


def test_what_is_as_it_should_be_differs_in_nothing() -> None:
    assert _differences({"1": WANTED}, [event()]) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"DTSTART": "20310303T093000Z"}, "starts at"),
        ({"DTEND": "20310303T103000Z"}, "ends at"),
        ({"DTEND": ""}, "ends at None"),
        ({"SUMMARY": "Other"}, "is called"),
        ({"UID": "2"}, "not confirmed"),
    ],
)
def test_each_difference_is_told(changes: dict[str, str], told: str) -> None:
    assert any(told in difference for difference in _differences({"1": WANTED}, [event(**changes)]))


def test_one_that_is_missing_and_one_that_is_there_twice_are_told() -> None:
    assert "not in the calendar" in _differences({"1": WANTED}, [])[0]
    assert "2 times" in _differences({"1": WANTED}, [event(), event()])[0]
