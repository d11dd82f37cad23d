"""What callers get to see: frozen models, the same from Python, the command line and HTTP."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment as State
from domain.lifecycle import ENDED, PHASES, Phase
from domain.lifecycle import State as Fine
from domain.provider import Party, Value
from projections.current_state import AppointmentFilter as AppointmentFilter
from projections.current_state import CurrentState, current
from store.port import RecordedEvent


class AppointmentBody(Value):
    """An appointment as it stands at `version`: what every way in shows of it."""

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


class Appointment(AppointmentBody):
    """The same, with what is told to whoever gave the command."""

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


class AppointmentPage(Value):
    """A page of the list, as of `position` of the log. Also a sequence: of its items."""

    items: tuple[Appointment, ...]
    next_cursor: str | None
    """Goes into the same filter for the page after this one; None at the end."""
    position: int

    def __iter__(self) -> Iterator[Appointment]:  # type: ignore[override]  # of fields, where nobody wants them
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Appointment:
        return self.items[index]


class Rebuilt(Value):
    """Read models that were refilled, and the position of the log that they had reached then."""

    projections: tuple[str, ...]
    position: int


def view(state: State, next_action_at: datetime | None = None, replayed: bool = False) -> Appointment:
    """A state as its reader sees it. The state must have begun."""
    return seen(current(state), next_action_at, replayed)


def seen(one: CurrentState, next_action_at: datetime | None = None, replayed: bool = False) -> Appointment:
    """An appointment as its reader sees it."""
    details, here = one.details, f"/v1/appointments/{one.id}"
    return Appointment(
        id=one.id,
        phase=PHASES[one.state],
        state=one.state,
        reason=one.reason,
        parked=one.parked,
        version=one.version,
        calendar=details.calendar,
        start=details.start,
        end=details.end,
        time_zone=details.time_zone,
        summary=details.summary,
        location=details.location,
        organizer=details.organizer,
        attendees=details.attendees,
        metadata=details.metadata,
        provider_ref=one.provider_ref,
        attempts=one.attempts,
        retries=max(0, one.attempts - 1),
        next_action_at=next_action_at,
        created_at=one.created_at,
        updated_at=one.updated_at,
        correlation_id=one.correlation_id,
        links={"self": here, "events": f"{here}/events", "state": f"{here}/state"},
        parked_reason=one.parked_reason or None,
        detail=one.detail or None,
        replayed=replayed,
        notice=_notice(one, replayed),
    )


def _notice(one: CurrentState, replayed: bool) -> str | None:
    if replayed and one.state in ENDED:
        return (
            f"this key was used before; its appointment has ended: {one.state} ({one.reason}). "
            "Nothing was done now. To book anew, use a new key."
        )
    if one.parked:
        return f"parked: {one.parked_reason}. An operator can retry, skip, force_complete, compensate or resume it."
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
