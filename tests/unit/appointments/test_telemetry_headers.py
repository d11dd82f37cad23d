"""Every exchange that a call takes carries its trace context, whatever the adapter speaks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from domain.provider import BookingDetails, Call
from providers.api_v2 import ApiV2Provider
from providers.caldav import CalDavProvider
from providers.legacy import LegacyCalendar
from providers.local import LocalProvider
from providers.notifications import Notifier

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DETAILS = BookingDetails(
    calendar="main",
    start=datetime(2031, 3, 3, 9, tzinfo=UTC),
    end=datetime(2031, 3, 3, 10, tzinfo=UTC),
    time_zone="UTC",
    summary="Check-up",
)


def call(told: str | None) -> Call:
    return Call(operation_id="op-1", client_ref="0" * 8, timeout_ms=2_000, traceparent=told)


class Wire:
    """A server that refuses everything, and notes how it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.url = ""

    async def refuse(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.headers.get("traceparent")))
        return web.Response(status=409 if request.method == "POST" else 404)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def api_v2(url: str) -> ApiV2Provider:
    return ApiV2Provider("main", url)


def caldav(url: str) -> CalDavProvider:
    return CalDavProvider("main", f"{url}/home/", "", "", now=lambda: DETAILS.start)


Asked = Callable[[Any, Call], Awaitable[Any]]
CALLS: dict[str, Asked] = {
    "create": lambda provider, call: provider.create(call, DETAILS),
    "get": lambda provider, call: provider.get(call, "main", "ref-1"),
    "find": lambda provider, call: provider.find(call, "main"),
    "cancel": lambda provider, call: provider.cancel(call, "main", "ref-1"),
    "reschedule": lambda provider, call: provider.reschedule(call, "ref-1", '"e"', DETAILS),
}


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("make", [api_v2, caldav])
async def test_a_call_carries_its_context_and_nothing_without_one(
    wire: Wire, make: Callable[[str], Any], asked: Asked
) -> None:
    provider = make(wire.url)
    try:
        for told in (CONTEXT, None):
            wire.seen.clear()
            await asked(provider, call(told))
            assert wire.seen
            assert {context for _, context in wire.seen} == {told}
    finally:
        await provider.close()


async def test_so_do_a_notice_and_the_call_of_the_legacy_system(wire: Wire) -> None:
    notifier, legacy = Notifier("notify", wire.url), LegacyCalendar(LocalProvider("main"), wire.url, None)  # type: ignore[arg-type]
    await notifier.notify(call(CONTEXT), {"client_ref": "0" * 8})
    await legacy.create(call(CONTEXT), DETAILS)
    assert wire.seen == [("POST", CONTEXT)] * 2
    await notifier.close()
    await legacy.close()
