"""The page of one appointment: what it is, and for those who may audit, its course, its past and its proof."""

import json
from typing import Any

from starlette.responses import Response

from appointments.access.roles import Permission
from appointments.console.looks import NOTHING_NEW
from appointments.console.site import Site, Visit
from appointments.console.timeline import timeline
from domain.errors import InvalidFields

PAYLOAD_MAX = 400


async def appointment(at: Site, visit: Visit) -> Response:
    """One appointment. An open page sends which version it knows, and where its slider stands."""
    id, asked = visit.request.path_params["id"], visit.request.query_params
    one = await visit.desk.show(id, tenant=visit.tenant)
    known = _number(asked["known"]) if "known" in asked else None
    if visit.partial and known == one.version:
        return Response(status_code=NOTHING_NEW)
    facts: dict[str, Any] = {"one": one, "shown": one}
    version = _number(asked["version"]) if "version" in asked else None
    if version is not None:
        at.check(visit.principal, Permission.AUDIT)
    if visit.door.access.allows(visit.principal, Permission.AUDIT):
        events = await visit.desk.events(id, tenant=visit.tenant)
        facts |= {"events": events, "line": timeline(events, one.next_action_at), "payload": _payloads(events)}
        if version not in (None, known):
            facts["shown"] = await visit.desk.state_at(id, version=version, tenant=visit.tenant)
    return at.page("appointment_now" if visit.partial else "appointment", visit, "/appointments", **facts)


def _payloads(events: Any) -> dict[int, str]:
    return {event.version: json.dumps(event.data, indent=1, ensure_ascii=False)[:PAYLOAD_MAX] for event in events}


async def state(at: Site, visit: Visit) -> Response:
    """The state at a version: the slider's."""
    id, version = visit.request.path_params["id"], _number(visit.request.query_params.get("version", ""))
    shown = await visit.desk.state_at(id, version=version, tenant=visit.tenant)
    return at.page("state", visit, shown=shown)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidFields(f"{text!r} is no version", (("/version", "not a number"),))
    return int(text)


async def replayed(at: Site, visit: Visit) -> Response:
    """Whether every decision comes out as it was recorded."""
    id = visit.request.path_params["id"]
    verdict = await visit.desk.replay(id, tenant=visit.tenant)
    name = "verdict" if visit.partial else "replayed"
    return at.page(name, visit, "/appointments", verdict=verdict, id=id)
