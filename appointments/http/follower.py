"""One follower of the log for all who watch it: each event is folded once, and handed to everybody it concerns.

Each watcher has a bounded buffer: one that does not keep up is let go, and resumes where it was. While nobody watches,
nothing is read.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

from appointments.changes import changed, read_on
from appointments.http.problems import Refusal
from projections.following import RecentStates
from store.port import RecordedEvent, Store
from store.sql import SqlStore

BUFFER_MAX = 1_000
"""Events that wait for one watcher."""
WATCHERS_MAX = 10_000
WATCHERS_OF_TENANT_MAX = 5_000
"""One tenant takes the places of no other's watchers."""
PAGE = 500
POLL_S = 1.0
"""How often the log is looked at where no commit is told of."""
POLL_BLIND_S = 0.1
"""The same for a store that tells of none."""


class Told(NamedTuple):
    """A change with whose it is, in the format of an event stream."""

    position: int
    tenant: str
    appointment: UUID
    text: bytes


class Watcher:
    """One who watches a tenant, or one appointment of it."""

    def __init__(self, tenant: str, appointment: UUID | None) -> None:
        self.tenant, self.appointment = tenant, appointment
        self.ended = self.overrun = False
        self._waiting: deque[Told] = deque()
        self._news = asyncio.Event()

    def give(self, told: Told) -> None:
        """One more; one too many ends it."""
        if len(self._waiting) >= BUFFER_MAX:
            self.overrun = True
            self._waiting.clear()
            self.end()
        elif not self.ended:
            self._waiting.append(told)
            self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self._news.set()

    async def take(self, within_s: float) -> list[Told]:
        """What waits, once there is something; nothing when the time is over, or at the end."""
        if not self._waiting and not self.ended:
            self._news.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Follower:
    """Follows one store, from `async with` to its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[tuple[str, UUID | None], set[Watcher]] = defaultdict(set)
        self._count = 0
        self._of_tenant: Counter[str] = Counter()
        self._position = 0
        self._states = RecentStates()
        self._one_at_a_time = asyncio.Lock()
        self._news = asyncio.Event()
        self._ending = False

    @property
    def watched_by(self) -> int:
        """How many watch now."""
        return self._count

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow until the block ends; then every watcher has come to its end as well."""
        loop = asyncio.get_running_loop()
        untell: Callable[[], None] = lambda: None  # noqa: E731
        if isinstance(self._store, SqlStore):

            def tell() -> None:
                loop.call_soon_threadsafe(self._news.set)

            untell = self._store.after_commit(tell)
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            untell()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            self.end()

    def end(self) -> None:
        """Let every watcher go."""
        self._ending = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.end()

    @asynccontextmanager
    async def watching(self, tenant: str, appointment: UUID | None) -> AsyncIterator[tuple[Watcher, int]]:
        """A watcher, and the position behind which it is given everything. Raises `Refusal`: there are too many."""
        if self._count >= WATCHERS_MAX or self._of_tenant[tenant] >= WATCHERS_OF_TENANT_MAX:
            raise Refusal("busy", "as many clients as may do so watch already")
        watcher = Watcher(tenant, appointment)
        async with self._one_at_a_time:
            if not self._count:
                self._position = await self._store.position()
            self._count += 1
            self._of_tenant[tenant] += 1
            self._watchers[tenant, appointment].add(watcher)
        if self._ending:
            watcher.end()
        try:
            yield watcher, self._position
        finally:
            self._count -= 1
            self._of_tenant[tenant] -= 1
            self._watchers[tenant, appointment].discard(watcher)
            if not self._watchers[tenant, appointment]:
                del self._watchers[tenant, appointment]

    async def missed(self, watcher: Watcher, after: int, until: int) -> AsyncGenerator[list[Told], None]:
        """What a watcher has missed, page by page: behind `after`, up to `until`."""
        states = RecentStates()
        while after < until:
            batch = await self._store.log(after, min(PAGE, until - after))
            if not batch:
                return
            yield [told for told in await _tell(self._store, states, batch) if concerns(told, watcher)]
            after = batch[-1].position

    async def _follow(self) -> None:
        blind = not isinstance(self._store, SqlStore)
        while True:
            try:
                async with asyncio.timeout(POLL_BLIND_S if blind else POLL_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._read_on()
            except Exception as fault:
                told = {"message": "the log cannot be followed now", "exception": fault}
                asyncio.get_running_loop().call_exception_handler(told)
                await asyncio.sleep(POLL_S)

    async def _read_on(self) -> None:
        more = True
        while more and self._count:
            async with self._one_at_a_time:
                batch = await self._store.log(self._position, PAGE)
                for told in await _tell(self._store, self._states, batch):
                    for key in ((told.tenant, None), (told.tenant, told.appointment)):
                        for watcher in self._watchers.get(key, ()):
                            watcher.give(told)
                if batch:
                    self._position = batch[-1].position
            more = len(batch) == PAGE


def concerns(told: Told, watcher: Watcher) -> bool:
    """Whether it is something of what is watched."""
    return told.tenant == watcher.tenant and watcher.appointment in (None, told.appointment)


async def _tell(store: Store, states: RecentStates, batch: Sequence[RecordedEvent]) -> list[Told]:
    told = []
    for change in (await read_on(store, states, batch)).changes if batch else ():
        public = changed(change)
        if public is None or change.after is None:
            continue
        text = f"id: {public.position}\ndata: {public.model_dump_json()}\n\n".encode()
        told.append(Told(public.position, change.after.tenant, public.appointment, text))
    return told
