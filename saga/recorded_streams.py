"""Reads the recordings of a store: one walk over the log, and only what is wanted is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from domain import events as e
from domain.definition import SagaPlan
from domain.errors import CommandRefused, HistoryError
from domain.provider import Value
from saga.recorded_plans import RecordedPlans
from saga.recording import Recording, record
from store.mapper import decode
from store.port import Store, whole_log

APPOINTMENTS_MAX = 100_000
"""Live again at once at most: they are held in memory."""


class TooMany(CommandRefused):
    """More appointments than can live again at once."""

    problem = "too-many-appointments"


class Wanted(Value):
    """Which appointments."""

    tenant: str
    calendar: str | None = None
    since: datetime | None = None
    """Asked for then, or later."""

    def takes(self, first: e.AppointmentRequested) -> bool:
        """Whether this is one of them."""
        return (
            first.tenant == self.tenant
            and self.calendar in (None, first.details.calendar)
            and (self.since is None or first.at >= self.since)
        )


@dataclass(slots=True)
class Recorded:
    """What a what-if needs of a store."""

    recordings: list[Recording] = field(default_factory=list)
    plans: dict[str, SagaPlan] = field(default_factory=dict)
    unreadable: int = 0
    """Appointments that were left out: their stream or their definition cannot be read."""


async def read_recordings(store: Store, wanted: Wanted, tell: Callable[[], None] = lambda: None) -> Recorded:
    """Read what is wanted; `tell` is called for each event of the log. Raises `TooMany`."""
    streams: dict[UUID, list[e.Event]] = {}
    broken: set[UUID] = set()
    async for one in whole_log(store):
        tell()
        if one.version != 1 and one.stream_id not in streams:
            continue
        try:
            event = decode(one)
        except HistoryError:
            broken.add(one.stream_id)
            continue
        if one.version > 1:
            streams[one.stream_id].append(event)
        elif isinstance(event, e.AppointmentRequested) and wanted.takes(event):
            streams[one.stream_id] = [event]
            if len(streams) > APPOINTMENTS_MAX:
                raise TooMany(f"more than {APPOINTMENTS_MAX} appointments; narrow them by --since or --calendar")
    return await _recorded(store, streams, broken)


async def _recorded(store: Store, streams: dict[UUID, list[e.Event]], broken: set[UUID]) -> Recorded:
    found, plans = Recorded(unreadable=len(broken)), RecordedPlans(store)
    for id, events in streams.items():
        first = events[0]
        assert isinstance(first, e.AppointmentRequested)
        plan = await plans.get(first.definition)
        if id in broken:
            continue
        try:
            if isinstance(plan, HistoryError):
                raise plan
            found.recordings.append(record(id, events, plan))
            found.plans[first.definition] = plan
        except Exception:
            # What was tampered with breaks what takes its facts for granted; `replay` tells where.
            found.unreadable += 1
    return found
