"""What a relay has read and not done with: which event is told next, when again, and up to where all are done. Pure.

The events of one appointment go out one after the other, those of different ones at once. An event that fails counts
down to the dead letters only where that can be held against it: the subscriber refused it, or failed at it while it
took others. A subscriber that takes nothing is down: then one event at a time tries whether it is back, each time that
of another appointment, and none loses an attempt.
"""

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from uuid import UUID

from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.sink import Accepted, Answer, Away, Refused
from domain.definition import RetryPolicy

WINDOW_MAX = 1_000
"""Events that are read and not done with; then the log is not read on."""
DOWN_AFTER = 3
"""So many appointments in a row whose events the subscriber failed at, and it is down."""
WAIT_MIN_S = 0.05
RETRY_AFTER_MAX_S = 3_600.0


@dataclass(slots=True)
class Delivery:
    """One event on its way to one subscriber."""

    position: int
    appointment: UUID
    version: int
    event: CloudEvent
    attempts: int = 0
    """Those that count against it."""
    failures: int = 0
    seen: int = 0
    """How many others had been taken when it was last judged."""


class Window:
    """One relay's. Times are seconds of one clock that only goes forward."""

    def __init__(self, retry: RetryPolicy, concurrency: int, read_to: int) -> None:
        self.read_to = read_to
        """Up to where the log was read."""
        self._retry, self._concurrency = retry, concurrency
        self._open: dict[int, Delivery] = {}
        self._queues: dict[UUID, deque[Delivery]] = {}
        self._ready: deque[UUID] = deque()
        self._later: list[tuple[float, int, UUID]] = []
        self._running = 0
        self._taken = 0
        self._failing: set[UUID] = set()
        self._probes = 0
        self._shut_until_s = 0.0

    @property
    def checkpoint(self) -> int:
        """The highest position up to which everything was delivered, or put to the dead letters."""
        return next(iter(self._open), self.read_to + 1) - 1

    @property
    def full(self) -> bool:
        """Whether nothing more may be taken in."""
        return len(self._open) >= WINDOW_MAX

    @property
    def down(self) -> bool:
        """Whether the subscriber takes nothing."""
        return len(self._failing) >= DOWN_AFTER

    def take_in(self, delivery: Delivery) -> None:
        """One more, behind those of its appointment; in order of position."""
        self._open[delivery.position] = delivery
        queue = self._queues.setdefault(delivery.appointment, deque())
        queue.append(delivery)
        if len(queue) == 1:
            self._ready.append(delivery.appointment)

    def next(self, now_s: float) -> Delivery | None:
        """The next one to tell now; `answered` is to follow."""
        while self._later and self._later[0][0] <= now_s:
            self._ready.append(heappop(self._later)[2])
        if self.down and (self._running or now_s < self._shut_until_s):
            return None
        if not self._ready or self._running >= self._concurrency:
            return None
        self._running += 1
        delivery = self._queues[self._ready.popleft()][0]
        if not delivery.failures:
            delivery.seen = self._taken
        return delivery

    def next_at(self) -> float | None:
        """When to ask again if nothing else happens."""
        if self.down and self._ready and not self._running:
            return self._shut_until_s
        return self._later[0][0] if self._later else None

    def answered(self, delivery: Delivery, answer: Answer, now_s: float) -> bool:
        """What came of it. True: it is to be given up, which `done` completes once that is kept."""
        self._running -= 1
        match answer:
            case Accepted():
                self._taken += 1
                self._up()
                self.done(delivery)
                return False
            case Refused():
                self._up()
                delivery.attempts += 1
            case Away():
                if self._taken > delivery.seen:
                    delivery.attempts += 1
                    delivery.seen = self._taken
                self._failed(delivery, answer, now_s)
        delivery.failures += 1
        if delivery.attempts >= self._retry.attempts_max:
            return True
        if self.down:
            self._ready.append(delivery.appointment)  # behind the others: the next probe is somebody else's
        else:
            wait_s = self._wait_s(delivery.failures, delivery.event.id, answer)
            heappush(self._later, (now_s + wait_s, delivery.position, delivery.appointment))
        return False

    def done(self, delivery: Delivery) -> None:
        """It was delivered, or given up: the next one of its appointment may go."""
        del self._open[delivery.position]
        queue = self._queues[delivery.appointment]
        queue.popleft()
        if queue:
            self._ready.append(delivery.appointment)
        else:
            del self._queues[delivery.appointment]

    def _up(self) -> None:
        self._failing.clear()
        self._probes = 0

    def _failed(self, delivery: Delivery, answer: Away, now_s: float) -> None:
        self._failing.add(delivery.appointment)
        if self.down and now_s >= self._shut_until_s:  # those that were on their way with it tell nothing new
            self._probes += 1
            self._shut_until_s = now_s + self._wait_s(self._probes, "down", answer)

    def _wait_s(self, failures: int, seed: str, answer: Refused | Away) -> float:
        asked_s = min(answer.retry_after_s, RETRY_AFTER_MAX_S)
        return max(self._retry.delay_ms(failures, seed) / 1_000, asked_s, WAIT_MIN_S)
