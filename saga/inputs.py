"""What a turn takes in and gives out: plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.appointment import Appointment
from domain.commands import Command, Request
from domain.events import Event, Operation
from domain.provider import BookingStatus, ReadOutcome, WriteOutcome


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody gave a command."""

    command: Command
    request: Request


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call that was announced has an outcome."""

    step: str
    operation: Operation
    operation_id: str
    attempt: int
    outcome: WriteOutcome


@dataclass(frozen=True, slots=True)
class ReadEnded:
    """A read (poll or look-up) has an outcome. `began` is when it was sent: what it saw is no newer than that."""

    step: str
    purpose: Literal["poll", "lookup"]
    outcome: ReadOutcome
    began: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """The due time has come, or the appointment was found after a crash."""


@dataclass(frozen=True, slots=True)
class CalledBack:
    """The provider called back, signature checked."""

    webhook_id: str
    provider_ref: str
    status: BookingStatus
    version: int


Input = Asked | CallEnded | ReadEnded | Due | CalledBack


@dataclass(frozen=True, slots=True)
class Hold:
    """A lane lets no call through now; `until` is None when it will say so itself (no free place)."""

    reason: Literal["circuit_open", "busy"]
    until: datetime | None = None


Gates = Callable[[str], Hold | None]
"""Asks a lane whether a call may leave now; None means go."""


def open_gates(_lane: str) -> Hold | None:
    """Every lane is open."""
    return None


@dataclass(frozen=True, slots=True)
class Write:
    """Effect: run a step's operation; announced by a `StepStarted` in the same turn."""

    step: str
    target: str
    operation: Operation
    operation_id: str
    attempt: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Read:
    """Effect: look at the provider; changes nothing there, so nothing announces it."""

    step: str
    target: str
    purpose: Literal["poll", "lookup"]
    timeout_ms: int


Effect = Write | Read


@dataclass(frozen=True, slots=True)
class Wake:
    """When the appointment wants its next turn, in which lane, and from when on it wants one in any case."""

    at: datetime
    lane: str = ""
    deadline_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one input comes to. No wake and no effect: it rests (ended, confirmed or parked)."""

    state: Appointment
    events: tuple[Event, ...] = ()
    effect: Effect | None = None
    wake: Wake | None = None
    replayed: bool = False
    idle: bool = False
    """Nothing has changed, not even the due time."""
