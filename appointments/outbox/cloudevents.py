"""An event of the log as CloudEvents 1.0 (structured, JSON): what leaves for subscribers, and nothing else of it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from appointments.changes import Changed
from domain.commands import Traceparent
from domain.provider import Value

CONTENT_TYPE = "application/cloudevents+json"


class CloudEvent(Value):
    """One event; `source` and `id` together name it, however often it is told."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    """`<appointment>-<version>`."""
    source: str
    type: str
    subject: str
    """The appointment's id."""
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: str
    """The version in the appointment's stream, in ten digits: one that is missing is a gap."""
    traceparent: Traceparent | None = Field(default=None, exclude_if=lambda told: told is None)
    data: Changed


def event_id(appointment: UUID, version: int) -> str:
    """The id under which subscribers know an event."""
    return f"{appointment}-{version}"


def cloud_event(public: Changed, source: str, traceparent: str | None) -> CloudEvent:
    """What is told of a change."""
    return CloudEvent(
        id=event_id(public.appointment, public.version),
        source=source,
        type=public.type,
        subject=str(public.appointment),
        time=public.recorded_at,
        sequence=f"{public.version:010d}",
        traceparent=traceparent,
        data=public,
    )
