"""What is to be taken over: records of the legacy system as JSON Lines, or the provider's own listing.

Each becomes a candidate, or a refusal that says where and why. Nothing here asks the log.
"""

import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from appointments.intake.jsonl import to_object
from domain.commands import BookAppointment, Key, TimeZoneName, parse
from domain.errors import InvalidFields, ProviderUnavailable
from domain.provider import BookingStatus, Provider, ProviderBooking, SyncExpired, Value
from projections.reconciliation.calendar import pages
from projections.reconciliation.intended import Scope

LINE_MAX = 65_536
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
    client_ref: str = Field(default="", max_length=1_024)
    """The reference that the legacy system gave the booking, where it gave one."""
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
_KEY = re.compile(r"[!-~]{1,255}")


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; of one that is too long, as much as shows that it is."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_MAX + 1), b""), start=1):
            rest = line
            while len(rest) > LINE_MAX and not rest.endswith(b"\n"):
                rest = file.readline(LINE_MAX + 1)
            # Programs of one vendor begin a file with a mark.
            text = line.removeprefix(BOM_UTF8) if number == 1 else line
            if text.strip():
                yield number, text


def from_lines(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """The records of a JSON Lines file, in its order; blank lines are passed over."""
    for number, line in lines(path):
        where = f"{path.name}:{number}"
        try:
            yield _of_record(where, _record(line, defaults), defaults)
        except InvalidFields as refused:
            yield LeftOut(where, refused.detail)


def _record(line: bytes, defaults: Defaults) -> LegacyRecord:
    if len(line) > LINE_MAX:
        raise InvalidFields(f"the line is longer than {LINE_MAX} bytes")
    try:
        fields = to_object(line.decode())
    except UnicodeDecodeError:
        raise InvalidFields("the line is not UTF-8") from None
    return parse(LegacyRecord, {"calendar": defaults.calendar, "time_zone": defaults.time_zone, **fields})


def _of_record(where: str, record: LegacyRecord, defaults: Defaults) -> Entry:
    if record.status is not BookingStatus.ACCEPTED:
        return LeftOut(where, f"the booking is {record.status}", skipped=True)
    booked = BookAppointment.model_validate(record.model_dump(include=set(_BOOKED), exclude_unset=True))
    booking = ProviderBooking(
        provider_ref=record.provider_ref, client_ref=record.client_ref, status=BookingStatus.ACCEPTED
    )
    return Candidate(where, record.key or made_key(defaults.source, record.id), booked, booking)


async def from_listing(provider: Provider, defaults: Defaults, tenant: str = "default") -> AsyncIterator[Entry]:
    """What stands in a calendar, page by page. Raises `ProviderUnavailable`."""
    async for booking in listed(provider, defaults.calendar, tenant):
        where = booking.provider_ref
        if booking.status is not BookingStatus.ACCEPTED:
            yield LeftOut(where, f"the booking is {booking.status}", skipped=True)
            continue
        try:
            booked = parse(BookAppointment, _fields(booking, defaults))
        except InvalidFields as refused:
            yield LeftOut(where, f"{refused.detail}; give it as a record")
        else:
            yield Candidate(where, made_key(defaults.source, where), booked, booking)


async def listed(provider: Provider, calendar: str, tenant: str) -> AsyncIterator[ProviderBooking]:
    """Every booking of a calendar; one that changes meanwhile may be told twice. Raises `ProviderUnavailable`."""
    try:
        async for page in pages(provider, Scope(calendar, provider.name, tenant)):
            for booking in page.bookings:
                yield booking
    except SyncExpired:
        raise ProviderUnavailable(
            f"{provider.name}: the listing of {calendar!r} broke off, as its token had expired: run it again"
        ) from None


def made_key(source: str, name: str) -> str:
    """The key of what has none: its name in the system that made it, by a hash where that can be no key."""
    key = f"{source}:{name}"
    return key if _KEY.fullmatch(key) else f"{source}:{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _fields(booking: ProviderBooking, defaults: Defaults) -> dict[str, object]:
    # A provider that tells no titles shows none that ours could differ from; an empty one is told, and would differ.
    title = f"Taken over from {defaults.source}" if booking.summary is None else " ".join(booking.summary.split())
    told = {"start": booking.start, "end": booking.end, "summary": title or None}
    missing = tuple((f"/{name}", "the listing tells none") for name, value in told.items() if value is None)
    if missing:
        raise InvalidFields("; ".join(f"{pointer}: {detail}" for pointer, detail in missing), missing)
    return {"calendar": defaults.calendar, "time_zone": defaults.time_zone, **told}
