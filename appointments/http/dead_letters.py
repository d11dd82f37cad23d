"""Dead letters: what no program takes up any more, and what a subscriber did not take. Found by reading on in the log.

Orphan callbacks belong to no tenant: that of the settings sees them, and so it does that there are events of which
nobody can tell whose they are; of those it is told no id.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from appointments.orchestrator import Orchestrator
from appointments.outbox.dead_letters import DeadLetter, letters_in
from appointments.views import AppointmentBody, AppointmentFilter
from domain.errors import HistoryError
from domain.events import DeliveryAbandoned, OrphanCallbackReceived
from domain.provider import BookingStatus, Value
from projections.ownership import tenant_of
from projections.walking import pages
from store.mapper import decode
from store.port import RecordedEvent, Store

SHOWN_MAX = 200
PAGE = 500
UNTOLD = "nobody can tell whose it is; `appointments check` names it"

NO_EVENT: Mapping[str, Any] = {"appointment": None, "version": 0, "type": "unknown", "detail": UNTOLD}


_Found = OrphanCallbackReceived | DeliveryAbandoned | str
"""What is kept of an event; a text says why it cannot be read."""


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
    appointment: UUID | None
    """None where nobody can tell whose it is: `appointments check` names it."""
    version: int
    """0 where its row cannot be read."""
    type: str
    detail: str


class DeadLetters(Value):
    """At most 200 of each, the newest."""

    parked: tuple[AppointmentBody, ...]
    orphan_callbacks: tuple[OrphanCallback, ...]
    undecodable_events: tuple[UndecodableEvent, ...]
    undelivered: tuple[DeadLetter, ...]
    """Events that a subscriber of the outbox did not take, in the order in which they were given up."""

    def and_also(self, more: "DeadLetters") -> "DeadLetters":
        """These, and those of another shard after them."""
        return DeadLetters.model_construct(
            parked=self.parked + more.parked,
            orphan_callbacks=self.orphan_callbacks + more.orphan_callbacks,
            undecodable_events=self.undecodable_events + more.undecodable_events,
            undelivered=self.undelivered + more.undelivered,
        )


class LetterBox:
    """What was found so far, and where the reading goes on."""

    def __init__(self, desk: Orchestrator) -> None:
        self._desk, self._position = desk, 0
        self._store: Store = desk.runtime.store
        self._orphans: deque[OrphanCallback] = deque(maxlen=SHOWN_MAX)
        self._undecodable: dict[str | None, deque[UndecodableEvent]] = {}
        """By tenant: a tenant with many pushes out nobody else's. None: whose they are cannot be told."""
        self._undelivered: dict[str, OrderedDict[UUID, None]] = {}
        """By tenant: the streams alone. What they say is read at each look, for it can be erased."""
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
            undecodable_events=tuple(self._unreadable(tenant, home)),
            undelivered=tuple(await letters_in(self._store, tuple(self._undelivered.get(tenant, ())))),
        )

    def _unreadable(self, tenant: str, home: bool) -> Iterable[UndecodableEvent]:
        nobody_s = self._undecodable.get(None, ()) if home else ()
        found = sorted((*self._undecodable.get(tenant, ()), *nobody_s), key=lambda event: event.position)
        return found[-SHOWN_MAX:]

    async def _read_on(self) -> None:
        async for page in pages(self._store, self._position, PAGE):
            for position in page.lost:
                self._tell(None, UndecodableEvent(**NO_EVENT, position=position))
            for recorded, found in await asyncio.to_thread(_found, page.events):
                await self._keep(recorded, found)
            self._position = page.end

    async def _keep(self, recorded: RecordedEvent, found: _Found) -> None:
        if isinstance(found, DeliveryAbandoned):
            streams = self._undelivered.setdefault(found.tenant, OrderedDict())
            streams[recorded.stream_id] = None
            streams.move_to_end(recorded.stream_id)
            if len(streams) > SHOWN_MAX:
                streams.popitem(last=False)
            return
        if isinstance(found, str):
            tenant = await tenant_of(self._store, recorded.stream_id)
            event = UndecodableEvent(
                position=recorded.position,
                appointment=recorded.stream_id if tenant is not None else None,
                version=recorded.version,
                type=recorded.type[:128],
                detail=found[:300] if tenant is not None else UNTOLD,
            )
            self._tell(tenant, event)
            return
        fields: dict[str, Any] = found.model_dump(include=set(OrphanCallback.model_fields))
        self._orphans.append(OrphanCallback(position=recorded.position, received_at=found.at, **fields))

    def _tell(self, tenant: str | None, event: UndecodableEvent) -> None:
        self._undecodable.setdefault(tenant, deque(maxlen=SHOWN_MAX)).append(event)


def _found(batch: Sequence[RecordedEvent]) -> list[tuple[RecordedEvent, _Found]]:
    found: list[tuple[RecordedEvent, _Found]] = []
    for recorded in batch:
        try:
            event = decode(recorded)
        except HistoryError as fault:
            found.append((recorded, str(fault)))
            continue
        if isinstance(event, OrphanCallbackReceived | DeliveryAbandoned):
            found.append((recorded, event))
    return found
