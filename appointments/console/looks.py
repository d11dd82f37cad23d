"""The pages that only show."""

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from appointments.console.charts import HOURS, call_times, hour_chart
from appointments.console.parked import Batch, groups
from appointments.console.site import Site, Visit
from appointments.console.timeline import timeline
from appointments.views import AppointmentFilter
from domain.commands import parse
from domain.errors import InvalidFields, UnknownAppointment
from domain.lifecycle import State

NEWEST = 8
PAGE = 50
PARKED_MAX = 200
PAYLOAD_MAX = 400
DAY = re.compile(r"\d{4}-\d\d-\d\d")


async def overview(at: Site, visit: Visit) -> Response:
    """How it goes now."""
    newest = await at.desk.list(AppointmentFilter(tenant=visit.principal.tenant, limit=NEWEST))
    return at.page("overview", visit, "", newest=newest.items, **await _pulse(at, visit))


async def pulse(at: Site, visit: Visit) -> Response:
    """The part of it that changes by the second."""
    return at.page("pulse", visit, **await _pulse(at, visit))


async def _pulse(at: Site, visit: Visit) -> dict[str, Any]:
    tenant, now = visit.principal.tenant, at.now()
    since = now - timedelta(hours=HOURS)
    figures = await at.desk.figures(since=since, tenant=tenant)
    return {
        "pulse": await at.desk.pulse(tenant=tenant),
        "hours": hour_chart(await at.desk.hours(since, tenant=tenant), now),
        "success": figures.total.success_rate,
        "calls": call_times(figures),
    }


async def appointments(at: Site, visit: Visit) -> Response:
    """Search and filters."""
    given = {name: value for name, value in visit.request.query_params.items() if value}
    asked = {name: given.get(name, "") for name in ("q", "state", "calendar", "from", "to", "parked")}
    fields: dict[str, Any] = {**given, "tenant": visit.principal.tenant, "limit": PAGE}
    for name in ("from", "to"):
        if DAY.fullmatch(given.get(name, "")):
            fields[name] = f"{given[name]}T00:00:00Z"
        else:
            asked[name] = ""  # a browser's field for a day takes nothing else
    facts: dict[str, Any] = {"asked": asked, "states": [state.value for state in State if state is not State.INIT]}
    try:
        page = await at.desk.list(parse(AppointmentFilter, fields))
    except InvalidFields as fault:
        return at.page(
            "appointments", visit, "/appointments", 422, told=str(fault), items=(), next="", position=0, **facts
        )
    more = f"{at.root}/appointments?{urlencode({**given, 'cursor': page.next_cursor})}" if page.next_cursor else ""
    return at.page(
        "appointments", visit, "/appointments", told="", items=page.items, next=more, position=page.position, **facts
    )


async def appointment(at: Site, visit: Visit) -> Response:
    """One appointment: its course, its state at any version, its events."""
    id, tenant = visit.request.path_params["id"], visit.principal.tenant
    one, events = await at.desk.show(id, tenant=tenant), await at.desk.events(id, tenant=tenant)
    version = visit.request.query_params.get("version")
    payload = {event.version: json.dumps(event.data, indent=1, ensure_ascii=False)[:PAYLOAD_MAX] for event in events}
    shown = one if version is None else await at.desk.state_at(id, version=_number(version), tenant=tenant)
    line = timeline(events, one.next_action_at)
    return at.page(
        "appointment", visit, "/appointments", one=one, shown=shown, events=events, line=line, payload=payload
    )


async def state(at: Site, visit: Visit) -> Response:
    """The state at a version: the slider's."""
    id, version = visit.request.path_params["id"], _number(visit.request.query_params.get("version", ""))
    shown = await at.desk.state_at(id, version=version, tenant=visit.principal.tenant)
    return at.page("state", visit, shown=shown)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidFields(f"{text!r} is no version", (("/version", "not a number"),))
    return int(text)


async def replayed(at: Site, visit: Visit) -> Response:
    """Whether every decision comes out as it was recorded."""
    id = visit.request.path_params["id"]
    verdict = await at.desk.replay(id, tenant=visit.principal.tenant)
    if "hx-request" in visit.request.headers:
        return at.page("verdict", visit, verdict=verdict)
    good = verdict.matches and verdict.chain == "ok"
    told = f"{verdict.decisions} decisions of {verdict.events} events were made again"
    heading, tone = ("As recorded", "good") if good else ("Not as recorded", "bad")
    return at.told(visit, heading, told, tone, f"{at.root}/appointments/{id}")


async def parked(at: Site, visit: Visit) -> Response:
    """Parked work, in groups of the same failure."""
    page = await at.desk.list(AppointmentFilter(tenant=visit.principal.tenant, parked=True, limit=PARKED_MAX))
    more = page.next_cursor is not None
    return at.page("parked", visit, "/parked", groups=groups(page.items), more=more, limit=PARKED_MAX)


async def batch(at: Site, visit: Visit) -> Response:
    """How far an action on a group is."""
    return at.page("batch", visit, "/parked", batch=_batch(at, visit))


async def batch_progress(at: Site, visit: Visit) -> Response:
    """The part of it that changes; when all is done, nobody asks any more."""
    found = _batch(at, visit)
    answer = at.page("batch_progress", visit, batch=found)
    if found.done:
        answer.headers["HX-Refresh"] = "true"
    return answer


def _batch(at: Site, visit: Visit) -> Batch:
    found = at.batches.get(visit.request.path_params["batch"], visit.principal.tenant)
    if found is None:
        raise UnknownAppointment(
            "there is no such batch (any more); the audit trail of each appointment tells what was done"
        )
    return found
