"""A walk through a calendar: asked for once, goes on where its names were forgotten, and holds no more than it says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from domain.errors import ProviderUnavailable
from domain.provider import BookingStatus, Call, Page
from providers import caldav_listing
from providers.caldav import CalDavProvider
from tests.unit.providers.wire import Wire, answer, wire

NOW = datetime(2027, 1, 5, 12, tzinfo=UTC)
CALL = Call(operation_id="listing-1", client_ref="listing-1", timeout_ms=2_000)
NAMES = tuple(f"b{number:02}.ics" for number in range(10))
NO_ROOM = "<D:response><D:href>/user/main/</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status></D:response>"


def multistatus(*responses: str, token: str | None = "t1") -> bytes:
    end = "" if token is None else f"<D:sync-token>{token}</D:sync-token>"
    return answer(207, f'<D:multistatus xmlns:D="DAV:">{"".join(responses)}{end}</D:multistatus>'.encode())


def entry(name: str, status: str = "") -> str:
    prop = "<D:propstat><D:prop><D:getetag>1</D:getetag></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    told = f"<D:status>HTTP/1.1 {status}</D:status>" if status else prop
    return f"<D:response><D:href>/user/main/{name}</D:href>{told}</D:response>"


class Calendar:
    """A server whose calendar holds these names; every entry of it is a stranger's."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self.names = names
        self.token: str | None = "t1"
        self.cut: int | None = None
        self.fails = False
        self.wire = Wire()

    def answering(self, _number: int, head: bytes) -> bytes:
        if self.fails:
            return answer(500)
        if b"Depth: 0" not in head and head.startswith(b"REPORT"):
            return multistatus()  # a multiget that leaves out every body
        told = [entry(name) for name in self.names[: self.cut]]
        return multistatus(*told, NO_ROOM if self.cut is not None else "", token=self.token)

    def walks_asked_for(self) -> int:
        return sum(b"Depth: 0" in head or head.startswith(b"PROPFIND") for head in self.wire.heads)


@asynccontextmanager
async def serving(calendar: Calendar) -> AsyncIterator[Callable[..., CalDavProvider]]:
    made: list[CalDavProvider] = []

    def adapter(sync: bool = True) -> CalDavProvider:
        made.append(CalDavProvider("caldav", f"{calendar.wire.url}/user/", "u", "p", now=lambda: NOW, sync=sync))
        return made[-1]

    async with wire(calendar.answering) as calendar.wire:
        try:
            yield adapter
        finally:
            for one in made:
                await one.close()


def names(page: Page) -> list[str]:
    return [booking.provider_ref for booking in page.bookings]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_walk_asks_for_the_names_once_and_remembers_nothing_after_its_end(sync: bool) -> None:
    calendar = Calendar()
    async with serving(calendar) as adapter:
        provider, token, shown = adapter(sync), None, []
        while True:
            page = await provider.listing(CALL, "main", token, 3)
            shown += names(page)
            token = page.next_token
            if not page.more:
                break
        assert len(provider._listing._remembered) == 0
    assert shown == list(NAMES)
    assert calendar.walks_asked_for() == 1


async def test_a_page_that_failed_is_asked_for_again_with_the_names_still_known() -> None:
    calendar = Calendar()
    async with serving(calendar) as adapter:
        provider = adapter()
        first = await provider.listing(CALL, "main", None, 3)
        calendar.fails = True
        with pytest.raises(ProviderUnavailable):
            await provider.listing(CALL, "main", first.next_token, 3)
        calendar.fails = False
        again = await provider.listing(CALL, "main", first.next_token, 3)
    assert names(again) == list(NAMES[3:6])
    assert calendar.walks_asked_for() == 1


async def test_a_walk_whose_names_are_forgotten_goes_on() -> None:
    calendar = Calendar()
    async with serving(calendar) as adapter:
        first = await adapter().listing(CALL, "main", None, 3)
        calendar.token = "t2"
        rest = await adapter().listing(CALL, "main", first.next_token, 10)
    assert names(first) + names(rest) == list(NAMES)
    assert rest.next_token == '["t1",null,""]', "what changed since the first answer is told after the walk"


async def test_a_walk_over_a_cut_answer_whose_names_are_forgotten_starts_over() -> None:
    """Another cut may leave out what the first one held and was not shown yet."""
    calendar = Calendar()
    calendar.cut = 6
    async with serving(calendar) as adapter:
        first = await adapter().listing(CALL, "main", None, 3)
        calendar.token, calendar.names = "t2", tuple(reversed(NAMES))
        rest = await adapter().listing(CALL, "main", first.next_token, 10)
    assert names(rest) == sorted(NAMES[4:])
    assert (rest.next_token, rest.more) == ('["t2",null,""]', True)


async def test_walks_that_are_left_hold_no_more_than_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caldav_listing, "NAMES_MAX", 35)
    monkeypatch.setattr(caldav_listing, "WALKS_MAX", 5)
    calendar = Calendar()
    async with serving(calendar) as adapter:
        provider = adapter()
        first = await provider.listing(CALL, "kept", None, 3)
        for number in range(8):
            calendar.names = NAMES[: 10 if number < 4 else 4]
            await provider.listing(CALL, f"calendar-{number}", None, 3)
            assert len(provider._listing._remembered) <= 35
            assert len(provider._listing._remembered._walks) <= 5
        calendar.names = NAMES
        assert names(await provider.listing(CALL, "kept", first.next_token, 3)) == list(NAMES[3:6])


async def test_one_walk_beyond_the_limit_is_remembered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caldav_listing, "NAMES_MAX", 5)
    calendar = Calendar()
    async with serving(calendar) as adapter:
        provider = adapter()
        first = await provider.listing(CALL, "main", None, 3)
        await provider.listing(CALL, "main", first.next_token, 3)
    assert calendar.walks_asked_for() == 1


@pytest.mark.parametrize(
    ("href", "name"),
    [("a%2Fb.ics", "a/b.ics"), ("a%20b.ics", "a b.ics"), ("a%252Fb.ics", "a%2Fb.ics"), ("a:b@c.ics", "a:b@c.ics")],
)
async def test_a_name_is_decoded_after_its_path_is_taken_apart(href: str, name: str) -> None:
    async with serving(Calendar((href,))) as adapter:
        assert names(await adapter().listing(CALL, "main")) == [name]


@pytest.mark.parametrize(("status", "left"), [("404 Not Found", []), ("410 Gone", []), ("201 Created", ["b.ics"])])
async def test_a_status_says_whether_an_entry_is_there(status: str, left: list[str]) -> None:
    async with wire(lambda number, _: multistatus(entry("b.ics", status) if number == 1 else "")) as seen:
        provider = CalDavProvider("caldav", f"{seen.url}/user/", "u", "p", now=lambda: NOW)
        page = await provider.listing(CALL, "main")
        await provider.close()
    live = [booking.provider_ref for booking in page.bookings if booking.status is not BookingStatus.CANCELLED]
    assert live == left
    assert names(page) == ["b.ics"]


@pytest.mark.parametrize(
    "told",
    [
        multistatus(entry("b.ics", "500 Server Error")),
        multistatus(NO_ROOM, token=None),
        answer(207, b'<!DOCTYPE x><D:multistatus xmlns:D="DAV:"/>'),
        answer(207, b'<D:multistatus xmlns:D="DAV:">' + b"<a>" * 200 + b"</a>" * 200 + b"</D:multistatus>"),
    ],
    ids=["status", "cut without a token", "document type", "deep"],
)
async def test_an_answer_that_cannot_be_relied_on_is_refused(told: bytes) -> None:
    async with wire(lambda _number, _head: told) as seen:
        provider = CalDavProvider("caldav", f"{seen.url}/user/", "u", "p", now=lambda: NOW)
        with pytest.raises(ProviderUnavailable):
            await provider.listing(CALL, "main")
        await provider.close()
