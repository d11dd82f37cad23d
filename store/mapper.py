"""Between events and stored bytes: JSON through pydantic, types through a closed registry, old versions upcast.

Nothing is ever imported by a name that the database holds.
"""

import json
from uuid import UUID

from pydantic import ValidationError

from domain.errors import HistoryError
from domain.events import REGISTRY, Event
from domain.upcasting import UPCASTERS, Upcaster, upcast
from store.port import RecordedEvent


def encode(stream_id: UUID, version: int, event: Event) -> RecordedEvent:
    """An event as it is stored: its stable type name, and its fields without defaults."""
    body = event.__pydantic_serializer__.to_json(event, exclude_defaults=True)
    return RecordedEvent(stream_id, version, event.type, body)


def decode(recorded: RecordedEvent, upcasters: dict[str, Upcaster] = UPCASTERS) -> Event:
    """The event of a stored row; raises `HistoryError` for an unknown type or a body that does not fit it."""
    type_, body = recorded.type, recorded.body
    if type_ in upcasters:
        type_, body = _upcast(recorded, upcasters)
    event = REGISTRY.get(type_)
    if event is None:
        raise HistoryError(f"{_where(recorded)}: no event type {type_!r} is known here")
    try:
        return event.model_validate_json(body)
    except ValidationError as fault:
        raise HistoryError(f"{_where(recorded)}: {recorded.type} cannot be read: {fault}") from None


def _upcast(recorded: RecordedEvent, upcasters: dict[str, Upcaster]) -> tuple[str, bytes]:
    try:
        type_, body = upcast(recorded.type, json.loads(recorded.body), upcasters)
        return type_, json.dumps(body).encode()
    except (ValueError, TypeError, LookupError, AttributeError) as fault:
        # An upcaster takes the old shape for granted; a body without it is a fault of the history.
        raise HistoryError(f"{_where(recorded)}: {recorded.type} cannot be read: {fault!r}") from None


def _where(recorded: RecordedEvent) -> str:
    return f"stream {recorded.stream_id} version {recorded.version} (position {recorded.position})"
