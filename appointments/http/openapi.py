"""The OpenAPI 3.1 document: what the routes declare, and what the layers around them add to every one."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from appointments.callbacks import CallbackBody
from appointments.http.problems import MEDIA_TYPE, TABLE, Problem

REF = "#/components/schemas/"
TEXT = {"type": "string"}
HEADERS: dict[str, Any] = {
    "ETag": {
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
        "description": "The version.",
        "required": True,
    },
    "Location": {"schema": TEXT, "description": "Where it is from now on.", "required": True},
    "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "The key had been used before."},
    "Preference-Applied": {"schema": TEXT, "description": "What of Prefer was heeded (RFC 7240)."},
    "Link": {"schema": TEXT, "description": 'rel="next": the page that follows (RFC 8288).'},
    "Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "Seconds.", "required": True},
    "Allow": {"schema": TEXT, "required": True},
    "Accept-Encoding": {"schema": TEXT, "description": "Of a body in a coding: those that are read (RFC 9110)."},
}


def _asked(name: str, told: str, required: bool = False, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": required, "schema": schema, "description": told}


_TAGS = r'^(\*|"[0-9]{1,9}"(, ?"[0-9]{1,9}")*)$'
_KEY, _OPTIONAL_KEY = (
    _asked("Idempotency-Key", "The same key and body: done once.", required, pattern="^[!-~]{1,255}$")
    for required in (True, False)
)
_WISHES = (
    _asked("Prefer", "`wait=N`: answer at the end, or after N seconds, at most 60; `respond-async` (RFC 7240)."),
    _asked("X-Correlation-ID", "The conversation; goes into every event.", maxLength=128),
    _asked("traceparent", "W3C Trace Context: what comes of it goes on in this trace; its id, for X-Correlation-ID."),
)
_IF_MATCH = _asked("If-Match", "Only at this version.", pattern=_TAGS)
ASKED: dict[str, tuple[dict[str, Any], ...]] = {
    "book": (_KEY, *_WISHES),
    "ui_event": (_KEY, *_WISHES),
    "cancel": (_KEY, _IF_MATCH, *_WISHES),
    "reschedule": (_KEY, _IF_MATCH, *_WISHES),
    "act": (_OPTIONAL_KEY, _IF_MATCH, *_WISHES),
    "appointment": (_asked("If-None-Match", "Only if it has changed.", pattern=_TAGS),),
}
"""Headers that `asking.py` reads."""
TIMES = {"start": "2031-03-03T09:00:00Z", "end": "2031-03-03T09:30:00Z", "time_zone": "Europe/Berlin"}
BOOKING = {"calendar": "main", **TIMES, "summary": "Check-up"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "book": {
        **BOOKING,
        "attendees": [{"email": "ann@example.org", "name": "Ann"}],
        "metadata": {"order": "4711"},
    },
    "cancel": {"reason": "the caller asked"},
    "reschedule": {**TIMES, "end": "2031-03-03T10:00:00Z"},
    "act": {"action": "park", "reason": "the provider has called us"},
    "ui_event": {"type": "click", "target": {"dataset": {"action": "book-appointment"}}, "payload": BOOKING},
    "reconcile": {"calendar": "main"},
    "heal": {"dry_run": True},
    "called_back": {
        "type": "booking.accepted",
        "data": {"id": "b-1", "client_ref": "b7e0c4a2d1f94c55", "version": 1, "status": "accepted"},
    },
}
"""A body that each operation takes."""
OF_ONE = ("appointment", "cancel", "reschedule", "act", "events", "state", "replay")
"""Operations on an appointment that a command answered."""


def describe(app: FastAPI) -> None:
    """Have the application tell the whole document, made at the first request for it."""
    declared = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = declared()
            schemas = document["components"]["schemas"]
            for model in (Problem, CallbackBody):
                schemas[model.__name__] = model.model_json_schema(ref_template=REF + "{model}")
                schemas.update(schemas[model.__name__].pop("$defs"))
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for method, operation in _operations(document):
                _complete(method, operation)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in document["paths"].values():
        yield from path.items()


def _complete(method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    operation.setdefault("parameters", []).extend(ASKED.get(operation["operationId"], ()))
    parameters = _names(operation)
    if operation["operationId"] in EXAMPLES:
        operation["requestBody"]["content"]["application/json"]["example"] = EXAMPLES[operation["operationId"]]
    if method == "post" and "AppointmentBody" in str(responses.get("202")):
        _complete_command(operation)
    elif operation["operationId"] == "appointment":
        responses["304"] = {"description": "As the client knows it.", "headers": _headers("ETag")}
        responses["200"]["headers"] = _headers("ETag")
    elif operation["operationId"] in ("list_appointments", "events"):
        responses["200"]["headers"] = _headers("Link")
    elif operation["operationId"] == "reconcile":
        responses["201"]["headers"] = _headers("Location")
        responses["201"]["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in ("report", "heal")
        }
    for status in sorted(_refusals(method, operation, parameters)):
        responses[str(status)] = _problem(status)


def _complete_command(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    done = responses["202"]
    done["headers"] = _headers("ETag", "Location", "Preference-Applied")
    done["description"] = "It is durable, and on its way."
    if operation["operationId"] in ("book", "ui_event"):
        responses["201"] = {**done, "description": "It was confirmed within the wait."}
        done["links"] = {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in OF_ONE}
    repeated = {**done, "description": "The key was used before; or it was done within the wait."}
    responses["200"] = {**repeated, "headers": {**done["headers"], **_headers("Idempotency-Replayed")}}


def _refusals(method: str, operation: dict[str, Any], parameters: set[str]) -> set[int]:
    name = operation["operationId"]
    found = {400, 500, 503}
    if "security" in operation:
        found |= {401, 403, 429}
    if parameters or "requestBody" in operation:
        found.add(422)
    if "id" in parameters or "provider" in parameters:
        found.add(404)
    if "requestBody" in operation:
        found |= {408, 413, 415}
    if "AppointmentBody" in str(operation["responses"].get("202")):
        found |= {409, 412} if "id" in parameters or name == "ui_event" else set()
        found |= {404} if name == "ui_event" else set()
    per_name = {
        "state": {409},
        "report": {406},
        "reconcile": {502},
        "called_back": {401, 408, 413},
        "metrics": {401, 429},
    }
    return found | per_name.get(name, set())


def _names(operation: dict[str, Any]) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", ())}


def _headers(*names: str) -> dict[str, Any]:
    return {name: HEADERS[name] for name in names}


def _problem(status: int) -> dict[str, Any]:
    names = [name for name, (of, _) in TABLE.items() if of == status]
    told: dict[str, Any] = {
        "description": "; ".join(f"{name}: {TABLE[name][1]}" for name in names),
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"{REF}Problem"}}},
    }
    if status in (429, 503):
        told["headers"] = _headers("Retry-After")
    if status == 415:
        told["headers"] = _headers("Accept-Encoding")
    return told
