"""Routes that take strict JSON where they take a body, and are named in the OpenAPI document as their functions are."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response

from appointments.http.problems import Refusal
from appointments.http.strict_json import strict_json

JSON = re.compile(r"application/([\w.+-]+\+)?json\s*(;|$)", re.IGNORECASE)


class StrictRequest(Request):
    """A request whose JSON has one meaning."""

    async def take(self) -> None:
        """Read the body. Raises `Refusal` for what is no JSON, by its content type or by its text."""
        body = await self.body()
        if body and not JSON.match(self.headers.get("content-type", "")):
            raise Refusal("unsupported-media-type", "send Content-Type: application/json")
        self._value = strict_json(body) if body else None

    async def json(self) -> Any:
        """What was read."""
        return self._value


class StrictRoute(APIRoute):
    """A route that takes strict JSON, where it takes a body; and no body in a content coding."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, behind the reading of the body."""
        handle, takes_body = super().get_route_handler(), self.body_field is not None
        may_be_coded = takes_body or "requestBody" in (self.openapi_extra or {})

        async def handle_strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if may_be_coded:
                _check_coding(request.headers)
            if takes_body:
                await strict.take()
            return await handle(strict)

        return handle_strictly


def _check_coding(headers: Headers) -> None:
    codings = headers.getlist("content-encoding")
    if codings and any(one.strip().lower() != "identity" for one in ",".join(codings).split(",")):
        raise Refusal("unsupported-media-type", "send the body as it is", {"Accept-Encoding": "identity"})


def router(tag: str) -> APIRouter:
    """Where routes of one kind are declared."""
    return APIRouter(route_class=StrictRoute, tags=[tag], generate_unique_id_function=lambda route: route.name)
