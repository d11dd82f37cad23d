"""Lets the legacy system make a booking, as it always has: one POST, without key, client reference or repeat.

Owns that call, and the way to find its booking again when the answer was lost. Everything that the legacy system does
not have (read, cancel, move, list) goes by the provider's own adapter, so one system alone makes each call.
"""

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from domain.errors import ProviderUnavailable
from domain.provider import (
    LIVE,
    BookingDetails,
    Call,
    Capabilities,
    Found,
    Missing,
    Page,
    Provider,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    SyncExpired,
    Unknown,
    Value,
    WriteOutcome,
)
from providers.api_v2 import NOBODY
from providers.api_v2_answers import refused, same_times, taken
from providers.exchange import Deadline, Exchange, Failure
from providers.outcomes import failed

VIA = "/legacy"
"""Behind a provider's name: its calendar, by way of the legacy system."""
ANSWERED_MAX = 10_000
PAGE_LIMIT = 100
PAGES_MAX = 1_000


class Wanted(Value):
    """What the log says of one appointment: what is to be booked, and the booking where it is known."""

    details: BookingDetails
    provider_ref: str | None = None


class Claims(Protocol):
    """What the log says of appointments and of the bookings that they hold."""

    async def wanted(self, client_ref: str) -> Wanted:
        """The appointment with this reference."""
        ...

    async def unclaimed(self, client_ref: str, details: BookingDetails, refs: Collection[str]) -> frozenset[str] | None:
        """Those of `refs` that no appointment holds; None while another than this one may have made one of them."""
        ...


class LegacyCalendar:
    """The legacy system in front of a provider; `url` ends before `/bookings`.

    It is asked once for each appointment. A booking that it made bears no reference, so it is known again by its
    content alone, and only where nobody else can have made it. Nothing seen proves nothing while the legacy system,
    which has no time limit, may still be at it; only after it has answered with an error is an absence told as one.
    """

    routes: Mapping[str, str] = {"create": "POST /bookings"}
    """What goes to the legacy system itself, over HTTP, below its address."""

    def __init__(self, own: Provider, url: str, claims: Claims) -> None:
        self.name = own.name + VIA
        self.keeps = own.name
        able = own.capabilities
        self.capabilities = Capabilities(
            resend=False,
            lookup=True,
            reschedule=able.reschedule,
            conditional=able.conditional,
            sync=able.sync,
            settle_ms=able.settle_ms,
        )
        self._own, self._claims = own, claims
        self._url = f"{url.rstrip('/')}/bookings"
        self._exchange = Exchange({})
        self._answered: OrderedDict[str, None] = OrderedDict()
        """Appointments for which this process has heard an error: the legacy system is done with them."""

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """The one POST."""
        if details.recurrence or details.all_day:
            return Rejected(reason="the legacy system books no series and no whole days")
        answer = await self._exchange.send(
            "POST",
            self._url,
            Deadline.of(call),
            headers={"Content-Type": "application/json"},
            body=json.dumps(as_sent(details)).encode(),
        )
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status < 300:
            return taken(answer, call, replayed=False)
        self._answered[call.client_ref] = None
        if len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)
        return refused(answer)

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        """The booking of this appointment: by its place where that is known, else by its content in the listing."""
        wanted = await self._claims.wanted(call.client_ref)
        if wanted.provider_ref is not None:
            return await self._own.get(call, calendar, wanted.provider_ref)
        try:
            alike = await self._alike(call, wanted.details)
        except (ProviderUnavailable, SyncExpired) as fault:
            return Unknown(reason=str(fault)[:500])
        # The log is read after the listing: whoever made what was listed stands in the log by now.
        free = await self._claims.unclaimed(call.client_ref, wanted.details, tuple(alike))
        if free is None or len(free) > 1:
            return _undecided("several appointments with the same times are in doubt, and bookings bear no name")
        if free:
            return Found(booking=alike[next(iter(free))])
        if call.client_ref in self._answered:
            return Missing()
        return _undecided("not to be seen, and the legacy system has no time limit: it may still book")

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        """By the provider's own adapter."""
        return await self._own.get(call, calendar, provider_ref)

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        """By the provider's own adapter: the legacy system cancels nothing."""
        return await self._own.cancel(call, calendar, provider_ref)

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        """By the provider's own adapter: the legacy system moves nothing."""
        return await self._own.reschedule(call, provider_ref, etag, details)

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """By the provider's own adapter."""
        return await self._own.listing(call, calendar, token, limit)

    async def close(self) -> None:
        """Free the connections to the legacy system; the provider's own adapter is somebody else's to close."""
        await self._exchange.close()

    async def _alike(self, call: Call, details: BookingDetails) -> dict[str, ProviderBooking]:
        """Live bookings without a reference that have this content, as far as the provider tells it."""
        deadline, token = Deadline.of(call), None
        alike: dict[str, ProviderBooking] = {}
        for _ in range(PAGES_MAX):
            page = await self._own.listing(call, details.calendar, token, PAGE_LIMIT)
            for booking in page.bookings:
                alike.pop(booking.provider_ref, None)
                told = booking.summary in (None, details.summary)
                if not booking.client_ref and booking.status in LIVE and told and same_times(booking, details):
                    alike[booking.provider_ref] = booking
            if not page.more:
                return alike
            token = page.next_token
            if deadline.passed():
                break
        raise ProviderUnavailable(f"{self.name}: the calendar is too long to be listed in time")


def _undecided(reason: str) -> Retryable:
    """The provider has answered, so it does not count against it; what it showed decides nothing as yet."""
    return Retryable(reason=reason, throttled=True)


def as_sent(details: BookingDetails) -> dict[str, Any]:
    """The body as the legacy system sends it: what the provider takes, and no reference."""
    organizer = details.organizer or NOBODY
    sent = {
        "calendar_id": details.calendar,
        "start": details.start.isoformat().replace("+00:00", "Z"),
        "end": details.end.isoformat().replace("+00:00", "Z"),
        "time_zone": details.time_zone,
        "summary": details.summary,
        "location": details.location,
        "organizer": {"email": organizer.email},
        "attendees": [party.model_dump(exclude_none=True) for party in details.attendees or (organizer,)],
        "metadata": details.metadata,
    }
    return {name: value for name, value in sent.items() if value not in (None, {})}
