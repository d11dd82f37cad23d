"""One worker's place among those who share a store: its name, its beat, the clock of all, its share of the limits.

Owns what a store of one process has no need of. A worker that was silent for longer than its lease has been declared
dead, and others have its work: it goes on under a new name, and lets nothing leave that it announced under the old one.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from domain.definition import SagaPlan
from domain.errors import LeaseLost, StoreUnavailable
from saga.clock import Clock
from saga.lanes import Lanes
from saga.shared_lanes import SharedLanes
from store.port import OpenWork, Store

BEATS_PER_LEASE = 3
BEAT_RETRY_S = 0.25
HANDED_MIN, HANDED_MAX = 8, 1_024


class SharedClock:
    """The store's clock, carried on by this machine's monotonic one between two looks. It never goes back."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._monotonic: Callable[[], float] | None = None
        self._seen_at, self._seen_s = own.now(), 0.0
        self._last = self._seen_at

    def now(self) -> datetime:
        """The present instant, UTC."""
        if self._monotonic is None:
            return self._own.now()
        self._last = max(self._last, self._seen_at + timedelta(seconds=self._monotonic() - self._seen_s))
        return self._last

    async def set_by(self, store: Store) -> None:
        """Look at the store's clock; what it said is held to be of the middle of the time that the answer took."""
        monotonic = asyncio.get_running_loop().time
        asked_s = monotonic()
        seen = await store.now()
        if seen is None:
            return
        answered_s = monotonic()
        if self._monotonic is None:
            self._last = seen
        self._seen_at, self._seen_s = seen + timedelta(seconds=(answered_s - asked_s) / 2), answered_s
        self._monotonic = monotonic


def run_name(name: str, version: int, provider: str) -> str:
    """A saga at a provider, as workers tell each other what they run."""
    return f"{name}.{version}@{provider}"


def run_of(name: str) -> tuple[str, int, str]:
    """The saga's name, its version and the provider behind a `run_name`."""
    saga, _, provider = name.rpartition("@")
    name, _, version = saga.rpartition(".")
    return name, int(version), provider


class Membership:
    """Keeps one worker among the workers, from `join` to `leave`."""

    def __init__(self, store: Store, clock: Clock, lanes: Lanes, name: str, runs: Sequence[str]) -> None:
        assert store.lease_s is not None
        self.owner, self.clock = name, SharedClock(clock)
        self._store, self._name, self._runs = store, name, tuple(runs)
        self._lease_s = store.lease_s
        self._lanes = lanes
        self.lanes = SharedLanes(store, lanes, self.clock, timedelta(seconds=store.lease_s))
        self._incarnation = 0
        self._beat_s = 0.0
        self._struck = asyncio.Event()
        self.not_run: dict[str, None] = {}
        """Lanes of what others run and this worker does not."""
        self.handed_max = HANDED_MAX
        """How many rows it asks for at once."""

    async def join(self) -> int:
        """Come among the workers; returns how many calls of dead ones were taken over."""
        await self.clock.set_by(self._store)
        return await self._beat()

    async def beats(self, took_over: Callable[[], None]) -> None:
        """Tell every third of a lease that this worker lives; come back under a new name when it was declared dead."""
        pause_s = self._lease_s / BEATS_PER_LEASE
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._struck.wait()
            taken = await self._beat_or_come_back()
            if taken:
                took_over()
            pause_s = self._lease_s / BEATS_PER_LEASE
            if taken is None:
                await asyncio.sleep(BEAT_RETRY_S)
                pause_s = 0.0

    async def _beat_or_come_back(self) -> int | None:
        """How many calls were taken over; None where the store does not answer."""
        try:
            if not self._struck.is_set():
                with suppress(LeaseLost):
                    return await self._beat()
            self._incarnation += 1
            self.owner = f"{self._name}~{self._incarnation}"
            taken = await self._beat()
            self._struck.clear()
            return taken
        except StoreUnavailable:
            return None

    async def _beat(self) -> int:
        # From before the question on: the store counts from a later moment.
        asked_s = asyncio.get_running_loop().time()
        taken = await self._store.claim(self.owner, self.clock.now(), self._runs)
        self._beat_s = asked_s
        await self.clock.set_by(self._store)
        self._lanes.share_among(max(1, len(await self._store.workers())))
        await self.lanes.refresh()
        return taken

    def struck(self, name: str) -> None:
        """A write under this name was refused: its worker was declared dead."""
        if name == self.owner:
            self._struck.set()

    def holds(self, name: str) -> bool:
        """Whether what was announced under this name may still leave: nobody can have taken it over yet."""
        silent_s = asyncio.get_running_loop().time() - self._beat_s
        return name == self.owner and silent_s <= self._lease_s and not self._struck.is_set()

    async def leave(self) -> None:
        """Hand over what is in flight, and go."""
        with suppress(StoreUnavailable):
            await self._store.leave()

    # -- what is handed out ----------------------------------------------------------------------------------------

    def leaves_to_others(self, plan: SagaPlan) -> str:
        """The lane of what this worker does not run; from now on it is not asked for here.

        One for each definition: of two under one name, a worker may have the steps of one alone.
        """
        lane = plan.left_lane
        self.not_run[lane] = None
        return lane

    async def hand_back(self, rows: Sequence[OpenWork], handed: int) -> None:
        """What was handed to this worker and finds no place here; it asks for no more than it found places for."""
        self.handed_max = max(HANDED_MIN, 2 * (handed - len(rows))) if rows else HANDED_MAX
        if rows:
            await self._store.hand_back(rows, self.clock.now())

    async def run_by_anybody(self) -> frozenset[tuple[str, int, str]]:
        """What the workers together can carry out."""
        return frozenset(run_of(name) for worker in await self._store.workers() for name in worker.runs)
