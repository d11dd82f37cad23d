"""The log as relays read it, page by page, folded. What comes next at its end is read once for all who stand there.

A relay that is behind reads for itself, up to where the others are, and so delays none of them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from appointments.changes import changed, read_on
from appointments.outbox.cloudevents import CloudEvent, cloud_event
from domain.appointment import Appointment
from projections.following import RecentStates
from projections.projection import Change
from store.port import RecordedEvent, Store

PAGE = 500

TraceOf = Callable[[Appointment], str | None]


class Told:
    """One change, and what is told of it, which is made once, when somebody is to be told."""

    def __init__(self, change: Change, source: str, trace_of: TraceOf) -> None:
        self.change, self._source, self._trace_of = change, source, trace_of

    @cached_property
    def event(self) -> CloudEvent | None:
        """None for what belongs to no appointment."""
        public, after = changed(self.change), self.change.after
        return None if public is None or after is None else cloud_event(public, self._source, self._trace_of(after))


@dataclass(frozen=True, slots=True)
class Page:
    """Events that follow each other in the log."""

    told: tuple[Told, ...]
    unreadable: tuple[RecordedEvent, ...]
    end: int
    """The position of the last of them."""
    size: int


class Pages:
    """Of one store, for all relays of a process."""

    def __init__(self, store: Store, source: str, trace_of: TraceOf) -> None:
        self._store, self._source, self._trace_of = store, source, trace_of
        self._states = RecentStates()
        self._recent: OrderedDict[int, Page] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self.head = 0
        """Up to where the log was read for all."""

    async def next(self, position: int) -> Page | None:
        """What comes after the last page, for whoever comes first, and for who comes soon after. None: nothing does.

        Raises `LookupError` for who is behind that.
        """
        async with self._one_at_a_time:
            if (known := self._recent.get(position)) is not None:
                return known
            if position < self.head:
                raise LookupError(position)
            page = await self.read(position, self._states, PAGE)
            if page is not None:
                self._keep(position, page)
            return page

    async def read(self, position: int, states: RecentStates, limit: int) -> Page | None:
        """Read and fold what comes after a position. Raises `StoreUnavailable`."""
        batch = await self._store.log(position, limit)
        return await self._folded(batch, states) if batch else None

    async def one(self, batch: Sequence[RecordedEvent]) -> Told | None:
        """What is told of a single event; None where it cannot be read."""
        page = await self._folded(batch, RecentStates()) if batch else None
        return page.told[0] if page is not None and page.told else None

    async def _folded(self, batch: Sequence[RecordedEvent], states: RecentStates) -> Page:
        folded = await read_on(self._store, states, batch)
        read = {change.recorded.position for change in folded.changes}
        return Page(
            tuple(Told(change, self._source, self._trace_of) for change in folded.changes),
            tuple(one for one in batch if one.position not in read) if folded.unreadable else (),
            batch[-1].position,
            len(batch),
        )

    def _keep(self, position: int, page: Page) -> None:
        self._recent[position], self.head = page, page.end
        while len(self._recent) > 1 and sum(one.size for one in self._recent.values()) > PAGE:
            self._recent.popitem(last=False)


class Reader:
    """One relay's place among them."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._own: RecentStates | None = None
        """Of one that is behind."""

    async def after(self, position: int) -> Page | None:
        """What comes after a position; None: nothing yet. Raises `StoreUnavailable`."""
        try:
            page = await self._pages.next(position)
        except LookupError:
            self._own = self._own or RecentStates()
            return await self._pages.read(position, self._own, min(PAGE, self._pages.head - position))
        self._own = None
        return page

    def more(self, page: Page) -> bool:
        """Whether something may come after it at once."""
        return page.size >= PAGE or page.end < self._pages.head

    async def one(self, batch: Sequence[RecordedEvent]) -> Told | None:
        """See `Pages.one`."""
        return await self._pages.one(batch)
