"""A booking as it was seen, beside what was asked for: whether both agree, and how that is said."""

from datetime import datetime, time
from typing import Protocol
from zoneinfo import ZoneInfo

from domain.provider import LIVE, BookingDetails, ProviderBooking


class Timed(Protocol):
    """What has a beginning and an end."""

    @property
    def start(self) -> datetime:
        """The beginning."""
        ...

    @property
    def end(self) -> datetime:
        """The end."""
        ...


def stands_as_booked(details: Timed, booking: ProviderBooking) -> bool:
    """Whether it stands at these times, to the second, as calendars keep them; times that are not told agree."""
    pairs = ((details.start, booking.start), (details.end, booking.end))
    return all(seen is None or seen.replace(microsecond=0) == at.replace(microsecond=0) for at, seen in pairs)


def seen_as(seen: ProviderBooking | None) -> str:
    """What was seen, in words that hold nobody's text."""
    if seen is None:
        return "gone from the calendar"
    if seen.status not in LIVE:
        return f"{seen.status} in the calendar"
    times = f", from {seen.start:%Y-%m-%dT%H:%MZ} to {seen.end:%Y-%m-%dT%H:%MZ}" if seen.start and seen.end else ""
    return f"{seen.status} in the calendar as {seen.provider_ref}{times}"


def whole_days(details: BookingDetails) -> bool:
    """Whether it begins and ends at midnight in its zone."""
    zone = ZoneInfo(details.time_zone)
    return all(at.astimezone(zone).time() == time() for at in (details.start, details.end))
