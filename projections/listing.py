"""All appointments, folded from the log in one pass."""

from collections.abc import AsyncIterator

from domain.appointment import Appointment
from domain.errors import HistoryError
from domain.events import OUTSIDE_APPOINTMENTS
from domain.evolve import evolve
from store.mapper import decode
from store.port import Store, whole_log


async def appointments(store: Store) -> AsyncIterator[Appointment]:
    """Every appointment as of the last event, in order of its first event; one that cannot be read is left out."""
    states: dict[object, Appointment] = {}
    broken: set[object] = set()
    async for recorded in whole_log(store):
        if recorded.stream_id in broken:
            continue
        try:
            event = decode(recorded)
            if not isinstance(event, OUTSIDE_APPOINTMENTS):
                before = states.get(recorded.stream_id) or Appointment(recorded.stream_id)
                states[recorded.stream_id] = evolve(before, event)
        except HistoryError:
            broken.add(recorded.stream_id)
            states.pop(recorded.stream_id, None)
    for state in states.values():
        yield state
