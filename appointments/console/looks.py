"""The pages over all appointments: how it goes, the list, and what is parked."""

import hashlib
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from appointments.console.charts import HOURS, call_times, hour_chart
from appointments.console.parked import Group, groups
from appointments.console.site import Site, Visit
from appointments.views import AppointmentFilter
from domain.commands import parse
from domain.errors import InvalidFields
from domain.lifecycle import State
from projections.pulse import Pulse

NEWEST = 8
PAGE = 50
PARKED_MAX = 200
DAY = re.compile(r"\d{4}-\d\d-\d\d")
NOTHING_NEW = 204
"""What is on the page stays."""


async def overview(at: Site, visit: Visit) -> Response:
    """How it goes now."""
    return at.page("pulse" if visit.partial else "overview", visit, "", **await _pulse(visit))


async def _pulse(visit: Visit) -> dict[str, Any]:
    tenant, now = visit.tenant, visit.door.now()
    since = now - timedelta(hours=HOURS)
    figures = await visit.desk.figures(since=since, tenant=tenant)
    pulse = await visit.desk.pulse(tenant=tenant)
    return {
        "pulse": pulse,
        "health": _health(visit, pulse),
        "hours": hour_chart(await visit.desk.hours(since, tenant=tenant), now),
        "success": figures.total.success_rate,
        "calls": call_times(figures),
        "newest": (await visit.desk.list(AppointmentFilter(tenant=tenant, limit=NEWEST))).items,
    }


def _health(visit: Visit, pulse: Pulse) -> tuple[str, str]:
    """The worst of it as a tone, and all of it in words."""
    found: list[tuple[str, str]] = []
    if visit.door.standing.stopping:
        found.append(("bad", "this process stops and takes no new commands"))
    if visit.door.standing.refuses(visit.door.now()):
        found.append(("bad", "the store has just refused a write"))
    if pulse.overdue:
        found.append(("bad", f"{pulse.overdue}{'+' * pulse.overdue_more} overdue: taken up by nobody for a minute"))
    for one in pulse.breakers:
        if one.state != "closed":
            found.append(("warn", f"the breaker of {one.target} is {one.state.replace('_', ' ')}"))
    if pulse.parked:
        found.append(("warn", f"{pulse.parked} parked: an operator has to decide"))
    if not found:
        return "good", "All is well: commands are taken, nothing is overdue or parked, no breaker is open."
    told = "; ".join(words for _, words in found)
    return "bad" if any(tone == "bad" for tone, _ in found) else "warn", f"{told[0].upper()}{told[1:]}."


async def appointments(at: Site, visit: Visit) -> Response:
    """Search and filters."""
    given = {name: value for name, value in visit.request.query_params.items() if value}
    asked = {name: given.get(name, "") for name in ("q", "state", "calendar", "from", "to", "parked")}
    fields: dict[str, Any] = {**given, "tenant": visit.tenant, "limit": PAGE}
    for name in ("from", "to"):
        if DAY.fullmatch(given.get(name, "")):
            fields[name] = f"{given[name]}T00:00:00Z"
        else:
            asked[name] = ""  # a browser's field for a day takes nothing else
    facts: dict[str, Any] = {"asked": asked, "states": [state.value for state in State if state is not State.INIT]}
    try:
        page = await visit.desk.list(parse(AppointmentFilter, fields))
    except InvalidFields as fault:
        return at.page(
            "appointments", visit, "/appointments", 422, told=str(fault), items=(), next="", position=0, **facts
        )
    more = f"{at.root}/appointments?{urlencode({**given, 'cursor': page.next_cursor})}" if page.next_cursor else ""
    return at.page(
        "appointments", visit, "/appointments", told="", items=page.items, next=more, position=page.position, **facts
    )


async def parked(at: Site, visit: Visit) -> Response:
    """Parked work, in groups of the same failure. An open page is told only what is new to it."""
    page = await visit.desk.list(AppointmentFilter(tenant=visit.tenant, parked=True, limit=PARKED_MAX))
    found = groups(page.items)
    known = _digest(found)
    if visit.partial and visit.request.query_params.get("known") == known:
        return Response(status_code=NOTHING_NEW)
    facts: dict[str, Any] = {"groups": found, "known": known, "more": page.next_cursor is not None, "limit": PARKED_MAX}
    return at.page("parked_groups" if visit.partial else "parked", visit, "/parked", **facts)


def _digest(found: tuple[Group, ...]) -> str:
    told = "\n".join(f"{one.id} {one.version}" for group in found for one in group.items)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
