"""The commands: book, cancel, reschedule, an operator's actions, and events of the legacy front end."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Body
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from appointments.access.roles import Principal
from appointments.http.answers import commanded
from appointments.http.asking import (
    At,
    Booker,
    Conversation,
    IfMatch,
    Key,
    Operator,
    OptionalKey,
    Wishes,
    versions,
)
from appointments.http.door import Door
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


async def _said(at: Door, who: Principal, id: UUID, if_match: str | None, conversation: str | None) -> dict[str, Any]:
    """Who asks, in which conversation, and at which version alone the command is to be carried out."""
    said = {"tenant": who.tenant, "actor": who.actor, "correlation_id": conversation}
    named = versions(if_match) if if_match is not None else None
    if named is None:
        return said
    now = (await at.desk.show(id, tenant=who.tenant)).version if len(named) > 1 else 0
    return {**said, "expected_version": now if now in named else (*named, 0)[0]}


@routes.post("/v1/appointments", status_code=202, response_model=AppointmentBody)
async def book(
    at: At, who: Booker, asked: BookAppointment, key: Key, wishes: Wishes, conversation: Conversation
) -> Response:
    """Book. Answered when the command is durable: it will be carried out, whatever happens to this process."""
    booked = await at.desk.book(asked, key=key, tenant=who.tenant, actor=who.actor, correlation_id=conversation)
    return await commanded(at, who, booked, wishes, books=True)


@routes.post(f"{ONE}/cancel", status_code=202, response_model=AppointmentBody)
async def cancel(
    at: At,
    who: Booker,
    id: UUID,
    key: Key,
    wishes: Wishes,
    conversation: Conversation,
    if_match: IfMatch = None,
    asked: Annotated[CancelAppointment | None, Body()] = None,
) -> Response:
    """Cancel it, whatever its provider says by then."""
    said = await _said(at, who, id, if_match, conversation)
    cancelled = await at.desk.cancel(id, key=key, reason=asked.reason if asked else "", **said)
    return await commanded(at, who, cancelled, wishes, books=False)


@routes.post(f"{ONE}/reschedule", status_code=202, response_model=AppointmentBody)
async def reschedule(
    at: At,
    who: Booker,
    id: UUID,
    asked: RescheduleAppointment,
    key: Key,
    wishes: Wishes,
    conversation: Conversation,
    if_match: IfMatch = None,
) -> Response:
    """Move it to another time."""
    said = await _said(at, who, id, if_match, conversation)
    moved = await at.desk.reschedule(id, start=asked.start, end=asked.end, time_zone=asked.time_zone, key=key, **said)
    return await commanded(at, who, moved, wishes, books=False)


@routes.post(f"{ONE}/actions", status_code=202, response_model=AppointmentBody)
async def act(
    at: At,
    who: Operator,
    id: UUID,
    asked: Act,
    wishes: Wishes,
    conversation: Conversation,
    key: OptionalKey = None,
    if_match: IfMatch = None,
) -> Response:
    """An operator's action. Without a key, the same action at the same version is done once."""
    said = await _said(at, who, id, if_match, conversation)
    acted = await at.desk.act(id, asked.action, reason=asked.reason, step=asked.step, key=key, **said)
    return await commanded(at, who, acted, wishes, books=False)


@routes.post("/v1/ui-events", status_code=202, response_model=AppointmentBody)
async def ui_event(
    at: At, who: Booker, asked: UiEvent, key: Key, wishes: Wishes, conversation: Conversation
) -> Response:
    """An event of the legacy front end as the command that it stands for."""
    event = asked.model_dump(exclude_unset=True)
    given = await at.desk.ui_event(event, key=key, tenant=who.tenant, actor=who.actor, correlation_id=conversation)
    return await commanded(at, who, given, wishes, books=LABELS[action_label(event)] == "book")
