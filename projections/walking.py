"""The log page by page, past the rows in which no event can stand: who may leave these out need not stop at them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from domain.errors import HistoryError
from store.port import RecordedEvent, Store


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events that follow each other, and the positions just before them at which no event can be read."""

    events: Sequence[RecordedEvent]
    lost: Sequence[int]
    end: int
    """The position to go on from."""


async def pages(store: Store, after: int = 0, size: int = 1_000) -> AsyncIterator[LogPage]:
    """Walk the log in order of position, from position `after + 1`."""
    while (page := await _next(store, after, size)) is not None:
        yield page
        after = page.end


async def _next(store: Store, after: int, size: int) -> LogPage | None:
    lost: list[int] = []
    end = 0
    while True:
        if (batch := await _readable(store, after, size)) is not None:
            return LogPage(batch, lost, batch[-1].position if batch else after) if batch or lost else None
        end = end or await store.position()
        after += 1
        lost.append(after)
        if after >= end:
            return LogPage((), lost, after)


async def _readable(store: Store, after: int, size: int) -> Sequence[RecordedEvent] | None:
    """As much as can be read at once; None where the very next row cannot."""
    while size:
        try:
            return await store.log(after, size)
        except HistoryError:
            size //= 2
    return None
