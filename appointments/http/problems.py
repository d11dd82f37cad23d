"""Problem details (RFC 9457): every refusal and every fault, in one table of names, statuses and titles."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from appointments.access.access import Unauthenticated
from appointments.callbacks import CHALLENGE
from appointments.http.strict_json import Malformed
from domain.errors import AppointmentsError, CommandRefused, ConcurrencyConflict, ProviderUnavailable, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
URN = "urn:appointments:problem:"
RETRY_AFTER_S = 1
"""When to try again while the store takes no writes, or while this process stops."""

TABLE: Mapping[str, tuple[int, str]] = {
    "malformed": (400, "The request cannot be read"),
    "idempotency-key-missing": (400, "No usable Idempotency-Key"),
    "unauthenticated": (401, "No valid token"),
    "bad-signature": (401, "The signature is missing, wrong or stale"),
    "forbidden": (403, "Not for this role"),
    "not-found": (404, "Nothing is here"),
    "unknown-appointment": (404, "No such appointment"),
    "unknown-report": (404, "No such reconciliation"),
    "unknown-provider": (404, "No such provider"),
    "method-not-allowed": (405, "Not by this method"),
    "not-acceptable": (406, "Not in this format"),
    "too-slow": (408, "The request took too long to arrive"),
    "illegal-transition": (409, "Not in this state"),
    "stale-version": (412, "It has changed since"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "Send JSON, as it is"),
    "command-refused": (422, "Refused"),
    "invalid-fields": (422, "Fields are missing or out of range"),
    "unknown-action-label": (422, "No such action label"),
    "idempotency-key-reused": (422, "The key was used with another payload"),
    "too-many-appointments": (422, "More than can be gone through at once"),
    "too-many-requests": (429, "Too many requests"),
    "headers-too-large": (431, "The headers are too large"),
    "internal-error": (500, "A fault on this side"),
    "history-unreadable": (500, "The history of this appointment cannot be read"),
    "provider-unavailable": (502, "The provider does not answer"),
    "store-unavailable": (503, "The store takes no writes now"),
    "busy": (503, "Too much at once"),
    "starting": (503, "This process is not ready yet"),
    "stopping": (503, "This process stops"),
}
NAMES = {status: name for name, (status, _) in reversed(list(TABLE.items()))}
"""What a refusal of the framework is called: the first name of its status."""


FRAMEWORK = {
    "not-found": "nothing is served under this address; /openapi.json tells what is",
    "method-not-allowed": "the header Allow tells which methods are",
}


class FieldFault(BaseModel):
    """One field at fault; `pointer` is a JSON pointer (RFC 6901) into the body, or names a parameter."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """What is wrong, for programs (`type`, `errors`) and for people (`title`, `detail`)."""

    type: str = Field(pattern=f"^{URN}[a-z-]+$")
    title: str
    status: int
    detail: str
    errors: list[FieldFault] = Field(default_factory=list)


class Refusal(Exception):
    """An answer by its name in the table, from the layers of HTTP."""

    def __init__(self, name: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.name, self.detail, self.headers = name, detail, dict(headers or {})


def problem(
    name: str, detail: str, errors: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The answer that tells it."""
    status, title = TABLE[name]
    faults = [FieldFault(pointer=pointer, detail=_text(told)) for pointer, told in errors]
    body = Problem(type=URN + name, title=title, status=status, detail=_text(detail), errors=faults)
    given = dict(headers or {})
    if status == 503:
        given.setdefault("Retry-After", str(RETRY_AFTER_S))
    if status == 401:
        given.setdefault("WWW-Authenticate", CHALLENGE if name == "bad-signature" else "Bearer")
    return Response(body.model_dump_json(), status, given, MEDIA_TYPE)


def told(fault: Exception) -> Response:
    """The answer to whatever is raised on purpose; every other fault is `internal-error`, without a word of what."""
    match fault:
        case Refusal():
            return problem(fault.name, fault.detail, headers=fault.headers)
        case Malformed():
            return problem("malformed", str(fault))
        case CommandRefused():
            name = fault.problem if fault.problem in TABLE else CommandRefused.problem  # a step's own, say
            return problem(name, fault.detail, fault.errors)
        case RequestValidationError():
            return _invalid(fault)
        case Unauthenticated():
            return problem("unauthenticated", str(fault))
        case HTTPException():
            name = NAMES.get(fault.status_code, "malformed" if fault.status_code < 500 else "internal-error")
            return problem(name, FRAMEWORK.get(name, str(fault.detail)), headers=fault.headers)
        case StoreUnavailable():
            return problem("store-unavailable", "nothing was acknowledged; try again with the same Idempotency-Key")
        case ConcurrencyConflict():
            return problem("busy", "the appointment keeps changing; try again with the same Idempotency-Key")
        case ProviderUnavailable():
            return problem("provider-unavailable", str(fault))
        case AppointmentsError():
            return problem("history-unreadable", "an operator has to look at it: `appointments check` tells more")
        case _:
            return problem("internal-error", "it was written to the log of this process")


async def answer(request: Request, fault: Exception) -> Response:
    """An exception handler, for what the framework refuses by itself."""
    if isinstance(fault, RequestValidationError) and any(one["loc"][0] == "path" for one in fault.errors()):
        appointment = request.url.path.startswith("/v1/appointments/")
        return problem("unknown-appointment" if appointment else "not-found", "this is no id that was ever given")
    answered = told(fault)
    if answered.status_code == 405:
        allowed = {method for route in request.app.routes for method in _methods(route, request.scope)}
        if "GET" in allowed and not request.url.path.endswith("/stream"):
            allowed.add("HEAD")  # see border.py
        answered.headers["Allow"] = ", ".join(sorted(allowed))
    return answered


def _methods(route: BaseRoute, scope: Scope) -> Iterable[str]:
    found, _ = route.matches(scope)
    return () if found is Match.NONE else getattr(route, "methods", None) or ()


def _invalid(fault: RequestValidationError) -> Response:
    errors = [(_pointer(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in fault.errors()]
    detail = "; ".join(f"{pointer}: {detail}" if pointer else detail for pointer, detail in errors)
    return problem("invalid-fields", detail, errors)


def _pointer(place: Sequence[Any]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in place[1:])
    return "".join(f"/{part}" for part in parts)


def _text(told: str) -> str:
    return told.encode("utf-8", "backslashreplace").decode()
