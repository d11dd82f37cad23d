"""One stream: is its chain whole, can it be read, and do its keys fit what it says of erasures? Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from domain.appointment import Appointment
from domain.definition import SagaPlan
from domain.errors import HistoryError
from domain.events import OUTSIDE_APPOINTMENTS, DefinitionRegistered, DeliveryAbandoned, PersonalDataErased
from domain.evolve import evolve
from domain.personal import ERASED_EMAIL, appointment_subject, subject
from projections.findings import Finding
from store.chain import START, digest_of
from store.keys import Kept
from store.mapper import decode
from store.port import Private, RecordedEvent
from store.sealing import refs_in

DETAIL_MAX = 300


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as it was found. `state` None: it is no appointment, or cannot be read."""

    id: UUID
    findings: tuple[Finding, ...] = ()
    state: Appointment | None = None
    events: int = 0
    refs: frozenset[bytes] = frozenset()
    """The references of the keys under which something of it is sealed."""
    subjects: frozenset[str] = frozenset()
    """Whom it can be seen to be about."""
    erasures: int = 0
    """How many it tells of; a dead letter's are those that its appointment tells of."""
    letter_of: UUID | None = None
    """The appointment that a dead letter is about."""
    shut_at: int | None = None
    """The first version of which something cannot be read because a key is gone."""


def examine(id: UUID, events: Sequence[RecordedEvent]) -> Stream:
    """What can be said of a whole stream, in order of version, by itself."""
    broken = _broken_at(id, events)
    state, unreadable = _fold(id, events)
    return Stream(
        id,
        tuple(finding for finding in (broken, unreadable) if finding is not None),
        state,
        len(events),
        frozenset(ref for event in events for ref in refs_in(event.sealed)),
        _subjects(events, state),
        erasures_in(events),
        _letter_of(events),
        next((event.version for event in events if any(_is_shut(part) for part in event.private)), None),
    )


def erasures_in(events: Sequence[RecordedEvent]) -> int:
    """How many erasures a stream tells of."""
    return sum(event.type == PersonalDataErased.type for event in events)


def about_keys(stream: Stream, kept: Kept | None) -> Iterator[Finding]:
    """Do the keys that are kept fit the stream? `kept` None: nobody knows but by what could be opened."""
    told, subject = stream.erasures, str(stream.id)
    if kept is None:
        if stream.shut_at is not None and not told:
            yield _gone(subject, stream.shut_at, told)
        return
    gone = len(stream.refs - kept.refs)
    if gone > told:
        yield _gone(subject, stream.shut_at, told)
    elif stream.letter_of is not None:
        return  # others may have been erased before it was written, or be none of its subjects
    elif gone < told:
        detail = f"{told} erasures are told of, yet only {gone} keys are gone: the data can still be read"
        yield Finding(kind="key_kept", subject=subject, detail=detail)
    elif any(kept.by_subject.get(name) not in stream.refs for name in stream.subjects):
        detail = "the key of one of its subjects is kept under another name: an erasure would not find it"
        yield Finding(kind="key_misnamed", subject=subject, detail=detail)


def _gone(subject: str, version: int | None, told: int) -> Finding:
    detail = f"a key is gone, and version {version} cannot be opened; erasures that the stream tells of: {told}"
    return Finding(kind="key_gone", subject=subject, detail=detail)


def _broken_at(id: UUID, events: Sequence[RecordedEvent]) -> Finding | None:
    """Where the chain is broken. The events behind a break prove nothing, so one finding is all that can be said."""
    before, position = START, 0
    for expected, event in enumerate(events, 1):
        where = f"version {event.version} (position {event.position})"
        if event.version != expected:
            return Finding(kind="gap", subject=str(id), detail=f"{where} stands where version {expected} must")
        if event.position <= position or event.digest != digest_of(before, event):
            return Finding(
                kind="changed", subject=str(id), detail=f"{where} is not what was written, or what it follows"
            )
        before, position = event.digest, event.position
    return None


def _fold(id: UUID, events: Sequence[RecordedEvent]) -> tuple[Appointment | None, Finding | None]:
    state = Appointment(id)
    for event in events:
        try:
            fact = decode(event)
            if isinstance(fact, DefinitionRegistered):
                SagaPlan.model_validate(fact.plan)
            if not isinstance(fact, OUTSIDE_APPOINTMENTS):
                state = evolve(state, fact)
        except (HistoryError, ValidationError) as fault:
            kind = "unopenable" if any(part.damaged for part in event.private) else "undecodable"
            detail = f"version {event.version} (position {event.position}): {fault}"[:DETAIL_MAX]
            return None, Finding(kind=kind, subject=str(id), detail=detail)
    return (state if state.version else None), None


def _letter_of(events: Sequence[RecordedEvent]) -> UUID | None:
    try:
        first = decode(events[0]) if events and events[0].type == DeliveryAbandoned.type else None
    except HistoryError:
        return None
    return first.appointment if isinstance(first, DeliveryAbandoned) else None


def _subjects(events: Sequence[RecordedEvent], state: Appointment | None) -> frozenset[str]:
    """Whom the request can be seen to be about; who was erased is not among them."""
    if state is None or state.details is None:
        return frozenset()
    details = state.details
    parties = (*details.attendees, *((details.organizer,) if details.organizer else ()))
    if parties:
        return frozenset(subject(state.tenant, one.email) for one in parties if one.email != ERASED_EMAIL)
    shut = any(_is_shut(part) for part in events[0].private)
    return frozenset() if shut or not events[0].private else frozenset((appointment_subject(state.id),))


def _is_shut(part: Private) -> bool:
    return part.body is None and not part.damaged
