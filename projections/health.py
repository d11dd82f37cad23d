"""Health: is the log whole and what was signed, and does every unfinished appointment have a due time that will come?

Walks the log by position, then stream by stream; keeps no more than a page of either. It may run beside the process
that writes: what looks wrong is looked at again before it is told.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain.definition import SagaPlan
from domain.provider import Value
from projections.findings import SHOWN_MAX as SHOWN_MAX
from projections.findings import Finding, Findings
from projections.log_check import UNREADABLE, Progress, walk_log
from projections.open_work import OVERDUE_AFTER as OVERDUE_AFTER
from projections.open_work import about, unfinished
from projections.stream_check import Stream, about_keys, erasures_in, examine
from store.checkpoint import SignedCheckpoint
from store.keys import Kept, KeyTable
from store.port import OpenWork, Store

Runs = tuple[str, int, str]
"""A saga's name, its version, and the provider that it books at."""

STREAMS_PAGE = 256
STREAMS_AT_ONCE = 32
ROWS_PAGE = 64
LOOKS_MAX = 5
"""How often a stream that moves on meanwhile is looked at."""


class Health(Value):
    """What a check of the whole store found. `ok`: nothing is wrong; parked ones are listed, and are no fault."""

    ok: bool
    events: int
    appointments: int
    unfinished: int
    parked: int
    findings: tuple[Finding, ...]
    findings_total: int = 0
    checkpoints: int = 0
    """Signed checkpoints that the log was held against."""
    signed_until: int = 0
    """The position up to which the log is what was signed."""


@dataclass(slots=True)
class _Counts:
    appointments: int = 0
    unfinished: int = 0
    parked: int = 0


def _nobody(_looked_at: int) -> None:
    """Nobody wants to know how far it is."""


async def health(
    store: Store,
    now: datetime,
    runs: Collection[Runs],
    *,
    signed: Sequence[SignedCheckpoint] = (),
    further: Sequence[Finding] = (),
    progress: Progress = _nobody,
) -> Health:
    """Check the whole store; `runs` says which sagas a process can carry out, and at which providers.

    `signed`: genuine checkpoints to hold the log against. `further`: what was found before. `progress` is told of each
    event twice.
    """
    findings = Findings()
    findings.take(*further)
    log = await walk_log(store, await store.position(), signed, findings, progress)
    check = _StreamCheck(store, now, runs, log.plans, findings)
    await check.walk(progress)
    return Health(
        ok=not findings.faults,
        events=log.events,
        appointments=check.counts.appointments,
        unfinished=check.counts.unfinished,
        parked=check.counts.parked,
        findings=findings.shown,
        findings_total=findings.total,
        checkpoints=len(signed),
        signed_until=log.signed_until,
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """A stream, and the row that was read just before it."""

    stream: Stream
    row: OpenWork | None
    findings: tuple[Finding, ...]


class _StreamCheck:
    """The walk over all streams, with the rows of open work beside it."""

    def __init__(
        self, store: Store, now: datetime, runs: Collection[Runs], plans: Mapping[str, SagaPlan], findings: Findings
    ) -> None:
        self._store, self._now, self._runs, self._plans, self._findings = store, now, runs, plans, findings
        self._keys = KeyTable.of(store)
        self._rows_read: UUID | None = None
        self.counts = _Counts()

    async def walk(self, progress: Progress) -> None:
        """Look at every stream, and at the rows that belong to none."""
        ids: Sequence[UUID] = ()
        while ids := await self._after(ids[-1] if ids else None):
            for start in range(0, len(ids), STREAMS_AT_ONCE):
                some = ids[start : start + STREAMS_AT_ONCE]
                looks = await self._look(some, await self._rows(some[-1], some))
                for look in looks:
                    await self._tell(look)
                progress(sum(look.stream.events for look in looks))
        await self._rows(None, ())

    async def _after(self, last: UUID | None) -> Sequence[UUID]:
        limit = STREAMS_PAGE
        while True:
            try:
                return await self._store.streams(last, limit)
            except UNREADABLE as fault:
                if limit == 1:
                    self._findings.add("undecodable", "log", f"no stream can be listed beyond {last}: {fault}"[:300])
                    return ()
                limit //= 2

    async def _look(self, ids: Sequence[UUID], rows: Mapping[UUID, OpenWork] | None) -> list[_Look]:
        """Look at streams whose rows were read before: a row that was read later might be ahead of its stream."""
        read = await asyncio.gather(*(self._row(id, rows) for id in ids))
        streams = await asyncio.gather(*(self._stream(id) for id in ids))
        kept = await self._kept(streams)
        looks = []
        for stream, (row, torn) in zip(streams, read, strict=True):
            told = [*stream.findings, *about_keys(stream, kept)]
            if torn is not None:
                told.append(torn)
            elif stream.state is not None:
                plan = self._plans.get(stream.state.definition)
                told += about(stream.state, row, self._now, plan, self._runs)
            looks.append(_Look(stream, row, tuple(told)))
        return looks

    async def _tell(self, look: _Look) -> None:
        for _ in range(LOOKS_MAX):
            if not look.findings:
                break
            (again,) = await self._look((look.stream.id,), None)
            if again == look:
                break
            look = again
        self._findings.take(*look.findings)
        if (state := look.stream.state) is not None:
            self.counts.appointments += 1
            self.counts.unfinished += unfinished(state)
            self.counts.parked += state.parked

    async def _stream(self, id: UUID) -> Stream:
        try:
            stream = examine(id, await self._store.events(id))
            if stream.letter_of is None:
                return stream
            return replace(stream, erasures=erasures_in(await self._store.events(stream.letter_of)))
        except UNREADABLE as fault:
            return Stream(id, (Finding(kind="undecodable", subject=str(id), detail=str(fault)[:300]),))

    async def _row(self, id: UUID, rows: Mapping[UUID, OpenWork] | None) -> tuple[OpenWork | None, Finding | None]:
        if rows is not None:
            return rows.get(id), None
        try:
            return await self._store.work(id), None
        except UNREADABLE as fault:
            return None, Finding(kind="contradiction", subject=str(id), detail=str(fault)[:300])

    async def _kept(self, streams: Sequence[Stream]) -> Kept | None:
        if self._keys is None:
            return None
        subjects = frozenset().union(*(stream.subjects for stream in streams))
        return await self._keys.look_up(subjects, frozenset().union(*(stream.refs for stream in streams)))

    async def _rows(self, last: UUID | None, ids: Sequence[UUID]) -> Mapping[UUID, OpenWork] | None:
        """The rows that follow those read before, up to that of `last` (None: to the end), told of if nobody's.

        None when one of them cannot be read: then each is read by itself.
        """
        rows: dict[UUID, OpenWork] = {}
        after, more = self._rows_read, True
        self._rows_read = last
        try:
            while more:
                batch = await self._store.open_work(after, ROWS_PAGE)
                within = [row for row in batch if last is None or row.stream_id <= last]
                rows.update((row.stream_id, row) for row in within if row.stream_id in ids)
                for row in within:
                    if row.stream_id not in rows and not await self._store.events(row.stream_id, limit=1):
                        self._findings.add("leftover", row.stream_id, "open work for a stream that is not in the log")
                more = len(within) == ROWS_PAGE
                after = within[-1].stream_id if within else after
        except UNREADABLE:
            return None
        return rows
