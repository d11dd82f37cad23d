"""What the CalDAV adapter relies on beyond the port, shown on real servers."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from domain.errors import ProviderUnavailable
from domain.provider import BookingDetails, BookingStatus, Call, Confirmed, Found, Party, Rejected
from providers.caldav import CalDavProvider
from tests.contract import servers

pytestmark = pytest.mark.evidence(
    target="CalDAV",
    answers=("R5.1",),
    given="real CalDAV servers",
    when="the adapter books, moves, cancels, lists",
    then="what it relies on is so",
    seen_in="calendar of the server",
)

NOW = datetime(2027, 1, 5, 12, tzinfo=UTC)
START = datetime(2027, 3, 1, 9, tzinfo=UTC)
DETAILS = BookingDetails(
    calendar="main",
    start=START,
    end=START + timedelta(hours=1),
    time_zone="Europe/Berlin",
    summary="Visit",
    location="Room 1; left, upstairs",
    organizer=Party(email="desk@example.com", name="Desk"),
    attendees=(Party(email="a@example.com", name='A "B", C'), Party(email="b@example.com")),
    metadata={"case": 'x,y;z\\n"q"', "ü": "予約"},
    recurrence="FREQ=WEEKLY;COUNT=3",
)
LATER = DETAILS.model_copy(update={"start": START + timedelta(days=60), "end": START + timedelta(days=60, hours=2)})


def call(ref: str = "booking-1") -> Call:
    return Call(operation_id=f"create-{ref}", client_ref=ref, timeout_ms=5_000)


class Home:
    """A calendar home, its adapter, and a plain client beside it."""

    def __init__(self, url: str, adapter: Callable[[], CalDavProvider], session: aiohttp.ClientSession) -> None:
        self.url = url
        self.adapter = adapter
        self.provider = adapter()
        self._session = session

    async def raw(self, method: str, name: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request past the adapter."""
        headers = {"Content-Type": "text/calendar"} if body else {}
        async with self._session.request(method, f"{self.url}main/{name}", data=body, headers=headers) as answer:
            return answer.status, await answer.read()


@pytest.fixture(params=["radicale", "xandikos"])
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(getattr(servers, request.param)(tmp_path))

        def adapter() -> CalDavProvider:
            made = CalDavProvider("caldav", url, servers.USER, servers.PASSWORD, now=lambda: NOW)
            stack.push_async_callback(made.close)
            return made

        login = {"Authorization": aiohttp.encode_basic_auth(servers.USER, servers.PASSWORD)}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=login))
        made = Home(url, adapter, session)
        await made.provider.ensure_calendar("main")
        yield made


def lines(body: bytes) -> set[bytes]:
    return {line for line in body.replace(b"\r\n ", b"").replace(b"\r\n", b"\n").split(b"\n") if line}


async def test_a_booking_survives_a_move_with_all_that_it_says(home: Home) -> None:
    await home.provider.create(call(), DETAILS)
    _, before = await home.raw("GET", "booking-1.ics")
    moved = await home.provider.reschedule(call(), "booking-1.ics", None, LATER)
    assert isinstance(moved, Confirmed)
    assert moved.booking is not None
    assert moved.booking.version == 2
    _, after = await home.raw("GET", "booking-1.ics")
    kept = [b"ATTENDEE", b"ORGANIZER", b"LOCATION", b"RRULE", b"X-APPOINTMENTS-METADATA", b"SUMMARY", b"UID"]
    for name in kept:
        told = {line for line in lines(before) if line.startswith(name)}
        assert told
        assert told <= lines(after), name


async def test_our_reference_under_another_name_is_a_conflict(home: Home) -> None:
    await home.provider.create(call("booking-2"), DETAILS)
    _, body = await home.raw("GET", "booking-2.ics")
    status, _ = await home.raw("PUT", "elsewhere.ics", body.replace(b"booking-2", b"booking-3"))
    assert status == 201
    told = await home.provider.create(call("booking-3"), DETAILS)
    assert isinstance(told, Rejected)
    assert told.conflict


async def test_an_event_cancelled_by_hand_reads_cancelled_and_is_not_booked_again(home: Home) -> None:
    await home.provider.create(call(), DETAILS)
    _, body = await home.raw("GET", "booking-1.ics")
    await home.raw("PUT", "booking-1.ics", body.replace(b"STATUS:CONFIRMED", b"STATUS:CANCELLED"))
    found = await home.provider.find(call(), "main")
    assert isinstance(found, Found)
    assert found.booking.status is BookingStatus.CANCELLED
    assert isinstance(await home.provider.create(call(), DETAILS), Rejected)


async def cancelled_by_hand(home: Home) -> Call:
    """The call that books again in the place of an event that somebody has cancelled."""
    _, body = await home.raw("GET", "booking-1.ics")
    await home.raw("PUT", "booking-1.ics", body.replace(b"STATUS:CONFIRMED", b"STATUS:CANCELLED"))
    found = await home.provider.find(call(), "main")
    assert isinstance(found, Found)
    return call().model_copy(update={"operation_id": "create-again", "replaces": found.booking.etag})


async def test_a_cancelled_event_is_written_over_where_that_is_asked_for(home: Home) -> None:
    await home.provider.create(call(), DETAILS)
    again = await cancelled_by_hand(home)
    for replayed in (False, True):
        made = await home.provider.create(again, DETAILS)
        assert isinstance(made, Confirmed)
        assert made.replayed is replayed
        assert made.booking is not None
        assert (made.booking.status, made.booking.version) == (BookingStatus.ACCEPTED, 2)
    moved = await home.provider.reschedule(call(), "booking-1.ics", made.booking.etag, LATER)
    assert isinstance(moved, Confirmed)


async def test_one_that_has_changed_since_it_was_seen_is_not_written_over(home: Home) -> None:
    await home.provider.create(call(), DETAILS)
    again = await cancelled_by_hand(home)
    _, body = await home.raw("GET", "booking-1.ics")
    await home.raw("PUT", "booking-1.ics", body.replace(b"SUMMARY:Visit", b"SUMMARY:Somebody's"))
    assert isinstance(await home.provider.create(again, DETAILS), Rejected)
    assert (await home.raw("GET", "booking-1.ics"))[1].count(b"Somebody's")


async def test_a_deleted_event_is_booked_again_under_the_same_reference(home: Home) -> None:
    await home.provider.create(call(), DETAILS)
    await home.raw("DELETE", "booking-1.ics")
    again = call().model_copy(update={"operation_id": "create-again"})
    assert isinstance(await home.provider.create(again, DETAILS), Confirmed)
    found = await home.provider.find(call(), "main")
    assert isinstance(found, Found)
    assert found.booking.status is BookingStatus.ACCEPTED


async def test_pages_during_changes_lose_nothing(home: Home) -> None:
    refs = [f"booking-{number}" for number in range(6)]
    for ref in refs:
        await home.provider.create(call(ref), DETAILS)
    first = await home.provider.listing(call(), "main", limit=3)
    await home.provider.create(call("booking-0a"), DETAILS)  # sorts before what was shown
    await home.provider.cancel(call("booking-1"), "main", "booking-1.ics")  # was shown already
    rest = await home.provider.listing(call(), "main", first.next_token, limit=10)
    shown = {booking.client_ref for booking in (*first.bookings, *rest.bookings)}
    assert set(refs) <= shown
    since = await home.provider.listing(call(), "main", rest.next_token)
    told = {booking.client_ref: booking.status for booking in since.bookings}
    assert told == {"booking-0a": BookingStatus.ACCEPTED, "booking-1": BookingStatus.CANCELLED}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whoever_follows_the_pages_holds_the_calendar_whatever_changes_meanwhile(home: Home, seed: int) -> None:
    """Walks in pages of 4, interrupted by changes and by restarts that forget the names; a mirror keeps up."""
    chance = random.Random(seed)
    there: set[str] = set()
    mirror: dict[str, BookingStatus] = {}

    async def change() -> None:
        ref = f"booking-{chance.randrange(30):02}"
        if ref in there:
            await home.provider.cancel(call(ref), "main", f"{ref}.ics")
        else:
            await home.provider.create(call(ref), DETAILS)
        there.symmetric_difference_update({ref})

    async def walk(token: str | None, changes: int) -> str | None:
        provider = home.adapter()
        while True:
            page = await provider.listing(call(), "main", token, limit=4)
            mirror.update({booking.client_ref: booking.status for booking in page.bookings})
            token = page.next_token
            if not page.more:
                return token
            for _ in range(changes):
                await change()
            if chance.random() < 0.3:
                provider = home.adapter()

    for _ in range(15):
        await change()
    token = None
    for changes in (2, 2, 0):
        token = await walk(token, changes)
    assert {ref for ref, status in mirror.items() if status is not BookingStatus.CANCELLED} == there, f"seed {seed}"


async def test_a_calendar_that_is_not_there_is_rejected_and_cannot_be_listed(home: Home) -> None:
    elsewhere = DETAILS.model_copy(update={"calendar": "nowhere"})
    assert isinstance(await home.provider.create(call(), elsewhere), Rejected)
    with pytest.raises(ProviderUnavailable):
        await home.provider.listing(call(), "nowhere")


async def test_a_wrong_password_is_rejected_with_the_reason(tmp_path: Path) -> None:
    async with servers.radicale(tmp_path) as url:
        provider = CalDavProvider("caldav", url, servers.USER, "wrong", now=lambda: NOW)
        told = await provider.create(call(), DETAILS)
        with pytest.raises(ProviderUnavailable):
            await provider.ensure_calendar("main")
        await provider.close()
    assert isinstance(told, Rejected)
    assert told.reason.startswith("401")
