"""A real OTLP/HTTP receiver on loopback, and a desk that is served and sends its traces there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from appointments import Orchestrator, Settings
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile
from appointments.http.app import application
from appointments.http.server import listen, serve, url
from mocks.server import MockProvider
from saga.clock import WallClock

QUICK: dict[str, Any] = {
    "call_timeout_ms": 300,
    "backoff_ms": 10,
    "jitter": 0,
    "settle_ms": 100,
    "poll_ms": 5_000,
    "http_drain_ms": 0,
}
WANTED: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Physiotherapy Quuxington",
    "location": "Room Zyzzyva",
    "organizer": {"email": "desk@hidden-clinic.example", "name": "Dr. Fnord"},
    "attendees": [{"email": "pat@hidden-patient.example", "name": "Pat Grault"}],
}
PERSONAL = (
    "Physiotherapy",
    "Quuxington",
    "Zyzzyva",
    "hidden-clinic",
    "Fnord",
    "hidden-patient",
    "Grault",
    "waldo-plugh",  # the reason of a cancel
    "xyzzy-key",  # an idempotency key
    "thud-who",  # a correlation id
)
WITHIN_S = 10.0


class Collector:
    """Takes spans as a collector does. `url` is what `traces_url` is set to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/traces"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        """The spans of a name, in the order of their beginning."""
        return sorted((one for one in self.spans if one.name == name), key=lambda one: one.start_time_unix_nano)

    def one(self, name: str) -> Span:
        """The only span of a name."""
        (found,) = self.named(name)
        return found

    def traces(self) -> set[str]:
        """The traces that spans have come of."""
        return {one.trace_id.hex() for one in self.spans}


def about(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@dataclass
class House:
    """A provider, a collector, and a desk that is served."""

    desk: Orchestrator
    mock: MockProvider
    url: str
    session: ClientSession
    access: Access

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """A request, its status and its answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, self.url + path, json=body, headers=named, allow_redirects=False
        ) as answer:
            text = await answer.read()
            return answer.status, await answer.json(content_type=None) if text and b"{" in text[:1] else text.decode()

    async def book(self, key: str, **headers: str) -> dict[str, Any]:
        """Book, and wait for the end."""
        status, told = await self.ask(
            "POST", "/v1/appointments", WANTED, idempotency_key=key, prefer="wait=10", **headers
        )
        assert status < 300, told
        return dict(told)

    def carried(self, op: Any = None) -> list[str | None]:
        """The trace contexts that the provider was sent."""
        return [one["traceparent"] for one in self.mock.requests(op)]


@asynccontextmanager
async def house(folder: Path, traces_url: str | None, mock: MockProvider, **settings: Any) -> AsyncIterator[House]:
    """A desk at `folder`, served on loopback, whose provider calls back there."""
    opened = listen("127.0.0.1", 0)
    clock = WallClock()
    named = Settings.model_validate(
        {
            **QUICK,
            "store": f"sqlite:///{folder / 'desk.db'}",
            "provider": mock.url,
            "callback_secret": mock.secret,
            "callback_url": f"{url(opened)}/v1/callbacks/main",
            "traces_url": traces_url,
            "log_file": folder / "desk.log",
            **settings,
        }
    )
    everybody = Principal(tenant=named.tenant, actor="tester", role=Role.ADMIN)
    with opened:
        async with Orchestrator.open(named, listen=False) as desk, ClientSession() as session:
            access = Access(TokenFile(None), Throttle(None, 1), clock.now, everybody)
            up = asyncio.Event()
            serving = asyncio.create_task(serve(application(desk, access, clock.now), opened, up.set))
            try:
                async with asyncio.timeout(WITHIN_S):
                    await up.wait()
                yield House(desk, mock, url(opened), session, access)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
