"""CalDAV adapter of the provider port: any RFC 4791 server, one resource for each booking.

The href follows from the client reference, so that `If-None-Match: *` makes a repeat harmless. HTTP is aiohttp and not
the `caldav` library's client: that one signs in and waits and repeats by itself, and its HTTP library cannot tell a
refused connection from one that dropped after sending, which is the difference between `Retryable` and `Unknown`.
`webdav` reads the multistatus answers, `ical` the events.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from domain.errors import ProviderUnavailable
from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Capabilities,
    Confirmed,
    Found,
    Missing,
    Page,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    Unknown,
    WriteOutcome,
)
from providers import ical, webdav
from providers.caldav_listing import CalendarHome, Listing, event_booking
from providers.exchange import CONNECTIONS_MAX, Answer, Deadline, Exchange, Failure
from providers.outcomes import describe, failed, printable, refused_read, refused_write, told

ENSURE_TIMEOUT_MS = 10_000
ICALENDAR = {"Content-Type": "text/calendar; charset=utf-8"}
CHANGED = "the booking has changed since it was read"


@dataclass(frozen=True)
class _Stored:
    """An event as the server holds it."""

    name: str
    etag: str | None
    body: bytes
    event: ical.CalendarEvent


class CalDavProvider:
    """A CalDAV calendar home: calendar `main` is the collection `<url>/main/`.

    `now` gives the DTSTAMP of what is written. `sync=False` lists by PROPFIND, for servers without RFC 6578.
    """

    def __init__(
        self,
        name: str,
        url: str,
        username: str,
        password: str,
        *,
        now: Callable[[], datetime],
        settle_ms: int = 2_000,
        sync: bool = True,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(settle_ms=settle_ms, sync=sync)
        self._now = now
        login = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._exchange = Exchange({"Authorization": f"Basic {login}"}, connections_max=connections_max)
        self._home = CalendarHome(url)
        self._listing = Listing(self._exchange, self._home, sync=sync)

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """PUT a new resource; what stands there already is read back and compared.

        A cancelled event of ours is written over if it still has the etag that the call names.
        """
        deadline = Deadline.of(call)
        name = f"{call.client_ref}.ics"
        try:
            body = ical.write_event(call.client_ref, details, self._now())
        except ical.Unwritable as fault:
            return Rejected(reason=printable(str(fault)))
        answer = await self._put(details.calendar, name, deadline, {"If-None-Match": "*"}, body)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status in (200, 201, 204):
            return Confirmed(booking=_written(call.client_ref, name, answer, details, version=1))
        if answer.status in (409, 412) or webdav.precondition(answer) == "no-uid-conflict":
            return await self._compare(call, details, name, answer, deadline)
        return _refused(answer)

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        """GET one resource by its name in the calendar."""
        if not _names_resource(provider_ref):
            return Missing()
        stored = await self._fetch(calendar, provider_ref, Deadline.of(call))
        return Found(booking=_booking(stored)) if isinstance(stored, _Stored) else stored

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        """GET the resource whose name follows from the client reference."""
        found = await self.get(call, calendar, f"{call.client_ref}.ics")
        if isinstance(found, Found) and found.booking.client_ref != call.client_ref:
            return Unknown(reason="another booking stands where this client reference leads")
        return found

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        """DELETE the resource; a missing one is cancelled already."""
        if not _names_resource(provider_ref):
            return Rejected(reason="the reference names no resource")
        url = self._home.url(calendar, provider_ref)
        answer = await self._exchange.send("DELETE", url, Deadline.of(call))
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status in (200, 204, 404, 410):
            return Confirmed(replayed=answer.status in (404, 410))
        return _refused(answer)

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        """Read, then PUT with If-Match: other times and the next SEQUENCE, every other property kept."""
        if not _names_resource(provider_ref):
            return Rejected(reason="the reference names no resource")
        deadline = Deadline.of(call)
        stored = _to_move(await self._fetch(details.calendar, provider_ref, deadline), details, etag)
        if not isinstance(stored, _Stored):
            return stored
        try:
            body = ical.move_event(stored.body, details, self._now())
        except (ical.Unwritable, ical.Unreadable) as fault:
            return Rejected(reason=printable(str(fault)))
        condition = {"If-Match": stored.etag or "*"}  # even without an etag, a booking that is gone is not made anew
        answer = await self._put(details.calendar, provider_ref, deadline, condition, body)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status in (200, 201, 204):
            version = stored.event.sequence + 2
            return Confirmed(booking=_written(stored.event.uid, provider_ref, answer, details, version))
        if answer.status in (409, 412):
            again = _to_move(await self._fetch(details.calendar, provider_ref, deadline), details, None)
            return Rejected(reason=CHANGED, conflict=True) if isinstance(again, _Stored) else again
        return _refused(answer)

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """List by sync-collection and calendar-multiget. Raises `SyncExpired` or `ProviderUnavailable`."""
        return await self._listing.page(calendar, token, limit, Deadline.of(call))

    async def ensure_calendar(self, calendar: str, timeout_ms: int = ENSURE_TIMEOUT_MS) -> None:
        """Make the calendar's collection unless it is there (MKCALENDAR). Raises `ProviderUnavailable`."""
        deadline = Deadline(timeout_ms)
        url = self._home.url(calendar)
        made = await self._exchange.send("MKCALENDAR", url, deadline)
        if isinstance(made, Answer) and made.status == 201:
            return
        there = await self._exchange.send(
            "PROPFIND", url, deadline, headers={"Depth": "0", **webdav.XML}, body=webdav.ETAGS
        )
        if not (isinstance(there, Answer) and there.status == 207):
            raise ProviderUnavailable(f"{self.name}: no calendar {calendar!r}: {told(made)}; {told(there)}")

    async def close(self) -> None:
        """Free connections."""
        await self._exchange.close()

    async def _put(
        self, calendar: str, name: str, deadline: Deadline, condition: Mapping[str, str], body: bytes
    ) -> Answer | Failure:
        headers = {**ICALENDAR, **condition}
        return await self._exchange.send("PUT", self._home.url(calendar, name), deadline, headers=headers, body=body)

    async def _fetch(
        self, calendar: str, name: str, deadline: Deadline
    ) -> _Stored | Missing | Rejected | Retryable | Unknown:
        answer = await self._exchange.send("GET", self._home.url(calendar, name), deadline)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status != 200:
            return refused_read(answer, describe(answer))
        try:
            stored = _Stored(name, _etag(answer), answer.body, ical.read_event(answer.body))
            _booking(stored)
        except (ical.Unreadable, ValidationError) as fault:
            return Unknown(reason=printable(f"the stored event cannot be read: {fault}"))
        return stored

    async def _compare(
        self, call: Call, details: BookingDetails, name: str, refused: Answer, deadline: Deadline
    ) -> WriteOutcome:
        """After a refused create: ours already, somebody else's, or nothing at this place."""
        stored = await self._fetch(details.calendar, name, deadline)
        match stored:
            case _Stored(event=event) if call.replaces is not None and event.status is BookingStatus.CANCELLED:
                return await self._replace(call, details, stored, deadline)
            case _Stored(event=event) if event.uid == call.client_ref and event.same_content(details):
                if event.status is BookingStatus.CANCELLED:
                    return Rejected(reason="the booking was cancelled")
                return Confirmed(booking=_booking(stored), replayed=True)
            case _Stored():
                return Rejected(reason="the client reference holds another booking", conflict=True)
            case Missing() if webdav.precondition(refused) == "no-uid-conflict":
                return Rejected(reason="another resource holds this client reference", conflict=True)
            case Missing() if refused.status == 412:
                return Retryable(reason="the resource that was in the way is gone")
            case Missing():
                return _refused(refused)
            case Rejected() | Retryable() | Unknown():
                return Unknown(reason=f"{refused.status}, and the read back failed: {stored.reason}"[:500])

    async def _replace(self, call: Call, details: BookingDetails, stored: _Stored, deadline: Deadline) -> WriteOutcome:
        """Write over a cancelled event, in the place of which the booking is to be made."""
        if call.replaces is None or stored.event.uid != call.client_ref or stored.etag != call.replaces:
            return Rejected(reason="the booking was cancelled")
        sequence = stored.event.sequence + 1
        body = ical.write_event(call.client_ref, details, self._now(), sequence)
        answer = await self._put(details.calendar, stored.name, deadline, {"If-Match": call.replaces}, body)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status in (200, 201, 204):
            return Confirmed(booking=_written(call.client_ref, stored.name, answer, details, sequence + 1))
        if answer.status in (409, 412):
            return Retryable(reason=CHANGED)
        return _refused(answer)


def _to_move(
    stored: _Stored | Missing | Rejected | Retryable | Unknown, details: BookingDetails, etag: str | None
) -> _Stored | WriteOutcome:
    """The event to move, or the outcome where there is nothing to move. Nothing was sent yet: no `Unknown` here."""
    match stored:
        case _Stored(event=event) if event.status is BookingStatus.CANCELLED:
            return Rejected(reason="the booking was cancelled")
        case _Stored(event=event) if event.same_times(details):
            return Confirmed(booking=_booking(stored), replayed=True)
        case _Stored() if etag is not None and etag != stored.etag:
            return Rejected(reason=CHANGED, conflict=True)
        case Missing():
            return Rejected(reason="there is no booking to move")
        case Unknown():
            return Retryable(reason=stored.reason, retry_after_ms=stored.retry_after_ms)
        case _:
            return stored


def _refused(answer: Answer) -> Rejected | Retryable | Unknown:
    detail = describe(answer)
    if answer.status == 507 or webdav.precondition(answer) == "quota-not-exceeded":
        return Rejected(reason=f"{answer.status} {detail}")
    return refused_write(answer, detail)


def _booking(stored: _Stored) -> ProviderBooking:
    return event_booking(stored.name, stored.etag, stored.event)


def _written(client_ref: str, name: str, answer: Answer, details: BookingDetails, version: int) -> ProviderBooking:
    return ProviderBooking(
        provider_ref=name,
        client_ref=client_ref,
        status=BookingStatus.ACCEPTED,
        version=version,
        etag=_etag(answer),
        start=details.start,
        end=details.end,
        summary=details.summary,
    )


def _etag(answer: Answer) -> str | None:
    """The ETag header, where it can be stored and sent back whole."""
    etag = answer.headers.get("ETag", "")
    return etag if re.fullmatch(r"[!-~]{1,1024}", etag) else None


def _names_resource(reference: str) -> bool:
    # these would name the calendar or its home, and a DELETE there would take everything; servers decode a slash first
    return reference not in ("", ".", "..") and "/" not in reference
