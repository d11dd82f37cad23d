"""What the outbox's tests stand in: appointments in a log, and subscribers that verify what they are told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from standardwebhooks.webhooks import Webhook as Signature

from appointments import Orchestrator, Settings
from appointments.changes import Changed, changed
from appointments.outbox.cloudevents import CloudEvent, cloud_event
from appointments.outbox.dead_letters import consumer
from domain.lifecycle import Phase, State
from projections.following import fold
from store.port import Store

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
T0 = datetime(2031, 3, 2, 9, tzinfo=UTC)
WITHIN_S = 20
BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Jane Doe, check-up",
}


def event_of(appointment: UUID, version: int = 1) -> CloudEvent:
    """An event as a subscriber would be told it."""
    public = Changed(
        position=version,
        appointment=appointment,
        version=version,
        type="appointment-confirmed.v1",
        recorded_at=T0,
        phase=Phase.COMPLETED,
        state=State.CONFIRMED,
        reason=None,
        parked=False,
    )
    return cloud_event(public, "urn:appointments", None)


@asynccontextmanager
async def desk_on(opened: Store | None = None, **settings: Any) -> AsyncIterator[Orchestrator]:
    """An orchestrator that books in its own process."""
    chosen = Settings.model_validate({"provider": "local:", "store": "memory:", **settings})
    async with Orchestrator.open(chosen, store=opened, listen=False) as desk:
        yield desk


async def book(desk: Orchestrator, *keys: str, tenant: str | None = None) -> None:
    """Book, each to its end."""
    who = {} if tenant is None else {"tenant": tenant}
    await asyncio.gather(*(desk.book(BOOKING, key=key, wait=10, **who) for key in keys))


async def until(happened: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    """Let others run until it has happened."""
    async with asyncio.timeout(within_s):
        while True:
            found = happened()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


@dataclass
class Received:
    """What one subscriber was told, in order of its answers."""

    events: list[dict[str, Any]] = field(default_factory=list)
    unsigned: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    port: int = 0
    answer: Callable[[dict[str, Any]], Awaitable[int]] | None = None

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]

    def versions(self) -> dict[str, list[int]]:
        """By appointment, in order."""
        found: dict[str, list[int]] = {}
        for event in self.events:
            found.setdefault(event["subject"], []).append(event["data"]["version"])
        return found


@asynccontextmanager
async def receiver(
    answer: Callable[[dict[str, Any]], Awaitable[int]] | None = None, port: int = 0
) -> AsyncIterator[Received]:
    """A subscriber on loopback: it verifies each message, and keeps those that it answers with a 2xx."""
    received = Received(answer=answer)

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            Signature(SECRET).verify(body, dict(request.headers))
        except Exception:
            received.unsigned += 1
            return web.Response(status=401)
        event = json.loads(body)
        status = 204 if received.answer is None else await received.answer(event)
        if 200 <= status < 300:
            received.events.append(event)
            received.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=status)

    application = web.Application()
    application.router.add_post("/events", take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    received.port = runner.addresses[0][1]
    received.url = f"http://127.0.0.1:{received.port}/events"
    try:
        yield received
    finally:
        await runner.cleanup()


def told_at(*received: Received, **more: Any) -> dict[str, Any]:
    """The settings that have these told, as `a`, `b`, …"""
    named = {
        chr(ord("a") + n): {"url": one.url, "secret": SECRET, "since": "beginning", **more}
        for n, one in enumerate(received)
    }
    return {"subscriptions": named, "outbound_private": True, "outbound_ports": [one.port for one in received]}


async def everything(store: Store, tenant: str = "default") -> dict[str, list[int]]:
    """By appointment of a tenant: the versions of all its events."""
    found: dict[str, list[int]] = {}
    for change in fold(await store.log(limit=100_000), {}).changes:
        public = changed(change)
        if public is not None and change.after is not None and change.after.tenant == tenant:
            found.setdefault(str(public.appointment), []).append(public.version)
    return found


async def caught_up(store: Store, *sinks: str) -> bool:
    """Whether these checkpoints stand at the end of the log."""
    end = await store.position()
    return {await store.checkpoint(consumer(sink)) for sink in sinks} == {end}
