"""Parked work in groups of the same failure, and one action for a whole group: asked one by one, at a pace."""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from appointments.views import Appointment
from domain.errors import CommandRefused, ConcurrencyConflict, HistoryError, StoreUnavailable

PACE_S = 0.1
"""Between two appointments of one batch: a provider that is just up again is not run down."""
BATCHES_MAX = 50
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")

Act = Callable[[Appointment], Awaitable[Appointment]]


@dataclass(frozen=True, slots=True)
class Group:
    """Appointments that were parked for the same reason in the same state."""

    key: str
    state: str
    reason: str
    items: tuple[Appointment, ...]


def groups(parked: Iterable[Appointment]) -> tuple[Group, ...]:
    """The largest group first, of each the one that starts first. Numbers and ids make no difference of reasons."""
    found: dict[tuple[str, str], list[Appointment]] = {}
    for one in parked:
        found.setdefault((one.state, _CHANGING.sub("…", one.parked_reason or "")), []).append(one)
    made = (
        Group(_key(state, reason), state, reason, tuple(sorted(items, key=lambda one: one.start)))
        for (state, reason), items in found.items()
    )
    return tuple(sorted(made, key=lambda group: (-len(group.items), group.key)))


def _key(state: str, reason: str) -> str:
    return hashlib.sha256(f"{state}\x00{reason}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Result:
    """What an action came to."""

    id: str
    state: str = ""
    refused: str = ""


@dataclass
class Batch:
    """One action for several appointments, while it goes on and afterwards."""

    id: int
    tenant: str
    action: str
    of: int
    results: list[Result] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Every one was asked."""
        return len(self.results) == self.of


class Batches:
    """The batches of this process; the last ones can be looked at."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._batches: OrderedDict[int, Batch] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, tenant: str, action: str, items: Sequence[Appointment], act: Act) -> Batch:
        """Begin; it goes on by itself."""
        batch = Batch(next(self._numbers), tenant, action, len(items))
        self._batches[batch.id] = batch
        if len(self._batches) > BATCHES_MAX:
            self._batches.popitem(last=False)
        task = asyncio.get_running_loop().create_task(_run(batch, items, act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    def get(self, id: int, tenant: str) -> Batch | None:
        """One of this tenant's."""
        batch = self._batches.get(id)
        return batch if batch is not None and batch.tenant == tenant else None

    async def finished(self) -> None:
        """Wait until nothing goes on."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop between two appointments; what was asked for is durable."""
        for task in self._tasks:
            task.cancel()
        await self.finished()


async def _run(batch: Batch, items: Sequence[Appointment], act: Act) -> None:
    for place, one in enumerate(items):
        if place:
            await asyncio.sleep(PACE_S)
        try:
            batch.results.append(Result(str(one.id), (await act(one)).state))
        except (CommandRefused, ConcurrencyConflict, HistoryError, StoreUnavailable) as fault:
            batch.results.append(Result(str(one.id), refused=str(fault)))
