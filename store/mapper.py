"""Between events and stored parts: JSON through pydantic, types through a closed registry, old versions upcast.

An event becomes an open body, and private parts by the subjects whom they are about. Nothing is ever imported by a
name that the database holds.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from domain.errors import HistoryError
from domain.events import REGISTRY, Beginning, CommandFact, Event
from domain.personal import ERASED_EMAIL, PRIVATE, erased, subject, subjects_of
from domain.upcasting import UPCASTERS, Upcaster, upcast
from store.port import Private, RecordedEvent

_ALWAYS = {"at": True}
_OPEN: Mapping[type[Event], Any] = {
    event: {**_ALWAYS, **(texts if isinstance(texts, dict) else dict.fromkeys(texts, True))}
    for event, texts in PRIVATE.items()
}
_NOTHING = (b"{}", b'{"booking":{}}')
_PARTIES = ("organizer", "attendees")


def encode(stream_id: UUID, version: int, event: Event, subjects: tuple[str, ...] = ()) -> RecordedEvent:
    """An event as it is stored: its stable type name, its fields without defaults, and what is private of them.

    `subjects`: whom its texts are about; without any, the appointment itself.
    """
    kind = type(event)
    if isinstance(event, Beginning):
        body, private = _beginning(stream_id, event)
    elif kind not in PRIVATE:
        body, private = event.__pydantic_serializer__.to_json(event, exclude=_ALWAYS, exclude_defaults=True), ()
    else:
        hidden = ("actor",) if isinstance(event, CommandFact) and _is_subject(event.actor, subjects) else ()
        without = {**_OPEN[kind], **dict.fromkeys(hidden, True)}
        texts = {name: value for name, value in without.items() if name not in _ALWAYS}
        body = event.__pydantic_serializer__.to_json(event, exclude=without, exclude_defaults=True)
        hides = event.__pydantic_serializer__.to_json(event, include=texts, exclude_defaults=True)
        about = subjects or subjects_of(None, "", stream_id)
        private = () if hides in _NOTHING else (Private(about, hides),)
    return RecordedEvent(stream_id, version, event.type, body, at=event.at, private=private)


def _is_subject(actor: str, subjects: tuple[str, ...]) -> bool:
    return any(actor.casefold() == name.rpartition("\x00")[2] for name in subjects)


def _beginning(stream_id: UUID, event: Beginning) -> tuple[bytes, tuple[Private, ...]]:
    """The texts under all that they are about, each party under itself; its place in the open body stays countable."""
    fields = event.model_dump(mode="json", exclude=_ALWAYS, exclude_defaults=True)
    details: dict[str, Any] = fields["details"]
    about = subjects_of(event.details, event.tenant, stream_id)
    by_subjects: dict[tuple[str, ...], dict[str, Any]] = {about: {}}
    texts = by_subjects[about]
    for name in ("key", "fingerprint", *(("actor",) if _is_subject(event.actor, about) else ())):
        texts[name] = fields.pop(name)
    texts["details"] = {n: details.pop(n) for n in ("summary", "location", "metadata") if n in details}
    if (booking := fields.get("booking")) and "summary" in booking:
        texts["booking"] = {"summary": booking.pop("summary")}
    if organizer := details.get("organizer"):
        details["organizer"] = 1
        by_subjects.setdefault((subject(event.tenant, organizer["email"]),), {})["organizer"] = organizer
    if attendees := details.get("attendees"):
        details["attendees"] = len(attendees)
        for place, party in enumerate(attendees):
            mine = by_subjects.setdefault((subject(event.tenant, party["email"]),), {})
            mine.setdefault("attendees", {})[str(place)] = party
    return to_json(fields), tuple(Private(names, to_json(part)) for names, part in by_subjects.items())


def decode(recorded: RecordedEvent, upcasters: dict[str, Upcaster] = UPCASTERS) -> Event:
    """The event of a stored row; raises `HistoryError` for an unknown type or a body that does not fit it.

    What was erased reads as `ERASED`, or as what stands for an absent value.
    """
    type_ = recorded.type
    try:
        # A body that holds an instant of its own, as the earliest ones do, has the last word.
        fields: dict[str, Any] = {"at": recorded.at, **from_json(recorded.body)}
        if recorded.private:
            _join(fields, recorded)
        if type_ in upcasters:
            type_, fields = upcast(type_, fields, upcasters)
        kind = REGISTRY.get(type_)
        if kind is not None:
            return kind.model_validate(fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as fault:
        # An upcaster, or the join, takes the old shape for granted; a body without it is a fault of the history.
        told = "; ".join(_told(fault)) if isinstance(fault, ValidationError) else type(fault).__name__
        raise HistoryError(f"{_where(recorded)}: {recorded.type} cannot be read: {told}") from None
    raise HistoryError(f"{_where(recorded)}: no event type {recorded.type!r} is known here")


def _join(fields: dict[str, Any], recorded: RecordedEvent) -> None:
    """Put the private parts to the open one."""
    parties: dict[str, Any] = {}
    for part in recorded.private:
        if part.damaged:
            raise HistoryError(f"{_where(recorded)}: its private part cannot be opened: it, or its key, was changed")
        for name, value in (from_json(part.body) if part.body is not None else {}).items():
            if name in _PARTIES:
                parties[name] = {**parties.get(name, {}), **value}
            else:
                fields[name] = {**fields.get(name, {}), **value} if isinstance(value, dict) else value
    if isinstance(fields.get("details"), dict):
        _seat(fields["details"], parties)
    kind = REGISTRY.get(recorded.type)
    if kind is not None and any(part.body is None for part in recorded.private):
        erased(kind, fields)


def _seat(details: dict[str, Any], parties: dict[str, Any]) -> None:
    """Put the parties back into their places, and a stand-in where one was erased."""
    nobody = {"email": ERASED_EMAIL}
    if isinstance(details.get("organizer"), int):
        details["organizer"] = parties.get("organizer", nobody)
    if isinstance(details.get("attendees"), int):
        known = parties.get("attendees", {})
        details["attendees"] = [known.get(str(place), nobody) for place in range(details["attendees"])]


def _told(faults: ValidationError) -> Iterator[str]:
    """What is wrong, without the values: they may be somebody's."""
    for fault in faults.errors(include_input=False, include_context=False, include_url=False):
        yield f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def _where(recorded: RecordedEvent) -> str:
    return f"stream {recorded.stream_id} version {recorded.version} (position {recorded.position})"
