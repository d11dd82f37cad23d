"""Dead letters of the outbox: events of the log, each in a stream of its own for one subscriber and one event.

An operator's wish to have one told again is the next event of that stream; the relay comes upon it as it walks the log.
Their reasons are sealed for those whom the appointment is about: what erases these, erases what was said of it here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import ValidationError

from appointments.outbox.cloudevents import event_id
from appointments.outbox.sink import REASON_MAX
from domain.appointment import Appointment
from domain.errors import ConcurrencyConflict, HistoryError, InvalidFields
from domain.events import DeliveryAbandoned, RedeliveryRequested
from domain.evolve import evolve
from domain.identity import dead_letter_stream
from domain.personal import subjects_of
from domain.provider import Value
from store.mapper import decode, encode
from store.port import Append, RecordedEvent, Store, whole_log

CONFLICTS_MAX = 5


class DeadLetter(Value):
    """One event that one subscriber did not take."""

    id: str
    """The event's, as the subscriber knows it."""
    sink: str
    appointment: UUID
    version: int
    abandoned_at: datetime
    attempts: int
    reason: str
    asked_at: datetime | None = None
    """When an operator last wanted it to be told again."""
    stands: Literal["dead", "to be told again", "told again"] = "dead"


async def abandon(store: Store, gone: DeliveryAbandoned) -> None:
    """Keep it, unless it is kept already. Raises `StoreUnavailable`."""
    stream = dead_letter_stream(gone.sink, gone.appointment, gone.version)
    kept, about = gone.model_copy(update={"reason": _short(gone.reason)}), await _about(store, gone)
    for _ in range(CONFLICTS_MAX):
        known = await store.events(stream)
        if known and known[-1].type == DeliveryAbandoned.type:
            return
        event = encode(stream, len(known) + 1, kept, about)
        try:
            await store.append(Append(stream, len(known), (event,), touches_work=False))
        except ConcurrencyConflict:
            continue
        return


async def ask_again(store: Store, letter: DeadLetter, tenant: str, actor: str, reason: str, now: datetime) -> None:
    """Have it told again by whoever relays. Raises `InvalidFields` where that is asked already."""
    stream = dead_letter_stream(letter.sink, letter.appointment, letter.version)
    known = await store.events(stream)
    if not known or known[-1].type != DeliveryAbandoned.type:
        raise InvalidFields(f"{letter.id} is no dead letter of {letter.sink} now", (("/id", "no dead letter"),))
    asked = RedeliveryRequested(
        at=now,
        sink=letter.sink,
        tenant=tenant,
        appointment=letter.appointment,
        version=letter.version,
        actor=actor,
        reason=reason,
    )
    event = encode(stream, len(known) + 1, asked, await _about(store, asked))
    await store.append(Append(stream, len(known), (event,), touches_work=False))


async def dead_letters(store: Store, tenant: str, sink: str | None = None) -> list[DeadLetter]:
    """Those of a tenant, in order of the first time; reads the whole log, in pages."""
    streams: dict[UUID, list[_Told]] = {}
    async for recorded in whole_log(store):
        if (told := _told(recorded)) is not None and told.event.tenant == tenant and sink in (None, told.event.sink):
            streams.setdefault(recorded.stream_id, []).append(told)
    return await _as_they_stand(store, streams.values())


async def letters_in(store: Store, streams: Iterable[UUID]) -> list[DeadLetter]:
    """Those that are kept in these streams; what cannot be read is left out."""
    known: list[list[_Told]] = []
    for stream in streams:
        with suppress(HistoryError):  # `appointments check` tells of it
            known.append([told for one in await store.events(stream) if (told := _told(one)) is not None])
    return await _as_they_stand(store, known)


async def dead_by_sink(store: Store, tenant: str) -> Counter[str]:
    """How many each subscriber of a tenant has that it was not told again."""
    return Counter(letter.sink for letter in await dead_letters(store, tenant) if letter.stands != "told again")


def consumer(sink: str) -> str:
    """The name of a subscriber's checkpoint, and of the right to move it."""
    return f"outbox:{sink}"


async def _about(store: Store, letter: DeliveryAbandoned | RedeliveryRequested) -> tuple[str, ...]:
    """Whom the appointment is about now, as far as it can be read."""
    state = Appointment(letter.appointment)
    with suppress(HistoryError, ValidationError):
        for recorded in await store.events(letter.appointment):
            state = evolve(state, decode(recorded))
    return subjects_of(state.details, letter.tenant, letter.appointment)


def _short(reason: str) -> str:
    """What every store can keep of it: it may be a broker's word."""
    return reason.replace("\0", "").encode("ascii", "backslashreplace").decode()[:REASON_MAX]


@dataclass(frozen=True, slots=True)
class _Told:
    """An event of a dead letter's stream, and where it stands in the log."""

    position: int
    event: DeliveryAbandoned | RedeliveryRequested


def _told(recorded: RecordedEvent) -> _Told | None:
    if recorded.type not in (DeliveryAbandoned.type, RedeliveryRequested.type):
        return None
    try:
        event = decode(recorded)
    except HistoryError:  # `appointments check` tells of it
        return None
    return _Told(recorded.position, event) if isinstance(event, DeliveryAbandoned | RedeliveryRequested) else None


async def _as_they_stand(store: Store, streams: Iterable[Sequence[_Told]]) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    reached: dict[str, int] = {}
    for stream in streams:
        letter, asked_in = None, 0
        for told in stream:
            if isinstance(told.event, DeliveryAbandoned):
                letter, asked_in = _letter(told.event, letter.asked_at if letter else None), 0
            elif letter is not None:
                letter, asked_in = letter.model_copy(update={"asked_at": told.event.at}), told.position
        if letter is None:
            continue
        if asked_in:
            if letter.sink not in reached:
                reached[letter.sink] = await store.checkpoint(consumer(letter.sink)) or 0
            stands = "told again" if asked_in <= reached[letter.sink] else "to be told again"
            letter = letter.model_copy(update={"stands": stands})
        found.append(letter)
    return found


def _letter(gone: DeliveryAbandoned, asked_at: datetime | None) -> DeadLetter:
    fields = gone.model_dump(include={"sink", "appointment", "version", "attempts", "reason"})
    return DeadLetter(id=event_id(gone.appointment, gone.version), **fields, abandoned_at=gone.at, asked_at=asked_at)
