"""Providers' signed callbacks (Standard Webhooks 1.0): the signature is the whole of the authentication."""

from typing import Annotated

from fastapi import Path, Request
from starlette.responses import Response

from appointments.http.asking import At
from appointments.http.openapi import REF
from appointments.http.problems import Refusal, problem
from appointments.http.routing import router

BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": f"{REF}CallbackBody"}}}},
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ]
    + [{"name": "shard", "in": "query", "required": False, "schema": {"type": "string", "maxLength": 40}}],
}
routes = router("callbacks")


@routes.post("/v1/callbacks/{provider}", status_code=204, response_class=Response, openapi_extra=BODY)
async def called_back(at: At, request: Request, provider: Annotated[str, Path(max_length=40)]) -> Response:
    """Take a provider's message. 204 as well for a reference that nobody knows: it is kept for an operator."""
    receiver = at.shard(request.query_params.get("shard")).receiver
    if receiver is None:
        raise Refusal("unknown-provider", "no provider calls back here: set callback_secret")
    headers = {name.lower(): value for name, value in request.headers.items()}
    told = await receiver.receive(provider, headers, await request.body())
    return problem(told.problem, told.detail) if told.problem else Response(status_code=told.status)
