"""The routes of `/api/v2`: read a request, note it, let a script act on it; refusals leave in the error envelope."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from mocks import operations
from mocks.answers import Refusal, refusal_answer, send
from mocks.behaviors import Op
from mocks.bodies import (
    BODY_BYTES_MAX,
    CALENDAR_ID,
    CLIENT_REF,
    CancelBody,
    CreateBody,
    NotifyBody,
    RescheduleBody,
    parse,
    read,
    read_key,
    read_limit,
    read_name,
)
from mocks.enact import Call, enact
from mocks.operations import Operation
from mocks.world import Received, World

PREFIX = "/api/v2"

Reading = Callable[[web.Request, Received], Awaitable[Operation]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(world: World) -> web.Application:
    """The public side of the mock provider."""
    routes = _Routes(world)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[envelope(world)])
    app.router.add_post(f"{PREFIX}/bookings", routes.serve("create", routes.create))
    app.router.add_get(f"{PREFIX}/bookings", routes.find_or_list, allow_head=False)
    app.router.add_get(f"{PREFIX}/bookings/{{id}}", routes.serve("get", routes.get), allow_head=False)
    app.router.add_post(f"{PREFIX}/bookings/{{id}}/cancel", routes.serve("cancel", routes.cancel))
    app.router.add_post(f"{PREFIX}/bookings/{{id}}/reschedule", routes.serve("reschedule", routes.reschedule))
    app.router.add_post(f"{PREFIX}/notifications", routes.serve("notify", routes.notify))
    return app


def envelope(world: World | None = None) -> Any:
    """Middleware: whatever the framework refuses (404, 405, 413) leaves in the error envelope too."""

    @web.middleware
    async def wrap(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            answer = refusal_answer(refusal)
        except web.HTTPException as refused:
            if world is not None and request.match_info.http_exception is not None:
                world.receive(_received(request, None))
            kept = {name: value for name, value in refused.headers.items() if name == "Allow"}
            code = refused.reason.lower().replace(" ", "_")
            answer = refusal_answer(Refusal(refused.status, code, refused.reason, headers=kept))
        return await send(request, answer)

    return wrap


class _Routes:
    def __init__(self, world: World) -> None:
        self._world = world

    def serve(self, op: Op, reading: Reading) -> Handler:
        """A handler that notes the request, reads it into an operation, and enacts what is scripted for it."""

        async def handle(request: web.Request) -> web.StreamResponse:
            received = _received(request, op)
            self._world.receive(received)
            try:
                operation = await reading(request, received)
            except Refusal as refusal:
                received.status = refusal.status
                raise
            received.client_ref = operation.client_ref
            turn = self._world.scripts.pick(op, operation.client_ref, operation.calendar_id)
            received.mode = turn.behavior.mode if turn else None
            return await enact(Call(request, self._world, received, operation), turn)

        return handle

    async def find_or_list(self, request: web.Request) -> web.StreamResponse:
        """GET /bookings is two operations: with a client reference a look-up, else a listing."""
        if "client_ref" in request.query:
            return await self.serve("find", self.find)(request)
        return await self.serve("list", self.listing)(request)

    async def create(self, request: web.Request, received: Received) -> Operation:
        content = await _content(request, received)
        key = read_key(received.idempotency_key, required=not self._world.lenient)
        body = read(CreateBody, content)
        self._need_reference(body.client_ref)
        return operations.create(self._world.book, body, content, key)

    async def get(self, request: web.Request, received: Received) -> Operation:
        return operations.get(self._world.book, request.match_info["id"])

    async def find(self, request: web.Request, received: Received) -> Operation:
        received.client_ref = request.query["client_ref"]
        return operations.find(self._world.book, read_name("client_ref", received.client_ref, CLIENT_REF))

    async def listing(self, request: web.Request, received: Received) -> Operation:
        calendar_id = request.query.get("calendar_id")
        if calendar_id is not None:
            read_name("calendar_id", calendar_id, CALENDAR_ID)
        limit = read_limit(request.query.get("limit", "100"))
        return operations.listing(self._world.book, request.query.get("sync_token"), limit, calendar_id)

    async def cancel(self, request: web.Request, received: Received) -> Operation:
        read(CancelBody, await _content(request, received, absent={}))
        key = read_key(received.idempotency_key, required=False)
        return operations.cancel(self._world.book, request.match_info["id"], request.headers.get("If-Match"), key)

    async def reschedule(self, request: web.Request, received: Received) -> Operation:
        body = read(RescheduleBody, await _content(request, received))
        key = read_key(received.idempotency_key, required=False)
        if_match = request.headers.get("If-Match")
        return operations.reschedule(self._world.book, request.match_info["id"], if_match, body, key)

    async def notify(self, request: web.Request, received: Received) -> Operation:
        content = await _content(request, received)
        key = read_key(received.idempotency_key, required=not self._world.lenient)
        body = read(NotifyBody, content)
        self._need_reference(body.client_ref)
        return operations.notify(self._world.book, body, content, key)

    def _need_reference(self, client_ref: str | None) -> None:
        if client_ref is None and not self._world.lenient:
            raise Refusal(422, "invalid_fields", "/client_ref: Field required")


async def _content(request: web.Request, received: Received, absent: Any = None) -> Any:
    raw = await request.read()
    if not raw and absent is not None:
        return absent
    received.body = parse(raw)
    if isinstance(received.body, dict) and isinstance(received.body.get("client_ref"), str):
        received.client_ref = received.body["client_ref"]
    return received.body


def _received(request: web.Request, op: Op | None) -> Received:
    return Received(
        time.time(),
        op,
        request.method,
        request.path,
        dict(request.query),
        request.headers.get("Idempotency-Key"),
        traceparent=request.headers.get("traceparent"),
    )
