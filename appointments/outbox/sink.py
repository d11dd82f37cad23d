"""Where events go: the port of a sink and its three answers; a function in this process is one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from appointments.outbox.cloudevents import CloudEvent
from domain.definition import RetryPolicy

RETRY = RetryPolicy(attempts_max=8, backoff_ms=1_000, backoff_max_ms=60_000)
"""About two minutes until an event that is refused is put to the dead letters."""
CONCURRENCY = 8
TIMEOUT_S = 90.0
"""Longer than any timeout that the settings take: it ends what has none of its own."""
REASON_MAX = 300


@dataclass(frozen=True, slots=True)
class Accepted:
    """The subscriber has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The subscriber answered, and does not take this event."""

    reason: str
    retry_after_s: float = 0


@dataclass(frozen=True, slots=True)
class Away:
    """The subscriber is not there, or fails: this need not be about the event."""

    reason: str
    retry_after_s: float = 0


Answer = Accepted | Refused | Away


class Sink(Protocol):
    """Tells one subscriber. An answer for everything that can go wrong; what it raises is taken for `Refused`."""

    async def deliver(self, event: CloudEvent) -> Answer:
        """Tell it one event. May be called for several appointments at once, for each of them in order."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who is told what, and how patiently."""

    name: str
    """The checkpoint's name: under another one it is another subscriber."""
    tenant: str
    sink: Sink
    types: frozenset[str] = frozenset()
    """Stored types, such as `appointment-confirmed.v1`; none: all."""
    retry: RetryPolicy = field(default=RETRY)
    concurrency: int = CONCURRENCY
    """Appointments whose events are told at once."""
    from_beginning: bool = False
    """A new subscriber is told everything in the log, not only what comes from now on."""
    timeout_s: float = TIMEOUT_S
    """What takes longer than that is ended, and counts as a failure."""


class Handler(Sink):
    """A function of this process. Raising is to refuse the event: it is given again, and in the end kept."""

    def __init__(self, call: Callable[[CloudEvent], Awaitable[None]]) -> None:
        self._call = call

    async def deliver(self, event: CloudEvent) -> Answer:
        """Call it."""
        await self._call(event)
        return Accepted()

    async def close(self) -> None:
        """Nothing is kept open."""
