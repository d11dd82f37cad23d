"""What is known: appointments, their audit trails and past states, the verdict of a replay, figures."""

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from appointments.http.answers import document, etag, linked, shown
from appointments.http.asking import Admitted, unchanged
from appointments.http.dead_letters import DeadLetters
from appointments.http.moments import Moment
from appointments.http.routing import router
from appointments.views import AppointmentBody, AppointmentFilter, AuditEvent
from domain.commands import parse
from domain.errors import InvalidFields
from domain.lifecycle import Phase, State
from projections.figures_report import FiguresReport
from saga.replay import Replay

ONE = "/v1/appointments/{id}"
EVENTS_MAX = 1_000
routes = router("what is known")


class Listed(BaseModel):
    """A page of appointments, newest first."""

    items: tuple[AppointmentBody, ...]
    next_cursor: str | None


class Trail(BaseModel):
    """A part of an audit trail, in order."""

    items: tuple[AuditEvent, ...]


class ListQuery(BaseModel):
    """Which appointments: those that match all that is given."""

    model_config = {"extra": "forbid"}

    state: State | None = None
    phase: Phase | None = None
    calendar: str | None = Query(None, max_length=64)
    parked: bool | None = None
    from_: Moment | None = Query(None, alias="from", description="They end after this.")
    to: Moment | None = Query(None, description="They start before this.")
    q: str | None = Query(None, max_length=255, description="Part of the summary, the location or the id.")
    limit: int = Query(50, ge=1, le=200)
    cursor: str | None = Query(None, max_length=64, description="`next_cursor` of the page before.")


@routes.get("/v1/appointments", response_model=Listed)
async def list_appointments(visit: Admitted, query: Annotated[ListQuery, Query()], request: Request) -> Response:
    """A page of appointments. A walk along `next_cursor` neither skips nor repeats, whatever is written meanwhile."""
    asked = query.model_dump(by_alias=True, exclude_none=True)
    page = await visit.desk.list(parse(AppointmentFilter, {**asked, "tenant": visit.tenant}))
    given = {name: value for name, value in request.query_params.items() if name != "cursor"}
    following = f"/v1/appointments?{urlencode({**given, 'cursor': page.next_cursor})}" if page.next_cursor else None
    listed = Listed.model_construct(items=page.items, next_cursor=page.next_cursor)
    return document(listed, headers=linked(following))


@routes.get(ONE, response_model=AppointmentBody)
async def appointment(visit: Admitted, id: UUID, request: Request) -> Response:
    """One appointment as it stands now."""
    one = await visit.desk.show(id, tenant=visit.tenant)
    if unchanged(request, one.version):
        return Response(status_code=304, headers={"ETag": etag(one.version)})
    return shown(one)


@routes.get(f"{ONE}/events", response_model=Trail)
async def events(
    visit: Admitted,
    id: UUID,
    after: Annotated[int, Query(ge=0, le=2**31, description="Those behind this version.")] = 0,
    limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = EVENTS_MAX,
) -> Response:
    """The audit trail: who, when, why, and because of what."""
    trail = [event for event in await visit.desk.events(id, tenant=visit.tenant) if event.version > after]
    items = tuple(trail[:limit])
    more = f"/v1/appointments/{id}/events?after={items[-1].version}&limit={limit}" if len(trail) > limit else None
    return document(Trail.model_construct(items=items), headers=linked(more))


@routes.get(f"{ONE}/state", response_model=AppointmentBody)
async def state(
    visit: Admitted,
    id: UUID,
    version: Annotated[int | None, Query(ge=1, le=2**31)] = None,
    instant: Annotated[Moment | None, Query(alias="at", description="With an offset.")] = None,
) -> Response:
    """The appointment as it was, at a version or at an instant."""
    if version is not None and instant is not None:
        raise InvalidFields("ask for a version or for an instant", (("/version", "not together with at"),))
    return shown(await visit.desk.state_at(id, version=version, at=instant, tenant=visit.tenant))


@routes.post(f"{ONE}/replay", response_model=Replay)
async def replay(visit: Admitted, id: UUID) -> Response:
    """Decide again what was decided, and compare it with what was recorded."""
    return document(await visit.desk.replay(id, tenant=visit.tenant))


@routes.get("/v1/figures", response_model=FiguresReport)
async def figures(
    visit: Admitted,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
) -> Response:
    """Success rate, attempts, retries, compensations and latencies, between two instants widened to whole hours."""
    return document(await visit.desk.figures(since=since, until=until, tenant=visit.tenant))


@routes.get("/v1/dead-letters", response_model=DeadLetters)
async def left_behind(visit: Admitted) -> Response:
    """What no program takes up any more: an operator has to."""
    return document(await visit.door.dead_letters(visit.tenant))
