"""The commands: book, cancel, reschedule, an operator's actions, and events of the legacy front end."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Body
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from appointments.http.answers import commanded
from appointments.http.asking import Admitted, Keyed, MayBeKeyed, Said, Visit
from appointments.http.moments import Timed
from appointments.http.routing import router
from appointments.views import AppointmentBody
from domain.commands import Act, BookAppointment, CancelAppointment, RescheduleAppointment
from domain.labels import LABELS, action_label

ONE = "/v1/appointments/{id}"
routes = router("commands")


class UiEvent(BaseModel):
    """An event as the legacy front end sends it: `data-action` on `target`, else on `srcElement`, says what it is."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(max_length=64)
    target: dict[str, Any] | None = None
    srcElement: dict[str, Any] | None = None  # noqa: N815 -- the name that browsers gave it
    payload: dict[str, Any]


def _who(visit: Visit, said: Said) -> dict[str, Any]:
    return {"tenant": visit.tenant, "actor": visit.who.actor, "correlation_id": said.conversation, "key": said.key}


@routes.post("/v1/appointments", status_code=202, response_model=AppointmentBody)
async def book(visit: Admitted, asked: Timed[BookAppointment], said: Keyed) -> Response:
    """Book. Answered when the command is durable: it will be carried out, whatever happens to this process."""
    return await commanded(visit, await visit.desk.book(asked, **_who(visit, said)), said, books=True)


@routes.post(f"{ONE}/cancel", status_code=202, response_model=AppointmentBody)
async def cancel(
    visit: Admitted, id: UUID, said: Keyed, asked: Annotated[CancelAppointment | None, Body()] = None
) -> Response:
    """Cancel it, whatever its provider says by then."""
    expected, reason = await said.expected(visit, id), asked.reason if asked else ""
    cancelled = await visit.desk.cancel(id, reason=reason, expected_version=expected, **_who(visit, said))
    return await commanded(visit, cancelled, said)


@routes.post(f"{ONE}/reschedule", status_code=202, response_model=AppointmentBody)
async def reschedule(visit: Admitted, id: UUID, asked: Timed[RescheduleAppointment], said: Keyed) -> Response:
    """Move it to another time."""
    wanted: dict[str, Any] = {"start": asked.start, "end": asked.end, "time_zone": asked.time_zone}
    expected = await said.expected(visit, id)
    moved = await visit.desk.reschedule(id, expected_version=expected, **wanted, **_who(visit, said))
    return await commanded(visit, moved, said)


@routes.post(f"{ONE}/actions", status_code=202, response_model=AppointmentBody)
async def act(visit: Admitted, id: UUID, asked: Act, said: MayBeKeyed) -> Response:
    """An operator's action. Without a key, the same action at the same version is done once."""
    wanted: dict[str, Any] = {"action": asked.action, "reason": asked.reason, "step": asked.step}
    acted = await visit.desk.act(id, expected_version=await said.expected(visit, id), **wanted, **_who(visit, said))
    return await commanded(visit, acted, said)


@routes.post("/v1/ui-events", status_code=202, response_model=AppointmentBody)
async def ui_event(visit: Admitted, asked: UiEvent, said: Keyed) -> Response:
    """An event of the legacy front end as the command that it stands for."""
    event = asked.model_dump(exclude_unset=True)
    given = await visit.desk.ui_event(event, **_who(visit, said))
    return await commanded(visit, given, said, books=LABELS[action_label(event)] == "book")
