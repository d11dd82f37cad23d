"""The callback receiver: a real HTTP endpoint for providers' signed messages (Standard Webhooks 1.0)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from appointments.http.strict_json import Malformed, strict_json
from appointments.telemetry.context import HERE, Context
from domain.commands import refusal
from domain.errors import ConcurrencyConflict, InvalidFields, StoreUnavailable

BODY_MAX = 64 * 1024
BODY_WITHIN_S = 10.0
PATH = "/v1/callbacks/{provider}"
CHALLENGE = "Standard-Webhooks"
"""How a message has to be authenticated: what a 401 has to tell (RFC 9110, 15.5.2)."""
STATUSES = {"booking.accepted": "accepted", "booking.rejected": "rejected", "booking.cancelled": "cancelled"}

Deliver = Callable[[str, str, str, str, str, int], Awaitable[bool]]
"""provider, webhook id, client reference, provider reference, status, version; False when the reference is unknown."""


class CallbackData(BaseModel):
    """The booking that a message is about."""

    id: Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,1024}$")]
    client_ref: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    version: int = Field(ge=0, le=2**31)
    status: Literal["pending", "accepted", "rejected", "cancelled"]


class Called(CallbackData):
    """The same, with the id of the message: of all the repeats of one, the same."""

    webhook_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]


class CallbackBody(BaseModel):
    """A provider's message; fields that we do not know are let be."""

    type: Literal["booking.accepted", "booking.rejected", "booking.cancelled", "booking.rescheduled"]
    data: CallbackData

    @model_validator(mode="after")
    def _of_one_mind(self) -> Self:
        status = STATUSES.get(self.type, self.data.status)
        if self.data.status != status:
            raise ValueError(f"{self.type} is of a booking that is {status}, not {self.data.status}")
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider is told: 204 without a body, or a problem by its name."""

    status: int = 204
    problem: str = ""
    detail: str = ""


TAKEN = Answer()


class Receiver:
    """Takes signed messages, whoever listens. `secrets`: for each provider one, or several while they are changed."""

    def __init__(self, secrets: Mapping[str, str], deliver: Deliver | None = None) -> None:
        self._hooks = {provider: _hooks(told) for provider, told in secrets.items()}
        self.deliver = deliver

    async def receive(self, provider: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """204 taken (or kept, reference unknown), 401 unsigned or stale. Header names in small letters."""
        hooks = self._hooks.get(provider)
        if hooks is None:
            return Answer(404, "unknown-provider", f"no provider {provider!r} calls back here")
        if not any(_verified(hook, body, headers) for hook in hooks):
            return Answer(401, "bad-signature", "the signature is missing, wrong or stale")
        try:
            message = CallbackBody.model_validate(strict_json(body))
        except Malformed as fault:
            return Answer(400, "malformed", str(fault))
        except ValidationError as faults:
            return Answer(422, "invalid-fields", refusal(faults).detail)
        return await self._hand_over(provider, headers["webhook-id"], message.data)

    async def _hand_over(self, provider: str, webhook_id: str, data: CallbackData) -> Answer:
        if self.deliver is None:
            return Answer(503, "starting", "try again in a moment")
        try:
            await self.deliver(provider, webhook_id, data.client_ref, data.id, data.status, data.version)
        except InvalidFields as refused:
            return Answer(422, "invalid-fields", refused.detail)
        except (StoreUnavailable, ConcurrencyConflict):
            return Answer(503, "store-unavailable", "try again later")
        return TAKEN


class CallbackListener:
    """Serves `POST /v1/callbacks/<provider>`: 204 taken (or kept, reference unknown), 401 unsigned or stale.

    Every other answer is a problem document (RFC 9457) as well; a body has to arrive within `BODY_WITHIN_S`.

    Use as an async context manager; give its receiver `deliver` once the orchestrator is open (503 until then). Raises
    `InvalidFields` for a secret that is none, and for an address that cannot be listened on.
    """

    def __init__(self, secrets: Mapping[str, str], host: str = "127.0.0.1", port: int = 0) -> None:
        self.receiver = Receiver(secrets)
        self._host, self._port = host, port
        application = web.Application(client_max_size=BODY_MAX, middlewares=(_as_problems, _in_its_trace))
        application.router.add_post(PATH, self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, lingering_time=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as fault:
            await self._runner.cleanup()
            detail = f"cannot listen on {self._where()}: {fault.strerror or fault}"
            raise InvalidFields(
                f"callbacks: {detail}; stop what listens there, or set callback_listen to a free host:port",
                (("/callback_listen", detail),),
            ) from None
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def url(self, provider: str) -> str:
        """Where this provider is to call."""
        return f"http://{self._where()}{PATH.format(provider=provider)}"

    def _where(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def _receive(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                body = await request.read()
        except TimeoutError:
            late = _problem(408, "body-too-slow", f"the body has to arrive within {BODY_WITHIN_S:.0f} s")
            late.force_close()
            return late
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "body-too-large", f"at most {BODY_MAX} bytes")
        headers = {name.lower(): value for name, value in request.headers.items()}
        told = await self.receiver.receive(request.match_info["provider"], headers, body)
        return _problem(told.status, told.problem, told.detail) if told.problem else web.Response(status=told.status)


@web.middleware
async def _as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the framework refuses by itself (a path, a method) is told as everything else is."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refused:
        allowed = ", ".join(sorted(refused.allowed_methods))
        told = _problem(405, "method-not-allowed", f"callbacks are received by {allowed}")
        told.headers["Allow"] = allowed
        return told
    except web.HTTPNotFound:
        return _problem(404, "not-found", f"callbacks are received at {PATH}")


@web.middleware
async def _in_its_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What comes of it can point to the trace that the request came in."""
    token = HERE.set(Context.read(request.headers.get("traceparent")))
    try:
        return await handler(request)
    finally:
        HERE.reset(token)


def _hooks(secrets: str) -> tuple[Webhook, ...]:
    try:
        return tuple(Webhook(secret) for secret in secrets.split()) or (Webhook(""),)
    except (ValueError, EmptyWebhookSecretError):
        detail = (
            "write whsec_ and base64, as the provider gave it; two of them, with a space between, while one changes"
        )
        raise InvalidFields(f"callback_secret is no secret: {detail}", (("/callback_secret", detail),)) from None


def _verified(hook: Webhook, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        hook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def _problem(status: int, name: str, detail: str) -> web.Response:
    body = {"type": f"urn:appointments:problem:{name}", "title": name, "status": status, "detail": detail}
    headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": CHALLENGE}}.get(status)
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)
