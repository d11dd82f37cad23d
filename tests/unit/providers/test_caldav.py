"""What each answer of a CalDAV server means, told by a server that answers with given bytes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from domain.errors import ProviderUnavailable
from domain.provider import BookingDetails, Call, Confirmed, Found, Missing, Rejected, Retryable, SyncExpired, Unknown
from providers.caldav import CalDavProvider
from providers.ical import write_event
from tests.unit.providers.wire import Wire, answer, wire

NOW = datetime(2027, 1, 5, 12, tzinfo=UTC)
START = datetime(2027, 3, 1, 9, tzinfo=UTC)
CALL = Call(operation_id="create-1", client_ref="booking-1", timeout_ms=400)
DETAILS = BookingDetails(
    calendar="main", start=START, end=START + timedelta(hours=1), time_zone="Europe/Berlin", summary="Visit"
)
LATER = DETAILS.model_copy(update={"start": START + timedelta(days=1), "end": START + timedelta(days=1, hours=1)})
STORED = answer(200, write_event("booking-1", DETAILS, NOW), 'ETag: "a"')
STORED_LATER = answer(200, write_event("booking-1", LATER, NOW), 'ETag: "b"')
CANCELLED = answer(200, write_event("booking-1", DETAILS, NOW).replace(b"CONFIRMED", b"CANCELLED"))
UID_TAKEN = b'<?xml version="1.0"?><error xmlns="DAV:"><C:no-uid-conflict xmlns:C="urn:x"/></error>'
HTML = answer(207, b"<html><body><p>Please log in</p></body></html>")
QUOTA = b'<D:error xmlns:D="DAV:"><D:quota-not-exceeded/></D:error>'


@asynccontextmanager
async def server(answers: Sequence[bytes | None]) -> AsyncIterator[tuple[CalDavProvider, Wire]]:
    async with wire(lambda number, _head: answers[number - 1]) as seen:
        provider = CalDavProvider("caldav", f"{seen.url}/user/", "user", "pw", now=lambda: NOW)
        try:
            yield provider, seen
        finally:
            await provider.close()
    assert len(seen.heads) == len(answers)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([answer(201, b"", 'ETag: "a"')], "confirmed"),
        ([answer(204)], "confirmed"),
        ([answer(412), STORED], "confirmed replayed"),
        ([answer(409), STORED], "confirmed replayed"),
        ([answer(412), STORED_LATER], "rejected conflict"),
        ([answer(412), CANCELLED], "rejected"),
        ([answer(412, UID_TAKEN), answer(404)], "rejected conflict"),
        ([answer(403, UID_TAKEN), answer(404)], "rejected conflict"),
        ([answer(412), answer(404)], "retryable"),
        ([answer(409), answer(404)], "rejected"),
        ([answer(412), answer(503)], "unknown"),
        ([answer(412), None], "unknown"),
        ([answer(423)], "retryable throttled"),
        ([answer(429, b"", "Retry-After: 2")], "retryable throttled"),
        ([answer(507)], "rejected"),
        ([answer(403, QUOTA)], "rejected"),
        ([answer(403)], "rejected"),
        ([answer(413)], "rejected"),
        ([answer(401)], "rejected"),
        ([answer(301, b"", "Location: /elsewhere")], "rejected"),
        ([answer(303, b"", "Location: /elsewhere")], "unknown"),
        ([answer(500)], "unknown"),
        ([answer(202)], "unknown"),
        ([None], "unknown"),
        ([answer(201, b"x", length=9)], "unknown"),
    ],
)
async def test_create(answers: list[bytes | None], outcome: str) -> None:
    async with server(answers) as (provider, seen):
        told = await provider.create(CALL, DETAILS)
    marks = [m for m in ("replayed", "conflict", "throttled") if getattr(told, m, False)]
    assert " ".join([told.kind, *marks]) == outcome
    assert b"PUT /user/main/booking-1.ics" in seen.heads[0]
    assert b"If-None-Match: *" in seen.heads[0]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (answer(200), Confirmed),
        (answer(204), Confirmed),
        (answer(404), Confirmed),
        (answer(410), Confirmed),
        (answer(423), Retryable),
        (answer(403), Rejected),
        (answer(503), Unknown),
        (None, Unknown),
    ],
)
async def test_cancel(told: bytes | None, kind: type) -> None:
    async with server([told]) as (provider, _):
        assert isinstance(await provider.cancel(CALL, "main", "booking-1.ics"), kind)


@pytest.mark.parametrize("reference", ["", ".", "..", "../main", "x/..", "/"])
async def test_a_reference_to_the_calendar_itself_is_never_deleted(reference: str) -> None:
    async with server([]) as (provider, _):
        assert isinstance(await provider.cancel(CALL, "main", reference), Rejected)
        assert await provider.get(CALL, "main", reference) == Missing()
        assert isinstance(await provider.reschedule(CALL, reference, None, LATER), Rejected)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (STORED, Found),
        (CANCELLED, Found),
        (answer(404), Missing),
        (answer(410), Missing),
        (answer(200, b"<html>"), Unknown),
        (answer(500), Unknown),
        (answer(423), Retryable),
        (answer(401), Rejected),
        (None, Unknown),
    ],
)
async def test_find(told: bytes | None, kind: type) -> None:
    async with server([told]) as (provider, _):
        assert isinstance(await provider.find(CALL, "main"), kind)


@pytest.mark.parametrize(
    ("answers", "etag", "outcome"),
    [
        ([STORED, answer(204, b"", 'ETag: "b"')], '"a"', "confirmed"),
        ([STORED, answer(204)], None, "confirmed"),
        ([STORED_LATER], '"a"', "confirmed replayed"),
        ([STORED], '"older"', "rejected conflict"),
        ([STORED, answer(412), STORED_LATER], '"a"', "confirmed replayed"),
        ([STORED, answer(412), STORED], '"a"', "rejected conflict"),
        ([STORED, answer(412), answer(404)], '"a"', "rejected"),
        ([CANCELLED], None, "rejected"),
        ([answer(404)], None, "rejected"),
        ([answer(500)], None, "retryable"),
        ([STORED, answer(500)], None, "unknown"),
        ([STORED, None], None, "unknown"),
        ([STORED, answer(423)], None, "retryable throttled"),
    ],
)
async def test_reschedule(answers: list[bytes | None], etag: str | None, outcome: str) -> None:
    async with server(answers) as (provider, seen):
        told = await provider.reschedule(CALL, "booking-1.ics", etag, LATER)
    marks = [m for m in ("replayed", "conflict", "throttled") if getattr(told, m, False)]
    assert " ".join([told.kind, *marks]) == outcome
    if len(seen.heads) > 1:
        assert b'If-Match: "a"' in seen.heads[1]


@pytest.mark.parametrize(
    "told", [answer(500), answer(207, b"<no xml"), answer(404), answer(207, b"[]"), answer(207), HTML, None]
)
async def test_a_listing_that_fails_is_unavailable(told: bytes | None) -> None:
    async with server([told]) as (provider, _):
        with pytest.raises(ProviderUnavailable):
            await provider.listing(CALL, "main")


@pytest.mark.parametrize("status", [403, 410, 412, 507])
async def test_a_token_that_the_server_refuses_is_expired(status: int) -> None:
    async with server([answer(status)]) as (provider, _):
        with pytest.raises(SyncExpired):
            await provider.listing(CALL, "main", '["token",null,""]')


@pytest.mark.parametrize("token", ["", "x", "[]", "[1,2,3]", "{}", '["a","b",null]', "[" * 100_000])
async def test_a_token_that_is_none_of_ours_is_expired_unasked(token: str) -> None:
    async with server([]) as (provider, _):
        with pytest.raises(SyncExpired):
            await provider.listing(CALL, "main", token)


async def test_entities_in_a_listing_are_not_resolved() -> None:
    body = (
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><D:multistatus xmlns:D="DAV:"><D:response>'
        b"<D:href>&e;</D:href><D:propstat><D:prop><D:getetag/></D:prop><D:status>HTTP/1.1 200 OK</D:status>"
        b"</D:propstat></D:response></D:multistatus>"
    )
    async with server([answer(207, body)]) as (provider, _):
        with suppress(ProviderUnavailable):
            assert (await provider.listing(CALL, "main")).bookings == ()


def multistatus(*responses: str, token: str = "t") -> bytes:
    names = 'xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"'
    end = f"<D:sync-token>{token}</D:sync-token></D:multistatus>"
    return answer(207, f"<D:multistatus {names}>{''.join(responses)}{end}".encode())


def entry(name: str, body: bytes = b"", etag: str = "<D:getetag>1</D:getetag>", status: str = "200 OK") -> str:
    content = f"<C:calendar-data>{body.decode()}</C:calendar-data>" if body else ""
    prop = f"<D:propstat><D:prop>{etag}{content}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
    return f"<D:response><D:href>/user/main/{name}</D:href>{prop}</D:response>"


def gone(name: str) -> str:
    href = f"<D:href>/user/main/{name}</D:href>"
    return f"<D:response>{href}<D:status>HTTP/1.1 404 Not Found</D:status></D:response>"


EVENT = write_event("booking-1", DETAILS, NOW)


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("", ["booking-1", "booking-2"]),
        (entry("booking-2.ics"), ["booking-1", "booking-2"]),
        (entry("booking-2.ics", b"rubbish"), ["booking-1", "booking-2"]),
        (gone("booking-2.ics"), ["booking-1"]),
        (entry("booking-2.ics", etag="", status="404 Not Found"), ["booking-1"]),
        (gone("booking-2.ics") + entry("never-asked.ics", EVENT) + entry("booking-1.ics", EVENT), ["booking-1"]),
    ],
)
async def test_a_listing_shows_what_is_there_though_its_content_is_left_out(other: str, shown: list[str]) -> None:
    named = multistatus(entry("booking-1.ics"), entry("booking-2.ics"))
    async with server([named, multistatus(entry("booking-1.ics", EVENT), other)]) as (provider, _):
        page = await provider.listing(CALL, "main")
    assert [booking.client_ref for booking in page.bookings] == shown
    assert page.bookings[0].start == START


async def test_a_name_beyond_the_limit_hides_no_other() -> None:
    name = "x" * 1_100
    named = multistatus(gone(name), entry(f"{name}.ics"), entry("booking-1.ics"))
    async with server([named, multistatus(entry("booking-1.ics", EVENT))]) as (provider, _):
        page = await provider.listing(CALL, "main", '["t",null,""]')
    assert [booking.client_ref for booking in page.bookings] == ["booking-1"]


@pytest.mark.parametrize("etag", ['"\xff"', '"' + "x" * 2_000 + '"'])
async def test_an_etag_that_cannot_be_kept_is_none(etag: str) -> None:
    told = answer(201).replace(b"\r\n\r\n", b"\r\nETag: " + etag.encode("latin-1") + b"\r\n\r\n")
    async with server([told]) as (provider, _):
        made = await provider.create(CALL, DETAILS)
    assert isinstance(made, Confirmed)
    assert made.booking is not None
    assert made.booking.etag is None


async def test_a_move_without_an_etag_makes_nothing_anew() -> None:
    async with server([answer(200, EVENT), answer(204)]) as (provider, seen):
        assert isinstance(await provider.reschedule(CALL, "booking-1.ics", None, LATER), Confirmed)
    assert b"If-Match: *" in seen.heads[1]


async def test_another_booking_under_our_name_is_not_taken_for_ours() -> None:
    async with server([answer(200, write_event("stranger", DETAILS, NOW))]) as (provider, _):
        assert isinstance(await provider.find(CALL, "main"), Unknown)


async def test_what_a_stranger_wrote_is_kept_within_limits() -> None:
    event = EVENT.replace(b"SUMMARY:Visit", b"SUMMARY:" + b"x" * 5_000)
    async with server([answer(200, event)]) as (provider, _):
        found = await provider.find(CALL, "main")
    assert isinstance(found, Found)
    assert found.booking.summary == "x" * 1_000


async def test_a_listing_that_would_swell_is_unavailable() -> None:
    names = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "{"x" * 1_000}">{names}]><D:multistatus xmlns:D="DAV:">&e9;</D:multistatus>'
    deep = '<D:multistatus xmlns:D="DAV:">' + "<a>" * 100_000
    for body in (bomb, deep):
        async with server([answer(207, body.encode())]) as (provider, _):
            with pytest.raises(ProviderUnavailable):
                await provider.listing(CALL, "main")
