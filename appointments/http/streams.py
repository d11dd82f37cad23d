"""Server-sent events (WHATWG HTML, 9.2): what happens to a tenant's appointments, as it happens.

`id` is the position in the log: a client that comes back with it as Last-Event-ID misses nothing and gets nothing
twice. The data is what a reader may know; who did it and why is in the audit trail.
"""

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appointments.http.asking import Admitted
from appointments.http.follower import Follower, Told
from appointments.http.routing import router

BEAT_S = 15.0
"""A comment is sent this often when nothing else is: so proxies keep the connection, and dead ones are found."""
SEND_WITHIN_S = 30.0
"""A client that takes nothing for so long is let go."""
RETRY_MS = 2_000
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events, without end."}
}

routes = router("what happens")
LastEventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=2**53, description="The last `id` that was seen; 0: from the beginning."),
]


@routes.get("/v1/stream", response_class=Response, responses=EVENT_STREAM)
async def tenant_stream(visit: Admitted, last_event_id: LastEventId = None) -> Response:
    """What happens to any of the tenant's appointments."""
    return EventStream(visit.door.follower, visit.tenant, None, last_event_id)


@routes.get("/v1/appointments/{id}/stream", response_class=Response, responses=EVENT_STREAM)
async def appointment_stream(visit: Admitted, id: UUID, last_event_id: LastEventId = None) -> Response:
    """What happens to one appointment."""
    await visit.desk.show(id, tenant=visit.tenant)
    return EventStream(visit.door.follower, visit.tenant, id, last_event_id)


class EventStream(Response):
    """The answer that goes on until its client goes, does not keep up, or this process stops."""

    media_type = "text/event-stream"

    def __init__(self, follower: Follower, tenant: str, appointment: UUID | None, after: int | None) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._follower, self._tenant, self._appointment, self._after = follower, tenant, appointment, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self._follower.watching(self._tenant, self._appointment) as (watcher, position):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            gone = asyncio.create_task(_gone(receive))
            gone.add_done_callback(lambda _: watcher.end())
            try:
                after = position if self._after is None else min(self._after, position)
                await _send(send, b"retry: %d\nid: %d\n\n" % (RETRY_MS, after))
                async with aclosing(self._follower.missed(watcher, after, position)) as pages:
                    async for page in pages:
                        await _send(send, _text(page))
                while not watcher.ended:
                    await _send(send, _text(await watcher.take(BEAT_S)) or b": beat\n\n")
                if watcher.overrun:
                    raise TimeoutError
                await _send(send, b"", more=False)
            except TimeoutError:
                _cut(scope)
                await asyncio.wait((gone,), timeout=1)
            finally:
                gone.cancel()
                with suppress(asyncio.CancelledError):
                    await gone


def _cut(scope: Scope) -> None:
    """Cut the connection: what waits to be sent would wait for a client that takes nothing."""
    cut = scope.get("extensions", {}).get("appointments.abort")
    if cut is not None:
        cut()


def _text(page: list[Told]) -> bytes:
    return b"".join(told.text for told in page)


async def _send(send: Send, text: bytes, more: bool = True) -> None:
    async with asyncio.timeout(SEND_WITHIN_S):
        await send({"type": "http.response.body", "body": text, "more_body": more})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
