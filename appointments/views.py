"""What callers get to see: frozen models, the same from Python, the command line and HTTP."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from domain import events as e
from domain.appointment import Appointment as State
from domain.lifecycle import ENDED, PHASES, Phase
from domain.lifecycle import State as Fine
from domain.provider import Party, Value
from store.port import RecordedEvent


class Appointment(Value):
    """An appointment as it stands at `version`."""

    id: UUID
    phase: Phase
    state: Fine
    reason: e.EndReason | None
    parked: bool
    version: int
    calendar: str
    start: datetime
    end: datetime
    time_zone: str
    summary: str
    location: str | None
    organizer: Party | None
    attendees: tuple[Party, ...]
    metadata: dict[str, str]
    provider_ref: str | None
    attempts: int
    retries: int
    next_action_at: datetime | None
    created_at: datetime
    updated_at: datetime
    correlation_id: str
    links: dict[str, str]
    parked_reason: str | None = None
    detail: str | None = None
    replayed: bool = False
    """The key had been used before: this is what it made then."""
    notice: str | None = None
    """What the caller should know, and do next."""


class AuditEvent(Value):
    """One line of the audit trail: what, when, by whom, why, and because of which version."""

    version: int
    position: int
    type: str
    recorded_at: datetime
    actor: str | None
    cause: int | None
    """The version of the fact that this decision followed from."""
    correlation_id: str
    data: dict[str, Any]


class AppointmentFilter(Value):
    """Which appointments to list."""

    tenant: str = "default"
    state: Fine | None = None
    phase: Phase | None = None
    calendar: str | None = None
    parked: bool | None = None
    q: str | None = Field(default=None, max_length=255)
    limit: int = Field(default=50, ge=1, le=10_000)


def view(state: State, next_action_at: datetime | None = None, replayed: bool = False) -> Appointment:
    """A state as its reader sees it. The state must have begun."""
    details = state.details
    assert details is not None
    assert state.created_at is not None
    assert state.updated_at is not None
    attempts = state.booking_step.attempts
    here = f"/v1/appointments/{state.id}"
    booking = state.booking
    return Appointment(
        id=state.id,
        phase=PHASES[state.state],
        state=state.state,
        reason=state.reason,
        parked=state.parked,
        version=state.version,
        calendar=details.calendar,
        start=details.start,
        end=details.end,
        time_zone=details.time_zone,
        summary=details.summary,
        location=details.location,
        organizer=details.organizer,
        attendees=details.attendees,
        metadata=details.metadata,
        provider_ref=booking.provider_ref if booking else None,
        attempts=attempts,
        retries=max(0, attempts - 1),
        next_action_at=next_action_at,
        created_at=state.created_at,
        updated_at=state.updated_at,
        correlation_id=state.correlation_id,
        links={"self": here, "events": f"{here}/events", "state": f"{here}/state"},
        parked_reason=state.parked_reason or None,
        detail=state.detail or None,
        replayed=replayed,
        notice=_notice(state, replayed),
    )


def _notice(state: State, replayed: bool) -> str | None:
    if replayed and state.state in ENDED:
        return (
            f"this key was used before; its appointment has ended: {state.state} ({state.reason}). "
            "Nothing was done now. To book anew, use a new key."
        )
    if state.parked:
        return f"parked: {state.parked_reason}. An operator can retry, skip, force_complete, compensate or resume it."
    return None


def audit_trail(stream: list[tuple[RecordedEvent, e.Event]], correlation_id: str) -> tuple[AuditEvent, ...]:
    """A stream as its auditor reads it: decisions point to the fact that they followed from."""
    trail, cause = [], None
    for recorded, event in stream:
        fact = isinstance(event, e.FACTS)
        data = event.model_dump(mode="json", exclude={"at", "actor", "correlation_id"}, exclude_defaults=True)
        trail.append(
            AuditEvent(
                version=recorded.version,
                position=recorded.position,
                type=recorded.type,
                recorded_at=event.at,
                actor=getattr(event, "actor", None),
                cause=None if fact else cause,
                correlation_id=getattr(event, "correlation_id", None) or correlation_id,
                data=data,
            )
        )
        if fact:
            cause = recorded.version
    return tuple(trail)
