"""The log's side: the whole log in one pass, or one appointment by itself, as records of one calendar.

Memory is bounded by the records and by what is unfinished at one place of the log: an appointment that rests is
packed, and one that goes on later is read again by itself. What cannot be read is left out, and kept by name.
"""

from dataclasses import dataclass, field, replace
from uuid import UUID

from domain import events as e
from domain.errors import HistoryError
from domain.lifecycle import SETTLED
from projections.ownership import tenant_of
from projections.reconciliation.intended import Record, Scope, Story
from projections.walking import pages
from store.mapper import decode
from store.port import OpenWork, RecordedEvent, Store


@dataclass
class Log:
    """What was folded: the records in scope. `elsewhere`: known here, but of another tenant, calendar or provider."""

    records: dict[UUID, Record] = field(default_factory=dict)
    elsewhere: set[UUID] = field(default_factory=set)
    places: dict[str, UUID] = field(default_factory=dict)
    """Whose a booking of this calendar is, by the provider's reference: one taken over may bear none of ours."""
    unreadable: set[UUID] = field(default_factory=set)
    """Of the tenant, in whatever calendar: that cannot be told."""
    ownerless: set[UUID] = field(default_factory=set)
    """That cannot be read, not even whose they are."""
    nameless: bool = False
    """There is a row that does not even tell its stream."""

    def knows(self, id: UUID | None) -> bool:
        """Whether it is an appointment of this log."""
        return id in self.records or id in self.unreadable or self.is_another_s(id)

    def is_another_s(self, id: UUID | None) -> bool:
        """Whether it is none of those that are compared: of it nothing may be told."""
        return id in self.elsewhere or id in self.ownerless


async def read_log(store: Store, scope: Scope) -> Log:
    """Fold the whole log in one pass."""
    log, stories, lost = Log(), dict[UUID, Story](), False
    async for page in pages(store):
        lost = lost or bool(page.lost)
        for recorded in page.events:
            id = recorded.stream_id
            try:
                story = await _next(store, recorded, stories.get(id), log.records.get(id))
            except HistoryError:
                stories.pop(id, None)
                await _leave_out(store, scope, log, id)
                continue
            if story is not None:
                _take(log, stories, story, scope)
    log.records.update((id, story.record()) for id, story in stories.items())
    if lost:
        await _leave_out_broken(store, scope, log)
    await _add_work(store, log.records)
    return log


def _take(log: Log, stories: dict[UUID, Story], story: Story, scope: Scope) -> None:
    id = story.state.id
    if story.state.booking is not None and story.shares(scope):
        log.places[story.state.booking.provider_ref] = id
    if not story.within(scope):
        log.elsewhere.add(id)
    elif story.state.state in SETTLED:
        stories.pop(id, None)
        log.records[id] = story.record()
    else:
        log.records.pop(id, None)
        stories[id] = story


async def _leave_out(store: Store, scope: Scope, log: Log, id: UUID) -> None:
    # Of a first event that cannot be read nobody knows the calendar; whose booking it is, is known by its id.
    whose = await tenant_of(store, id)
    broken = log.ownerless if whose is None else log.unreadable if whose == scope.tenant else log.elsewhere
    broken.add(id)
    log.records.pop(id, None)


async def _leave_out_broken(store: Store, scope: Scope, log: Log) -> None:
    """A row in which no event can stand is of no stream on the walk: each stream is asked whether it lacks one."""
    ids, after = set(log.records), None
    try:
        while some := await store.streams(after):
            ids.update(some)
            after = some[-1]
    except HistoryError:
        log.nameless = True
    for id in ids:
        if not await _is_whole(store, id):
            await _leave_out(store, scope, log, id)


async def _is_whole(store: Store, id: UUID) -> bool:
    try:
        return all(event.version == at for at, event in enumerate(await store.events(id), 1))
    except HistoryError:
        return False


async def read_one(store: Store, id: UUID, scope: Scope) -> Record | None:
    """One appointment as it stands now, also one out of scope; None when there is none. Raises `HistoryError`."""
    story = await _whole(store, id)
    if story is None:
        return None
    # The row is written with the events: where the stream has not moved on after this, both belong together.
    row = await store.work(id)
    record = replace(story.record(), within=story.within(scope))
    return record if row is None else _with_work(record, row)


async def _next(store: Store, recorded: RecordedEvent, story: Story | None, packed: Record | None) -> Story | None:
    """The story with this event in it; None where the event says nothing about the scope, or is told already."""
    if packed is not None:
        return await _whole(store, recorded.stream_id) if recorded.version > packed.intended.version else None
    if story is None:
        if recorded.version > 1:
            return None
        story = Story(recorded.stream_id)
    if recorded.version <= story.state.version:
        return None
    event = decode(recorded)
    if isinstance(event, e.OUTSIDE_APPOINTMENTS):
        return None
    story.tell(event)
    return story


async def _whole(store: Store, id: UUID) -> Story | None:
    story = Story(id)
    for recorded in await store.events(id):
        event = decode(recorded)
        if isinstance(event, e.OUTSIDE_APPOINTMENTS):
            return None
        story.tell(event)
    return story if story.state.version else None


async def _add_work(store: Store, records: dict[UUID, Record]) -> None:
    after: UUID | None = None
    while batch := await store.open_work(after):
        for row in batch:
            if row.stream_id in records:
                records[row.stream_id] = _with_work(records[row.stream_id], row)
        after = batch[-1].stream_id


def _with_work(record: Record, row: OpenWork) -> Record:
    return replace(record, intended=replace(record.intended, work=True, due_at=row.due_at))
