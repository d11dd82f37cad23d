"""Dead letters: what no program takes up any more. Found by reading on in the log from where it was read last.

Orphan callbacks belong to no tenant: that of the settings sees them, and so it does the events that nobody can read.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from appointments.orchestrator import Orchestrator
from appointments.views import AppointmentBody, AppointmentFilter
from domain.errors import HistoryError
from domain.events import Beginning, OrphanCallbackReceived
from domain.provider import BookingStatus, Value
from store.mapper import decode
from store.port import RecordedEvent, Store

SHOWN_MAX = 200
PAGE = 500


class OrphanCallback(Value):
    """A signed callback for a reference that nobody here knows."""

    position: int
    received_at: datetime
    provider: str
    client_ref: str
    provider_ref: str
    status: BookingStatus
    version: int


class UndecodableEvent(Value):
    """An event that this program cannot read; its appointment is left alone."""

    position: int
    appointment: UUID
    version: int
    type: str
    detail: str


class DeadLetters(Value):
    """At most 200 of each, the newest."""

    parked: tuple[AppointmentBody, ...]
    orphan_callbacks: tuple[OrphanCallback, ...]
    undecodable_events: tuple[UndecodableEvent, ...]
    undelivered: tuple[AppointmentBody, ...]
    """Always empty: to tell the downstream is a step of the saga, and one that fails parks or ends its appointment."""


class LetterBox:
    """What was found so far, and where the reading goes on."""

    def __init__(self, desk: Orchestrator) -> None:
        self._desk, self._store = desk, desk.runtime.store
        self._position = 0
        self._orphans: deque[OrphanCallback] = deque(maxlen=SHOWN_MAX)
        self._undecodable: deque[tuple[str, UndecodableEvent]] = deque(maxlen=SHOWN_MAX)
        self._one_at_a_time = asyncio.Lock()

    async def of(self, tenant: str) -> DeadLetters:
        """Those of a tenant. The first call reads the whole log, in pages."""
        async with self._one_at_a_time:
            await self._read_on()
        page = await self._desk.list(AppointmentFilter(tenant=tenant, parked=True, limit=SHOWN_MAX))
        home = tenant == self._desk.settings.tenant
        return DeadLetters.model_construct(
            parked=page.items,
            orphan_callbacks=tuple(self._orphans) if home else (),
            undecodable_events=tuple(
                event for whose, event in self._undecodable if whose == tenant or (home and not whose)
            ),
            undelivered=(),
        )

    async def _read_on(self) -> None:
        while batch := await self._store.log(self._position, PAGE):
            for recorded, fault in await asyncio.to_thread(_faulty, batch):
                await self._keep(recorded, fault)
            self._position = batch[-1].position

    async def _keep(self, recorded: RecordedEvent, found: OrphanCallbackReceived | str) -> None:
        if isinstance(found, str):
            event = UndecodableEvent(
                position=recorded.position,
                appointment=recorded.stream_id,
                version=recorded.version,
                type=recorded.type[:128],
                detail=found[:300],
            )
            self._undecodable.append((await _tenant(self._store, recorded.stream_id), event))
            return
        fields: dict[str, Any] = found.model_dump(include=set(OrphanCallback.model_fields))
        self._orphans.append(OrphanCallback(position=recorded.position, received_at=found.at, **fields))


def _faulty(batch: Sequence[RecordedEvent]) -> list[tuple[RecordedEvent, OrphanCallbackReceived | str]]:
    found: list[tuple[RecordedEvent, OrphanCallbackReceived | str]] = []
    for recorded in batch:
        try:
            event = decode(recorded)
        except HistoryError as fault:
            found.append((recorded, str(fault)))
            continue
        if isinstance(event, OrphanCallbackReceived):
            found.append((recorded, event))
    return found


async def _tenant(store: Store, stream: UUID) -> str:
    """Whose stream it is; "" where not even that can be read."""
    try:
        first = decode((await store.events(stream, limit=1))[0])
    except HistoryError:
        return ""
    return first.tenant if isinstance(first, Beginning) else ""
