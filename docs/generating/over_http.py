"""The HTTP API as its routes, its table of problems and its limits declare it."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from appointments.access import access
from appointments.access.roles import MAY, NEEDS, Permission, Role
from appointments.http import asking, border, connection, follower, reports, server, strict_json
from appointments.http.app import ROUTES
from appointments.http.openapi import describe
from appointments.http.problems import TABLE
from generating.markdown import one_line, table

WHAT_TO_DO = {
    "malformed": "mend the program; the detail tells what cannot be read",
    "idempotency-key-missing": "send one key of 1 to 255 visible ASCII characters",
    "unauthenticated": "send a token that is valid: `Authorization: Bearer appt_…`",
    "bad-signature": "sign as Standard Webhooks has it, with the secret of here and a clock that is right",
    "forbidden": "use a token of a role that may; see [access](access.md)",
    "not-found": "look at `/openapi.json`",
    "unknown-appointment": "look at the id, and at the tenant of the token",
    "unknown-report": "make a new one: they are kept in memory, and a few of them",
    "unknown-provider": "set `callback_secret`; the path ends with `provider_name`",
    "method-not-allowed": "use a method of the header `Allow`",
    "not-acceptable": "accept one of the formats that the detail names",
    "too-slow": "send it again, faster; with the same key",
    "illegal-transition": "read the appointment: it is not in a state for that (any more)",
    "stale-version": "read it again, decide again, send the new `ETag`",
    "body-too-large": "send less",
    "unsupported-media-type": "send `Content-Type: application/json`, and no `Content-Encoding`",
    "command-refused": "see the detail",
    "invalid-fields": "mend the fields that `errors` names",
    "unknown-action-label": "use a label of [the list](operations.md)",
    "idempotency-key-reused": "take a new key for a new command",
    "too-many-appointments": "ask for fewer at once",
    "too-many-requests": "wait for the seconds of `Retry-After`",
    "headers-too-large": "send fewer and shorter headers",
    "internal-error": "send it again with the same key, a few times, more and more seldom; tell the operator",
    "history-unreadable": "tell the operator: nothing will be done to this appointment before",
    "provider-unavailable": "ask again later; nothing was changed",
    "store-unavailable": "wait for `Retry-After`, send it again with the same key: nothing was acknowledged",
    "busy": "wait for `Retry-After`, send it again with the same key",
    "starting": "wait for `Retry-After`, send it again",
    "stopping": "wait for `Retry-After`, send it again with the same key; another process may take it",
}


def problems() -> str:
    """Every problem, and what a client does on it."""
    rows = [(f"`{name}`", str(status), title, WHAT_TO_DO[name]) for name, (status, title) in TABLE.items()]
    return table(("`urn:appointments:problem:…`", "status", "title", "what to do"), rows)


def routes() -> str:
    """Every route: who may, what it answers when it is well."""
    rows = [
        (f"`{route}`", NEEDS[told["operationId"]] or "", _well(told), one_line(told["description"]))
        for route, told in _operations()
    ]
    return table(("route", "permission", "when well", "does"), rows)


def roles() -> str:
    """Every permission: over which routes it is used, and which roles have it."""
    routes = {permission: list[str]() for permission in Permission}
    for route, told in _operations():
        if (needed := NEEDS[told["operationId"]]) is not None:
            routes[needed].append(f"`{route.replace('/v1', '')}`")
    rows = [
        (permission, ", ".join(routes[permission]), *("yes" if permission in MAY[role] else "" for role in Role))
        for permission in Permission
    ]
    return table(("permission", "lets, below `/v1`", *(f"`{role}`" for role in Role)), rows)


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    app = FastAPI()
    for room in ROUTES:
        app.router.routes.extend(room.routes)
    describe(app)
    for path, methods in app.openapi()["paths"].items():
        yield from ((f"{method.upper()} {path}", told) for method, told in methods.items())


def _well(told: dict[str, Any]) -> str:
    return ", ".join(sorted(status for status in told["responses"] if int(status) < 400))


def limits() -> str:
    """What is bounded, and by how much."""
    head = f"{connection.HEAD_MAX // 1024} KiB, {connection.HEADERS_MAX} headers"
    rows = [
        ("body", f"{border.BODY_MAX // 1024} KiB, whole within {border.BODY_WITHIN_S:.0f} s", "413, 408"),
        ("nesting of a body", f"{strict_json.DEPTH_MAX} levels", "400"),
        ("request line and headers", f"{head}, within {connection.HEAD_WITHIN_S:.0f} s", "431, 408"),
        ("body as it is sent, with sizes of chunks and trailers", f"{connection.WIRE_MAX // 2**20} MiB", "the end"),
        ("requests sent before the answer of one", f"{connection.PIPELINED_MAX}", "the end"),
        ("connection whose client goes on after the answer", f"{connection.HEAD_WITHIN_S:.0f} s", "the end"),
        ("`Prefer: wait=N`", f"{asking.WAIT_MAX_S} s", "a shorter wait"),
        ("`Idempotency-Key`", "1 to 255 visible ASCII characters", "400"),
        ("page of a list", "200", "422"),
        ("streams at once", f"{follower.WATCHERS_MAX:,}, {follower.WATCHERS_OF_TENANT_MAX:,} of a tenant", "503"),
        ("events that wait for one stream", f"{follower.BUFFER_MAX:,}", "the end; it resumes"),
        ("reports of reconciliations that are kept, of a tenant", f"{reports.REPORTS_MAX}, the newest", "404"),
        (
            "tokens that are none, from one address (of IPv6: one /64)",
            f"{access.FAILED_RATE:.0f} a second, {access.FAILED_BURST} at once",
            "429; a valid one is let in",
        ),
        ("requests of a tenant", "`http_rate` a second, `http_burst` at once; unset: no limit", "429"),
        ("what runs when the process is told to stop", f"{server.GRACE_S} s", "the end"),
    ]
    return table(("what", "at most", "else"), rows)
