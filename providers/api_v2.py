"""Adapter of the provider port for the `/api/v2` booking contract over HTTP.

Every write carries its operation id as `Idempotency-Key`, so that a repeat is replayed by the provider. What an answer
means is decided in `outcomes`; here are the routes, and what the contract adds: read back after a refusal that our own
earlier call may have caused.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from domain.errors import ProviderUnavailable
from domain.provider import (
    BookingDetails,
    Call,
    Capabilities,
    Confirmed,
    Found,
    Missing,
    Page,
    Party,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    SyncExpired,
    Unknown,
    WriteOutcome,
)
from providers.api_v2_answers import (
    IN_FLIGHT,
    LIVE,
    absent_or_not,
    cause_of,
    moved,
    moved_or_not,
    ours_or_not,
    read_booking,
    reason_of,
    refused,
    same_times,
    taken,
    unread,
)
from providers.exchange import BODY_MAX, CONNECTIONS_MAX, Answer, Deadline, Exchange, Failure
from providers.outcomes import failed, retry_after_ms, told
from providers.untrusted import ListAnswer, Unreadable, read_json

LISTING_BODY_MAX = 1_048_576
LIMIT_MAX = 100
GONE = (404, 410)
NOBODY = Party(email="desk@appointments.invalid")
"""Stands in where a booking names no organizer (RFC 2606: the name leads nowhere)."""


class ApiV2Provider:
    """A provider that speaks `/api/v2`; `url` ends before `/bookings`.

    `callback_url` is told with every booking that names none of its own.
    """

    routes: Mapping[str, str] = {
        "create": "POST /bookings",
        "get": "GET /bookings/{id}",
        "find": "GET /bookings",
        "cancel": "POST /bookings/{id}/cancel",
        "reschedule": "POST /bookings/{id}/reschedule",
    }
    """What each call is over HTTP, below the address; one that was refused may be followed by a read."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        callback_url: str | None = None,
        settle_ms: int = 2_000,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(callbacks=callback_url is not None, sync=True, settle_ms=settle_ms)
        self._bookings = f"{url.rstrip('/')}/bookings"
        self._callback_url = callback_url
        self._exchange = Exchange({"Accept": "application/json"}, connections_max=connections_max)

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """POST a booking; after a conflict, read back whose it is."""
        if details.recurrence:
            return Rejected(reason="the provider takes no series")
        deadline = Deadline.of(call)
        answer = await self._post(call, "", _asked(call, details, self._callback_url), deadline)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status < 300:
            return taken(answer, call, replayed=answer.status == 200)
        cause = cause_of(answer)
        if answer.status in (409, 412) and cause.code != IN_FLIGHT:
            return ours_or_not(await self._find(call, deadline), details, cause, reason_of(answer, cause))
        return refused(answer)

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        """GET a booking by the provider's reference."""
        return await self._get(call, provider_ref, Deadline.of(call))

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        """GET the booking with this client reference: the live one, where cancelled ones share it."""
        return await self._find(call, Deadline.of(call))

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        """POST a cancel; an unknown reference is cancelled only if the client reference has nothing live either."""
        deadline = Deadline.of(call)
        answer = await self._post(call, f"{_segment(provider_ref)}/cancel", {}, deadline)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status in GONE:
            return absent_or_not(await self._find(call, deadline))
        if answer.status >= 300:
            return refused(answer)
        outcome = read_booking(answer, call)
        if isinstance(outcome, ProviderBooking) and outcome.status in LIVE:
            return Unknown(reason=f"the cancel was taken, but the booking is {outcome.status}")
        return Confirmed(booking=outcome) if isinstance(outcome, ProviderBooking) else outcome

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        """POST other times under If-Match; after a refusal, read back whether they are in place already."""
        deadline = Deadline.of(call)
        if etag is None:
            current = await self._get(call, provider_ref, deadline)
            if isinstance(current, Retryable | Unknown):  # nothing was sent that could move it
                return Retryable(reason=current.reason, retry_after_ms=current.retry_after_ms)
            if not isinstance(current, Found):
                return moved_or_not(current, details, "there is no booking to move", conflict=False)
            if same_times(current.booking, details):
                return moved_or_not(current, details, "", conflict=False)
            etag = current.booking.etag
        body = {"start": _rfc3339(details.start), "end": _rfc3339(details.end), "time_zone": details.time_zone}
        condition = {"If-Match": etag or "*"}
        answer = await self._post(call, f"{_segment(provider_ref)}/reschedule", body, deadline, condition)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status < 300:
            return moved(answer, call, details)
        cause = cause_of(answer)
        if answer.status in (*GONE, 409, 412, 422) and cause.code != IN_FLIGHT:
            conflict = answer.status in (409, 412)
            there = await self._find(call, deadline)
            if isinstance(there, Missing):  # one that was made elsewhere may have no client reference
                there = await self._get(call, provider_ref, deadline)
            return moved_or_not(there, details, reason_of(answer, cause), conflict=conflict)
        return refused(answer)

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """GET a page of the calendar. Raises `SyncExpired` or `ProviderUnavailable`."""
        query = {"calendar_id": calendar, "limit": str(min(max(limit, 1), LIMIT_MAX))}
        if token is not None:
            query["sync_token"] = token
        url = f"{self._bookings}?{urlencode(query)}"
        answer = await self._exchange.send(
            "GET", url, Deadline.of(call), headers=_headers(call), body_max=LISTING_BODY_MAX
        )
        if isinstance(answer, Answer) and token is not None and answer.status == 410:
            raise SyncExpired(reason_of(answer, cause_of(answer)))
        if isinstance(answer, Failure) or answer.status != 200:
            raise ProviderUnavailable(f"{self.name}: the calendar cannot be listed: {told(answer)}")
        try:
            page = read_json(answer.body, ListAnswer)
        except Unreadable as fault:
            raise ProviderUnavailable(f"{self.name}: the listing cannot be read: {fault}") from fault
        if page.has_more and page.next_sync_token in (None, token):
            raise ProviderUnavailable(f"{self.name}: the listing has more, but gives no token to go on from")
        bookings = tuple(item.booking("") for item in page.items)
        return Page(bookings=bookings, next_token=page.next_sync_token, more=page.has_more)

    async def close(self) -> None:
        """Free connections."""
        await self._exchange.close()

    async def _post(
        self, call: Call, path: str, body: object, deadline: Deadline, condition: Mapping[str, str] | None = None
    ) -> Answer | Failure:
        return await post_json(self._exchange, f"{self._bookings}/{path}".rstrip("/"), call, body, deadline, condition)

    async def _get(self, call: Call, provider_ref: str, deadline: Deadline) -> ReadOutcome:
        url = f"{self._bookings}/{_segment(provider_ref)}"
        answer = await self._exchange.send("GET", url, deadline, headers=_headers(call))
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status != 200:
            return unread(answer)
        booking = read_booking(answer, call)
        if isinstance(booking, Unknown):
            return booking
        return Found(booking=booking, poll_after_ms=retry_after_ms(answer))

    async def _find(self, call: Call, deadline: Deadline) -> ReadOutcome:
        url = f"{self._bookings}?{urlencode({'client_ref': call.client_ref})}"
        answer = await self._exchange.send("GET", url, deadline, headers=_headers(call), body_max=BODY_MAX)
        if isinstance(answer, Failure):
            return failed(answer)
        if answer.status != 200:
            return unread(answer)
        try:
            page = read_json(answer.body, ListAnswer)
        except Unreadable as fault:
            return Unknown(reason=f"the answer cannot be read: {fault}")
        ours = [item.booking("") for item in page.items if item.client_ref == call.client_ref]
        live = [booking for booking in ours if booking.status in LIVE]
        if not live and (page.has_more or len(ours) < len(page.items)):
            return Unknown(
                reason="the answer shows more than this client reference: ours may be among what it left out"
            )
        return Found(booking=(live or ours)[-1], poll_after_ms=retry_after_ms(answer)) if ours else Missing()


async def post_json(
    exchange: Exchange,
    url: str,
    call: Call,
    body: object,
    deadline: Deadline,
    condition: Mapping[str, str] | None = None,
) -> Answer | Failure:
    """POST a JSON body with the call's Idempotency-Key."""
    headers = {**_headers(call), "Idempotency-Key": call.operation_id, "Content-Type": "application/json"}
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return await exchange.send("POST", url, deadline, headers={**headers, **(condition or {})}, body=content)


def _asked(call: Call, details: BookingDetails, callback_url: str | None) -> dict[str, Any]:
    # The contract wants an organizer and somebody who attends; the same ones on every attempt, or the key is refused.
    organizer = details.organizer or NOBODY
    asked = {
        "client_ref": call.client_ref,
        "calendar_id": details.calendar,
        "start": _rfc3339(details.start),
        "end": _rfc3339(details.end),
        "time_zone": details.time_zone,
        "summary": details.summary,
        "location": details.location,
        "organizer": {"email": organizer.email},
        "attendees": [party.model_dump(exclude_none=True) for party in details.attendees or (organizer,)],
        "callback_url": details.callback_url or callback_url,
        "metadata": details.metadata,
    }
    return {name: value for name, value in asked.items() if value not in (None, [], {})}


def _headers(call: Call) -> dict[str, str]:
    return {"X-Correlation-ID": call.correlation_id} if call.correlation_id else {}


def _segment(reference: str) -> str:
    # dots alone would climb out of /bookings
    return quote(reference, safe="") if reference.strip(".") else "-"


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
