"""How an appointment, and what a command came to, is answered."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response

from appointments.http.asking import Said, Visit
from appointments.views import Appointment, AppointmentBody
from domain.lifecycle import SETTLED, State

JSON = "application/json"
_body = TypeAdapter(AppointmentBody)


def document(value: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON."""
    return Response(value.model_dump_json(), status, headers, JSON)


def etag(version: int) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def shown(one: Appointment, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An appointment, with its version as its entity tag."""
    return Response(_body.dump_json(one), status, {"ETag": etag(one.version), **(headers or {})}, JSON)


async def commanded(visit: Visit, one: Appointment, said: Said, *, books: bool = False) -> Response:
    """What a command came to: 202, or after a wait its end (201 for a booking that is confirmed); 200 for a repeat.

    A wait ends early where this process stops.
    """
    here, replayed = one.links["self"], one.replayed
    if said.wait_s and one.state not in SETTLED and not one.parked:
        waited = visit.desk.show(one.id, tenant=visit.tenant, wait=said.wait_s)
        one = await visit.door.standing.unless_stopping(waited) or one
    headers: dict[str, str] = {"Location": here}
    if said.applied:
        headers["Preference-Applied"] = said.applied
    if replayed:
        return shown(one, 200, {**headers, "Idempotency-Replayed": "true"})
    ended = bool(said.wait_s) and one.state in SETTLED
    if books:
        return shown(one, 201 if ended and one.state is State.CONFIRMED else 202, headers)
    return shown(one, 200 if ended else 202, headers)


def linked(next_page: str | None) -> Mapping[str, Any]:
    """The link to the page that follows (RFC 8288)."""
    return {"Link": f'<{next_page}>; rel="next"'} if next_page else {}
