"""What a reader may know of an event: what happened, and what its appointment came to by it.

The same for whoever watches over HTTP and for whoever is told by the outbox. Who did it and why is in the audit trail.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from domain.events import EndReason
from domain.lifecycle import PHASES, Phase, State
from domain.provider import Value
from projections.following import Folded, RecentStates, fold
from projections.projection import Change
from store.port import RecordedEvent, Store


class Changed(Value):
    """One event of one appointment, and what the appointment came to by it."""

    position: int
    appointment: UUID
    version: int
    type: str
    recorded_at: datetime
    phase: Phase
    state: State
    reason: EndReason | None
    parked: bool


async def read_on(store: Store, states: RecentStates, batch: Sequence[RecordedEvent]) -> Folded:
    """What the next events of the log come to; `states` is brought up to them. Raises `StoreUnavailable`."""
    bases = await states.bases(store, batch)
    folded = await asyncio.to_thread(fold, batch, bases)
    states.keep(folded)
    return folded


def changed(change: Change) -> Changed | None:
    """What may be told of a change; None for what belongs to no appointment."""
    recorded, after = change.recorded, change.after
    if after is None:
        return None
    return Changed(
        position=recorded.position,
        appointment=after.id,
        version=recorded.version,
        type=recorded.type,
        recorded_at=change.event.at,
        phase=PHASES[after.state],
        state=after.state,
        reason=after.reason,
        parked=after.parked,
    )
