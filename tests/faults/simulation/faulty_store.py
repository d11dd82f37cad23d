"""A store that fails. The memory store is the durable medium; what is queued when the process dies is lost."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from domain.errors import ConcurrencyConflict, StoreUnavailable
from simulation.weather import StoreWeather
from store.memory import MemoryStore
from store.port import Append, OpenWork, RecordedEvent, Store

T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that only yields to others, so that a commit is one instant."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class FaultyStore(Store):
    """One process's handle on the durable medium."""

    def __init__(
        self,
        durable: MemoryStore,
        weather: StoreWeather,
        crash: Callable[[], None],
        committed: Callable[[Append], None] = lambda _entry: None,
    ) -> None:
        self.durable, self.weather = durable, weather
        self.dead = False
        self._crash, self._committed = crash, committed
        self._last_commit_s = 0.0

    async def append(self, entry: Append) -> int:
        self._check_alive()
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        fault = self.weather.append_fault(now_s)
        # One journal: commits keep the order of the queue, even when the one who asked has gone.
        self._last_commit_s = max(self._last_commit_s + 1e-6, now_s + self.weather.latency_s(now_s))
        done: asyncio.Future[int] = loop.create_future()
        loop.call_at(self._last_commit_s, self._commit, entry, fault, done, context=Context())
        return await done

    def _commit(self, entry: Append, fault: str, done: asyncio.Future[int]) -> None:
        if self.dead:
            return
        if fault == "crash_before":
            self._crash()
            return
        outcome: int | Exception = StoreUnavailable("the store takes no writes now")
        if fault != "refused":
            try:
                outcome = at_once(self.durable.append(entry))
            except ConcurrencyConflict as conflict:
                outcome = conflict
            else:
                self._committed(entry)
                if fault == "ambiguous":
                    outcome = StoreUnavailable("the connection broke after the commit")
        if fault == "crash_after":
            self._crash()
        elif done.done():
            return
        elif isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        await self._read()
        return await self.durable.events(stream_id, after, limit)

    async def streams(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[UUID]:
        await self._read()
        return await self.durable.streams(after, limit)

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        await self._read()
        return await self.durable.log(after, limit)

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        await self._read()
        return await self.durable.due(now, limit, closed_lanes, skip)

    async def next_due(self, after: datetime) -> datetime | None:
        await self._read()
        return await self.durable.next_due(after)

    async def claim(self, owner: str, now: datetime, runs: Sequence[str] = ()) -> int:
        await self._read()
        return await self.durable.claim(owner, now, runs)

    async def work(self, stream_id: UUID) -> OpenWork | None:
        await self._read()
        return await self.durable.work(stream_id)

    async def open_work(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[OpenWork]:
        await self._read()
        return await self.durable.open_work(after, limit)

    async def position(self) -> int:
        await self._read()
        return await self.durable.position()

    async def checkpoint(self, consumer: str) -> int | None:
        await self._read()
        return await self.durable.checkpoint(consumer)

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        await self._read()
        await self.durable.keep_checkpoint(consumer, position)

    def exclusive(self, name: str) -> AbstractAsyncContextManager[bool]:
        self._check_alive()
        return self.durable.exclusive(name)

    async def close(self) -> None:
        self.dead = True

    async def _read(self) -> None:
        self._check_alive()
        await asyncio.sleep(0)
        now_s = asyncio.get_running_loop().time()
        if self.weather.read_fails(now_s):
            await asyncio.sleep(0.001)
            raise StoreUnavailable("the store cannot be read now")
        self._check_alive()

    def _check_alive(self) -> None:
        if self.dead:
            raise StoreUnavailable("the process is dead")
