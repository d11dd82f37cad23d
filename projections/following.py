"""From recorded events to changes: each appointment's state is folded once, whatever the number of projections.

Owns the states that are kept between batches. What cannot be read is skipped, and stops nothing else.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from domain.appointment import Appointment, but
from domain.errors import HistoryError
from domain.events import OUTSIDE_APPOINTMENTS
from domain.evolve import evolve
from projections.projection import Change
from store.mapper import decode
from store.port import RecordedEvent, Store

STATES_MAX = 4_096
"""States kept for the events that follow, about 25 MB; the state of any other stream is folded from the log again."""
STREAMS_AT_ONCE = 32
"""Streams that are read from the log before they are folded."""
ERASED = "personal-data-erased.v1"
"""After this event its stream reads otherwise in the log: what was folded before is no longer true."""

_OUTSIDE = frozenset(event.type for event in OUTSIDE_APPOINTMENTS)
_NOTHING_YET = Appointment(UUID(int=0))

Bases = Mapping[tuple[int, int], Appointment | None]
"""States to go on from, by stream and version; None for a stream that cannot be read up to there.

Streams are keyed by their id as a number: a UUID is hashed and compared in Python, a dozen times for each event.
"""


@dataclass(frozen=True, slots=True)
class Folded:
    """A batch, folded: its changes, its streams' states after it, and the streams that cannot be read (any more)."""

    changes: tuple[Change, ...]
    states: Mapping[int, Appointment]
    unreadable: frozenset[UUID]
    erased: bool
    """Something was erased: nothing of it may stay behind in what was written."""


class RecentStates:
    """The states of the streams that changed last, and a way to those of the others."""

    def __init__(self) -> None:
        self._states: OrderedDict[int, Appointment] = OrderedDict()

    async def bases(self, store: Store, batch: Sequence[RecordedEvent]) -> Bases:
        """What the batch's streams go on from: the state that is kept, where it is of the right version."""
        bases: dict[tuple[int, int], Appointment | None] = {}
        missing: list[tuple[UUID, int]] = []
        begun: set[int] = set()
        for recorded in batch:
            number, erased = recorded.stream_id.int, recorded.type == ERASED
            if number in begun and not erased:
                continue
            begun.add(number)
            before = recorded.version - 1
            if not before or recorded.type in _OUTSIDE:
                continue
            state = None if erased else self._states.get(number)
            if state is not None and state.version == before:
                bases[number, before] = state
            else:
                missing.append((recorded.stream_id, before))
        for start in range(0, len(missing), STREAMS_AT_ONCE):
            some = missing[start : start + STREAMS_AT_ONCE]
            streams = await asyncio.gather(*(store.events(id, limit=version) for id, version in some))
            names = [(id.int, version) for id, version in some]
            bases.update(zip(names, await asyncio.to_thread(_states, some, streams), strict=True))
        return bases

    def keep(self, folded: Folded) -> None:
        """Keep what a batch has come to, in place of what has not changed for longest."""
        for number, state in folded.states.items():
            self._states[number] = state
            self._states.move_to_end(number)
        for id in folded.unreadable:
            self._states.pop(id.int, None)
        while len(self._states) > STATES_MAX:
            self._states.popitem(last=False)


def fold(batch: Sequence[RecordedEvent], bases: Bases) -> Folded:
    """The changes of a batch, in order of position. Pure."""
    changes: list[Change] = []
    states: dict[int, Appointment] = {}
    unreadable: set[UUID] = set()
    erased = False
    for recorded in batch:
        number = recorded.stream_id.int
        erased = erased or recorded.type == ERASED
        if unreadable and recorded.stream_id in unreadable:
            continue
        try:
            event = decode(recorded)
            if type(event) in OUTSIDE_APPOINTMENTS:
                changes.append(Change(recorded, event, None, None))
                continue
            before = states.get(number)
            if before is None or recorded.type == ERASED:
                before = _base(recorded, bases)
            if before is None or before.version != recorded.version - 1:
                raise HistoryError(f"stream {recorded.stream_id}: version {recorded.version} does not follow")
            after = states[number] = evolve(before, event)
        except (HistoryError, ValidationError):
            unreadable.add(recorded.stream_id)
            states.pop(number, None)
            continue
        changes.append(Change(recorded, event, before, after))
    return Folded(tuple(changes), states, frozenset(unreadable), erased)


def _base(recorded: RecordedEvent, bases: Bases) -> Appointment | None:
    version = recorded.version - 1
    return bases.get((recorded.stream_id.int, version)) if version else but(_NOTHING_YET, id=recorded.stream_id)


def _states(wanted: Sequence[tuple[UUID, int]], streams: Sequence[Sequence[RecordedEvent]]) -> list[Appointment | None]:
    return [_state(id, stream) for (id, _version), stream in zip(wanted, streams, strict=True)]


def _state(id: UUID, stream: Sequence[RecordedEvent]) -> Appointment | None:
    state = Appointment(id)
    try:
        for recorded in stream:
            state = evolve(state, decode(recorded))
    except (HistoryError, ValidationError):
        return None
    return state
