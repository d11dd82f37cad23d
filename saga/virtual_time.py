"""Virtual time: an event loop that jumps to its next timer when nothing is ready, and a Clock over it."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
"""When a virtual world begins, unless it is told otherwise."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set: the system under test would wait for ever."""


class Livelock(Exception):
    """The system under test is busy for ever at one instant."""


BUSY_MAX = 100_000
"""Rounds of the loop without any time passing."""


class _JumpingSelector(selectors.SelectSelector):
    now = 0.0
    busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for nobody: let the time pass."""
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        self.busy = 0 if timeout > 0 else self.busy + 1
        if self.busy > BUSY_MAX:
            self.busy = 0
            raise Livelock(f"{BUSY_MAX} rounds, and still {self.now:.6f}s")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready; else the time is at once that of the next timer. No sockets, no threads."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual.now

    def _make_self_pipe(self) -> None:
        """Nobody wakes this loop from another thread."""
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        return


class VirtualClock:
    """The wall clock of a virtual world. `jump` sets it forward or back, as an operator or NTP might."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime = EPOCH) -> None:
        self._loop, self._start = loop, start

    def now(self) -> datetime:
        """The present instant, UTC."""
        return self._start + timedelta(microseconds=round(self._loop.time() * 1e6))

    def jump(self, by: timedelta) -> None:
        """From now on everybody who asks sees another time; the loop's timers do not."""
        self._start += by


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run to the end in virtual time; whatever is left over is cancelled."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
