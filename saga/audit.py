"""Audits a store: each stream's decisions decided again, its hash chain computed again, its definition checked."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from domain import events as e
from domain.definition import SagaPlan
from domain.errors import HistoryError, UnknownAppointment
from saga.recorded_plans import RecordedPlans, plan_of
from saga.replay import BrokenAt, Divergence, Replay, replay
from store.chain import verify_stream
from store.mapper import decode
from store.port import RecordedEvent, Store

PAGE = 500
"""Stream ids read at a time."""


class Auditor:
    """Replays what one store holds; reads each definition once."""

    def __init__(self, store: Store) -> None:
        self._store, self._plans = store, RecordedPlans(store)

    async def replay(self, stream: UUID, tenant: str | None = None) -> Replay:
        """The verdict on one stream. Raises `UnknownAppointment` where there is none, or another tenant's."""
        try:
            recorded = await self._store.events(stream)
        except HistoryError as fault:
            unreadable = Divergence(version=1, expected=None, found=None, detail=str(fault))
            return Replay(appointment=stream, events=0, decisions=0, matches=False, divergences=(unreadable,))
        if not recorded:
            raise UnknownAppointment(f"there is no appointment {stream}")
        broken_at = verify_stream(recorded)
        try:
            first = decode(recorded[0])
        except HistoryError as fault:
            return replay(recorded, fault, broken_at=broken_at)
        if tenant is not None and getattr(first, "tenant", None) != tenant:
            raise UnknownAppointment(f"there is no appointment {stream}")
        if isinstance(first, e.OUTSIDE_APPOINTMENTS):
            return _outside(recorded, first, broken_at)
        return replay(recorded, await self._plan(first), broken_at=broken_at)

    async def replay_all(self, after: UUID | None = None, until: UUID | None = None) -> AsyncIterator[Replay]:
        """The verdicts on every stream whose id lies behind `after` and not behind `until`, in order of id."""
        while page := await self._store.streams(after, PAGE):
            for stream in page:
                if until is not None and stream > until:
                    return
                yield await self.replay(stream)
            after = page[-1]

    async def _plan(self, first: e.Event) -> SagaPlan | HistoryError:
        if isinstance(first, e.Beginning):
            return await self._plans.get(first.definition)
        return HistoryError(f"no stream begins with {first.type}")


def _outside(recorded: Sequence[RecordedEvent], first: e.Event, broken_at: int | None) -> Replay:
    """The verdict on a stream of no appointment: nothing is decided in it."""
    divergences: tuple[Divergence, ...] = ()
    if isinstance(first, e.DefinitionRegistered):
        try:
            plan_of(recorded[0], first.digest)
        except HistoryError as fault:
            divergences = (Divergence(version=1, expected=None, found=None, detail=str(fault)),)
    return Replay(
        appointment=recorded[0].stream_id,
        events=len(recorded),
        decisions=0,
        matches=not divergences,
        divergences=divergences,
        chain="ok" if broken_at is None else BrokenAt(broken_at=broken_at),
    )
