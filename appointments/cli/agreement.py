"""Does the calendar agree with the log? Read by the `caldav` library's own client, by no code of our adapter."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from caldav.collection import Calendar as Collection
from caldav.davclient import DAVClient
from icalendar import Calendar, Event

from domain.appointment import Appointment
from domain.lifecycle import State
from domain.provider import BookingDetails, Value
from projections.listing import appointments
from store.port import Store

TIMEOUT_S = 120
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class CalendarHome:
    """A calendar on a CalDAV server, and how to sign in."""

    url: str
    username: str
    password: str
    calendar: str


class Agreement(Value):
    """What comparing the calendar with the log has shown."""

    agrees: bool
    events: int
    """Events in the calendar."""
    confirmed: int
    """Appointments that the log says are confirmed."""
    differences: tuple[str, ...]


async def compare(store: Store, home: CalendarHome) -> Agreement:
    """Every confirmed appointment is there exactly once, with its times and its summary, and nothing else is."""
    confirmed: dict[str, BookingDetails] = {}
    async for state in appointments(store):
        if _expected(state, home.calendar):
            assert state.details is not None
            confirmed[str(state.id)] = state.details
    found = await asyncio.to_thread(read_calendar, home)
    differences = tuple(_differences(confirmed, found))
    return Agreement(
        agrees=not differences, events=len(found), confirmed=len(confirmed), differences=differences[:SHOWN_MAX]
    )


def read_calendar(home: CalendarHome) -> list[Event]:
    """Every event in the calendar, one query; blocks."""
    client = DAVClient(url=home.url, username=home.username, password=home.password, timeout=TIMEOUT_S)
    with client:
        stored: object = Collection(client=client, url=f"{home.url}{home.calendar}/").search(event=True)
        assert isinstance(stored, list)
        parts = [part for one in stored for part in Calendar.from_ical(one.data).walk("VEVENT")]
    return [part for part in parts if isinstance(part, Event)]


def _expected(state: Appointment, calendar: str) -> bool:
    return state.state is State.CONFIRMED and state.details is not None and state.details.calendar == calendar


def _differences(confirmed: Mapping[str, BookingDetails], found: list[Event]) -> list[str]:
    ids = Counter(str(event.get("UID")) for event in found)
    told = [f"{id}: confirmed, but not in the calendar" for id in confirmed if id not in ids]
    told += [f"{id}: in the calendar {count} times" for id, count in ids.items() if count > 1]
    for event in found:
        id = str(event.get("UID"))
        if id not in confirmed:
            told.append(f"{id}: in the calendar, but not confirmed")
            continue
        wanted = confirmed[id]
        start, end = (_instant(event.decoded(name, None), wanted.time_zone) for name in ("DTSTART", "DTEND"))
        summary = str(event.get("SUMMARY"))
        if start != wanted.start:
            told.append(f"{id}: starts at {start}, not at {wanted.start}")
        if end != wanted.end:
            told.append(f"{id}: ends at {end}, not at {wanted.end}")
        if summary != wanted.summary:
            told.append(f"{id}: is called {summary!r}, not {wanted.summary!r}")
    return told


def _instant(given: date | None, zone: str) -> datetime | None:
    """A date begins at midnight in the appointment's zone."""
    if given is None:
        return None
    if not isinstance(given, datetime):
        return datetime.combine(given, time(), ZoneInfo(zone)).astimezone(UTC)
    return given.astimezone(UTC)
