"""Dead letters of the outbox: events of the log, each in a stream of its own for one subscriber and one event.

An operator's wish to have one told again is the next event of that stream; the relay comes upon it as it walks the log.
Their reasons are sealed for those whom the appointment is about: what erases these, erases what was said of it here.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
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
from store.port import Append, Store, whole_log

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
    found: dict[UUID, DeadLetter] = {}
    asked_in: dict[UUID, int] = {}
    async for position, stream, event in _told(store):
        if event.tenant != tenant or sink not in (None, event.sink):
            continue
        if isinstance(event, RedeliveryRequested):
            if stream in found:
                found[stream] = found[stream].model_copy(update={"asked_at": event.at, "stands": "to be told again"})
                asked_in[stream] = position
            continue
        asked_in.pop(stream, None)
        asked_at = found[stream].asked_at if stream in found else None
        found[stream] = DeadLetter(
            id=event_id(event.appointment, event.version),
            **event.model_dump(include={"sink", "appointment", "version", "attempts", "reason"}),
            abandoned_at=event.at,
            asked_at=asked_at,
        )
    reached = {letter.sink: await store.checkpoint(consumer(letter.sink)) or 0 for letter in found.values()}
    for stream, position in asked_in.items():
        if position <= reached[found[stream].sink]:
            found[stream] = found[stream].model_copy(update={"stands": "told again"})
    return list(found.values())


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


async def _told(store: Store) -> AsyncIterator[tuple[int, UUID, DeliveryAbandoned | RedeliveryRequested]]:
    async for recorded in whole_log(store):
        if recorded.type not in (DeliveryAbandoned.type, RedeliveryRequested.type):
            continue
        try:
            event = decode(recorded)
        except HistoryError:  # `appointments check` tells of it
            continue
        if isinstance(event, DeliveryAbandoned | RedeliveryRequested):
            yield recorded.position, recorded.stream_id, event
