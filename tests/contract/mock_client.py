"""What the tests of the mock provider share: a plain client and a receiver of callbacks, over the wire alone."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout, web

BOOKING: dict[str, Any] = {
    "client_ref": "order-0001",
    "calendar_id": "main",
    "start": "2027-01-15T08:00:00Z",
    "end": "2027-01-15T09:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "organizer": {"email": "desk@example.org"},
    "attendees": [{"email": "ada@example.org", "name": "Ada"}],
}
NEW_TIMES = {"start": "2027-01-16T08:00:00Z", "end": "2027-01-16T09:00:00Z"}


@dataclass
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    json: Any

    @property
    def code(self) -> str:
        """The code in the error envelope, whose shape is checked on the way."""
        error = self.json["error"]
        assert set(error) - {"retry_after"} == {"code", "message", "retryable"}
        assert isinstance(error["retryable"], bool)
        assert self.json["request_id"]
        return str(error["code"])


class Client:
    """A client of one base address. `timeout_s` bounds every call."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._session = ClientSession(timeout=ClientTimeout(total=timeout_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(
        self, method: str, path: str, *, key: str | None = None, if_match: str | None = None, **arguments: Any
    ) -> Reply:
        headers = {"Idempotency-Key": key, "If-Match": if_match}
        given = {name: value for name, value in headers.items() if value is not None}
        async with self._session.request(method, self._url + path, headers=given, **arguments) as answer:
            raw = await answer.read()
            try:
                content = await answer.json(content_type=None)
            except ValueError:
                content = None
            return Reply(answer.status, answer.headers, raw, content)

    async def create(self, number: int = 1, *, key: str | None = None, **fields: Any) -> Reply:
        body = BOOKING | {"client_ref": f"order-{number:04}"} | fields
        return await self.send("POST", "/bookings", key=key or f"create-{number:04}", json=body)

    async def get(self, booking_id: str) -> Reply:
        return await self.send("GET", f"/bookings/{booking_id}")

    async def find(self, number: int = 1) -> Reply:
        return await self.send("GET", "/bookings", params={"client_ref": f"order-{number:04}"})

    async def listing(self, **query: Any) -> Reply:
        return await self.send("GET", "/bookings", params=query)

    async def cancel(self, booking_id: str, **headers: Any) -> Reply:
        return await self.send("POST", f"/bookings/{booking_id}/cancel", **headers)

    async def reschedule(self, booking_id: str, etag: str | None, **headers: Any) -> Reply:
        return await self.send(
            "POST", f"/bookings/{booking_id}/reschedule", if_match=etag, **({"json": NEW_TIMES} | headers)
        )

    async def notify(self, number: int = 1, **fields: Any) -> Reply:
        body = {"client_ref": f"order-{number:04}", "type": "appointment.confirmed"} | fields
        return await self.send("POST", "/notifications", key=f"notify-{number:04}", json=body)


@dataclass
class Receiver:
    """A callback endpoint that keeps what comes, and answers `status`."""

    status: int = 204
    came: list[tuple[Mapping[str, str], bytes, Any]] = field(default_factory=list)
    url: str = ""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/callbacks", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/callbacks"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def until(self, count: int) -> list[tuple[Mapping[str, str], bytes, Any]]:
        """The first messages, once that many came; fails after three seconds."""
        async with asyncio.timeout(3), self._news:
            await self._news.wait_for(lambda: len(self.came) >= count)
        return self.came

    def told(self) -> list[tuple[str, int]]:
        """Type and version of each message, in the order of arrival."""
        return [(content["type"], content["data"]["version"]) for _, _, content in self.came]

    async def _take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.came.append((request.headers, raw, await request.json()))
        async with self._news:
            self._news.notify_all()
        return web.Response(status=self.status)


async def settled(client: Client, booking_id: str) -> str:
    """The status that a booking ends up with; fails after three seconds of pending."""
    async with asyncio.timeout(3):
        while True:
            reply = await client.get(booking_id)
            if reply.json["status"] != "pending":
                return str(reply.json["status"])
            await asyncio.sleep(0.01)
