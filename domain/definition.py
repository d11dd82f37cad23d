"""A saga's plan as plain data: what the process manager decides by. Written to the log, so it outlives the code."""

import hashlib
from datetime import datetime, timedelta
from functools import cached_property

from pydantic import Field

from domain.identity import spread
from domain.provider import Value

BOOKING_STEP = "calendar"
"""What the step that makes the booking is called, unless a saga says otherwise."""


def booking_step_of(digest: str) -> str:
    """The name of the step that makes the booking, in the plan of this digest."""
    return digest.partition("#")[2] or BOOKING_STEP


PATIENCE_MAX = timedelta(minutes=1)


def patience(since: datetime | None, now: datetime) -> timedelta:
    """The longer something has lasted, the longer it can wait for the next look: each one leaves an event."""
    return min((now - since) / 10, PATIENCE_MAX) if since else timedelta()


class RetryPolicy(Value):
    """How often, and how far apart. Times in milliseconds; the delay doubles up to a cap; jitter is a share of it."""

    attempts_max: int = Field(default=3, ge=1, le=1_000)
    backoff_ms: int = Field(default=500, ge=0, le=3_600_000)
    backoff_max_ms: int = Field(default=30_000, ge=0, le=86_400_000)
    jitter: float = Field(default=0.2, ge=0, le=1)

    def delay_ms(self, attempt: int, seed: str) -> int:
        """The wait after `attempt` (1-based), spread by a hash of `seed`."""
        base = min(self.backoff_ms * 2 ** min(attempt - 1, 30), self.backoff_max_ms)
        return int(base * (1 - self.jitter * spread(f"{seed}\x00{attempt}"))) if self.jitter else base


class StepPlan(Value):
    """One step: who is called, how patiently, and what may be done when the outcome is unknown. Milliseconds."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    target: str
    """The lane of breaker and limits: whom the step calls."""
    books: bool = False
    """This step makes the booking at the provider (exactly one step does)."""
    compensated: bool = False
    resend: bool = True
    lookup: bool = False
    settle_ms: int = Field(default=2_000, ge=0)
    timeout_ms: int = Field(default=5_000, ge=10, le=300_000)
    retry: RetryPolicy = RetryPolicy()
    undo_retry: RetryPolicy = RetryPolicy(attempts_max=10)
    poll_ms: int = Field(default=1_000, ge=1, le=86_400_000)


class SagaPlan(Value):
    """A saga: its steps in order, the deadline of the whole and the budget for cleaning up. Milliseconds."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(default=1, ge=1)
    provider: str
    steps: tuple[StepPlan, ...] = Field(min_length=1, max_length=20)
    deadline_ms: int = Field(default=120_000, ge=100, le=86_400_000)
    cleanup_ms: int = Field(default=600_000, ge=100, le=604_800_000)

    @cached_property
    def digest(self) -> str:
        """The plan's name in the log: `<name>/<version>@<hash of everything in it>`.

        A booking step that is not called `calendar` is named behind it, so that a stream alone tells which step books.
        """
        digest = f"{self.name}/{self.version}@{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]}"
        booking_step = self.booking_step.name
        return digest if booking_step == BOOKING_STEP else f"{digest}#{booking_step}"

    @property
    def left_lane(self) -> str:
        """The lane of what a worker that does not run this leaves to one that does; nobody's target."""
        return f"?{self.digest.replace('/', '.')}"

    def step(self, name: str) -> StepPlan:
        """A step by name; KeyError when the plan has none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def deadline_after(self, now: datetime, *starts: datetime) -> datetime:
        """When what is asked for now must be done. Nobody is told "confirmed" after the appointment has begun."""
        return min([now + timedelta(milliseconds=self.deadline_ms), *(start for start in starts if start > now)])

    @property
    def booking_step(self) -> StepPlan:
        """The step that makes the booking."""
        return next(step for step in self.steps if step.books)
