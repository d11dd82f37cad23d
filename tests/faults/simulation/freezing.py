"""A loop on which a process can be stopped and continued, as SIGSTOP and SIGCONT do: nothing of it runs meanwhile."""

import asyncio
import heapq
from contextvars import ContextVar

from saga.virtual_time import VirtualLoop

WORKER: ContextVar[int] = ContextVar("worker")
"""Whose code runs. What the world outside does on its own has none."""


class FreezingLoop(VirtualLoop):
    """Everything that runs in a stopped worker's context waits; time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped: dict[int, list[asyncio.Handle]] = {}

    def stop_worker(self, worker: int) -> None:
        """From now on nothing of it runs."""
        self._stopped.setdefault(worker, [])

    def continue_worker(self, worker: int) -> None:
        """Its timers fire that have run out, and it goes on."""
        for handle in self._stopped.pop(worker, ()):
            if isinstance(handle, asyncio.TimerHandle):
                heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]
            else:
                self._ready.append(handle)  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        if self._stopped:
            self._set_aside()
        super()._run_once()  # type: ignore[misc]

    def _set_aside(self) -> None:
        for queue in (self._ready, self._scheduled):  # type: ignore[attr-defined]
            runs: list[asyncio.Handle] = []
            for handle in queue:
                stopped = self._stopped.get(handle._context.get(WORKER, -1))
                (runs if stopped is None else stopped).append(handle)
            if len(runs) < len(queue):
                queue.clear()
                queue.extend(runs)
        heapq.heapify(self._scheduled)  # type: ignore[attr-defined]
