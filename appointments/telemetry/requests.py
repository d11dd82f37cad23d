"""Of every HTTP request: in which trace it is, how long it took, and a span where traces are on.

Labels are bounded by construction: a route is told by its template and a method by its name where we know it, else as
"other"; of a status only its class is told.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appointments.telemetry.context import HERE, Context, is_kept
from saga.timings import Timings

if TYPE_CHECKING:
    from appointments.telemetry.tracing import Tracing

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
NOT_TRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""What machines ask all day."""

Took = defaultdict[tuple[str, str, str], Timings]
"""How long until the answer began, by route, method and class of status. A stream ends when its client likes."""


class Requests:
    """Pure ASGI, outside of everything else."""

    def __init__(self, app: ASGIApp, took: Took, now: Callable[[], datetime], tracing: "Tracing | None") -> None:
        self._app, self._took, self._now, self._tracing = app, took, now, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, f"{status // 100}xx", began)
            await send(message)

        asked = _asked(scope)
        traced = None if self._tracing is None or scope["path"] in NOT_TRACED else self._tracing
        here = asked if traced is None else _begun(asked, traced.ratio)
        began_at = None if traced is None else self._now()
        token = HERE.set(here)
        try:
            await self._app(scope, receive, sending)
        finally:
            HERE.reset(token)
            if not status:
                self._count(scope, "none", began)
            if traced is not None and here is not None and began_at is not None:
                traced.requested(here, asked, (began_at, self._now()), _about(scope, status), status)

    def _count(self, scope: Scope, status: str, began: float) -> None:
        self._took[_template(scope), _method(scope), status].add(perf_counter() - began)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else OTHER


def _asked(scope: Scope) -> Context | None:
    told = [value for name, value in scope["headers"] if name == b"traceparent"]
    return Context.read(told[0].decode("latin-1")) if len(told) == 1 else None


def _begun(asked: Context | None, ratio: float) -> Context:
    """The request's own span, in the trace that it came with, or in a new one."""
    ids = int.from_bytes(os.urandom(24))
    trace_id, span_id = ids >> 64 or 1, ids % 2**64 or 1
    if asked is None:
        return Context(trace_id, span_id, is_kept(trace_id, ratio))
    return Context(asked.trace_id, span_id, asked.kept)


def _template(scope: Scope) -> str:
    """The template of the route that took the request."""
    route = scope.get("route")
    if route is None and scope["method"] == "HEAD":  # whoever answers it as a GET routes a copy of the scope
        as_get = {**scope, "method": "GET"}
        route = next((one for one in scope["app"].routes if one.matches(as_get)[0] is Match.FULL), None)
    mounted: str = scope.get("root_path", "")
    return mounted or OTHER if route is None or isinstance(route, Mount) else f"{mounted}{route.path}"


def _about(scope: Scope, status: int) -> dict[str, str | int]:
    """Neither the path nor the query: a stranger may write anything into them."""
    method, route = _method(scope), _template(scope)
    about: dict[str, str | int] = {"http.request.method": "_OTHER" if method == OTHER else method}
    if route != OTHER:
        about["http.route"] = route
    if status:
        about["http.response.status_code"] = status
    if not status or status >= 500:
        about["error.type"] = str(status) if status else "no_answer"
    try:
        about["appointments.id"] = str(UUID(scope["path_params"]["id"]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return about
    return about
