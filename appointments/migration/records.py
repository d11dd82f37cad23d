"""What is to be taken over: records of the legacy system as JSON Lines, or the provider's own listing.

Each becomes a candidate, or a refusal that says where and why. Nothing here asks the log.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from appointments.intake.jsonl import to_object
from domain.commands import BookAppointment, Key, TimeZoneName, parse
from domain.errors import InvalidFields
from domain.provider import BookingStatus, Call, Provider, ProviderBooking, Value

LINE_MAX = 65_536
PAGE = 100
LISTING_TIMEOUT_MS = 60_000
Origin = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]


class Defaults(Value):
    """What a source does not say itself."""

    source: Origin = "legacy"
    """The system that made the bookings; with its own id it makes the key, where it knows none."""
    calendar: str = "main"
    time_zone: TimeZoneName = "UTC"


class LegacyRecord(BookAppointment):
    """One appointment as the legacy system knows it. Its fields are those of a booking, and where that stands."""

    id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
    """The legacy system's own."""
    key: Key | None = None
    """What clients go on using for it, where there is such a thing."""
    provider_ref: str = Field(min_length=1, max_length=1_024)
    status: BookingStatus = BookingStatus.ACCEPTED


@dataclass(frozen=True, slots=True)
class Candidate:
    """A booking that may be taken over. `where`: a line, or the provider's reference."""

    where: str
    key: str
    booked: BookAppointment
    booking: ProviderBooking


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One that is not taken over. `skipped`: nothing is wrong with it."""

    where: str
    reason: str
    skipped: bool = False


Entry = Candidate | LeftOut
_BOOKED = frozenset(BookAppointment.model_fields)


def from_lines(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """The records of a JSON Lines file, in its order; blank lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_MAX + 1), b""), start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            if len(line) > LINE_MAX:
                yield LeftOut(where, f"the line is longer than {LINE_MAX} bytes; nothing behind it was read")
                return
            try:
                yield _of_record(where, _record(line, defaults), defaults)
            except InvalidFields as refused:
                yield LeftOut(where, refused.detail)


def _record(line: bytes, defaults: Defaults) -> LegacyRecord:
    try:
        fields = to_object(line.decode())
    except UnicodeDecodeError:
        raise InvalidFields("the line is not UTF-8") from None
    return parse(LegacyRecord, {"calendar": defaults.calendar, "time_zone": defaults.time_zone, **fields})


def _of_record(where: str, record: LegacyRecord, defaults: Defaults) -> Entry:
    if record.status is not BookingStatus.ACCEPTED:
        return LeftOut(where, f"the booking is {record.status}", skipped=True)
    booked = BookAppointment.model_validate(record.model_dump(include=set(_BOOKED), exclude_unset=True))
    booking = ProviderBooking(provider_ref=record.provider_ref, status=record.status)
    return Candidate(where, record.key or f"{defaults.source}:{record.id}", booked, booking)


async def from_listing(provider: Provider, defaults: Defaults) -> AsyncIterator[Entry]:
    """What stands in a calendar, page by page. Raises `ProviderUnavailable`."""
    async for booking in listed(provider, defaults.calendar):
        where = booking.provider_ref
        if booking.status is not BookingStatus.ACCEPTED:
            yield LeftOut(where, f"the booking is {booking.status}", skipped=True)
            continue
        if booking.start is None or booking.end is None:
            yield LeftOut(where, "the listing tells no times: give it as a record")
            continue
        try:
            booked = parse(BookAppointment, _fields(booking, booking.start, booking.end, defaults))
        except InvalidFields as refused:
            yield LeftOut(where, refused.detail)
            continue
        yield Candidate(where, f"{defaults.source}:{where}"[:255], booked, booking)


async def listed(provider: Provider, calendar: str) -> AsyncIterator[ProviderBooking]:
    """Every booking of a calendar. Raises `ProviderUnavailable`."""
    call = Call(operation_id="backfill", client_ref="backfill", timeout_ms=LISTING_TIMEOUT_MS)
    token: str | None = None
    more = True
    while more:
        page = await provider.listing(call, calendar, token, PAGE)
        for booking in page.bookings:
            yield booking
        token, more = page.next_token, page.more


def _fields(booking: ProviderBooking, start: datetime, end: datetime, defaults: Defaults) -> dict[str, object]:
    # A listing need not tell what it is about; that the log says so is better than to leave the booking out.
    summary = " ".join((booking.summary or "").split()) or f"Taken over from {defaults.source}"
    return {
        "calendar": defaults.calendar,
        "start": start,
        "end": end,
        "time_zone": defaults.time_zone,
        "summary": "".join(c for c in summary if c.isprintable())[:255],
    }
