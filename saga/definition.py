"""Sagas are declared: a list of steps, each with an action, a compensation, a retry policy and a timeout.

Owns the bond between a plan (plain data, in the log) and the callables that carry it out. Decides nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from domain.commands import PolicyOverride
from domain.definition import BOOKING_STEP, RetryPolicy, SagaPlan, StepPlan
from domain.provider import BookingDetails, Call, Provider, ProviderBooking, ReadOutcome, WriteOutcome

RETRY = RetryPolicy()
UNDO_RETRY = RetryPolicy(attempts_max=10)


@dataclass(frozen=True, slots=True)
class StepCall:
    """What a step's callable is given: the call (operation id, timeout), what is booked, and the booking if known."""

    call: Call
    step: str
    details: BookingDetails
    booking: ProviderBooking | None = None
    event: str = "appointment.confirmed"


Action = Callable[[StepCall], Awaitable[WriteOutcome]]
Lookup = Callable[[StepCall], Awaitable[ReadOutcome]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `action` and `compensation` get the same operation id on every attempt and must do their work once.

    `resend=False` says that a repeat would act twice: then an unknown outcome is looked up first, or parked when
    there is no `lookup`. Times in milliseconds.
    """

    name: str
    action: Action
    compensation: Action | None = None
    lookup: Lookup | None = None
    retry: RetryPolicy = RETRY
    undo_retry: RetryPolicy = UNDO_RETRY
    timeout_ms: int = 5_000
    resend: bool = True
    settle_ms: int = 2_000
    target: str | None = None
    """The lane of breaker and limits; the step's name when None."""

    def plan(self) -> StepPlan:
        """The step as data."""
        return StepPlan(
            name=self.name,
            target=self.target or self.name,
            compensated=self.compensation is not None,
            resend=self.resend,
            lookup=self.lookup is not None,
            settle_ms=self.settle_ms,
            timeout_ms=self.timeout_ms,
            retry=self.retry,
            undo_retry=self.undo_retry,
        )


@dataclass(frozen=True, slots=True)
class CalendarStep:
    """The step that makes the booking at the provider; what it may do follows from the provider's capabilities."""

    name: str = BOOKING_STEP
    retry: RetryPolicy = RETRY
    undo_retry: RetryPolicy = UNDO_RETRY
    timeout_ms: int = 5_000
    poll_ms: int = 1_000

    def plan(self, provider: Provider) -> StepPlan:
        """The step as data, for this provider."""
        able = provider.capabilities
        return StepPlan(
            name=self.name,
            target=provider.name,
            books=True,
            compensated=True,
            resend=able.resend,
            lookup=able.lookup,
            settle_ms=able.settle_ms,
            timeout_ms=self.timeout_ms,
            retry=self.retry,
            undo_retry=self.undo_retry,
            poll_ms=self.poll_ms,
        )


@dataclass(frozen=True, slots=True)
class Saga:
    """A named, versioned list of steps, exactly one of them a `CalendarStep`. Change a step: raise the version.

    Appointments in flight finish under the version they started with: keep the old one registered until none is left.
    """

    name: str
    version: int
    steps: tuple[Step | CalendarStep, ...]
    deadline_ms: int = 120_000
    cleanup_ms: int = 600_000

    def __post_init__(self) -> None:
        """Raise ValueError for a saga that could not run."""
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise ValueError(f"saga {self.name!r} has two steps of one name: {names}")
        if sum(isinstance(step, CalendarStep) for step in self.steps) != 1:
            raise ValueError(f"saga {self.name!r} needs exactly one CalendarStep")

    def plan(self, provider: Provider) -> SagaPlan:
        """The saga as data, for this provider."""
        steps = tuple(s.plan(provider) if isinstance(s, CalendarStep) else s.plan() for s in self.steps)
        return SagaPlan(
            name=self.name,
            version=self.version,
            provider=provider.name,
            steps=steps,
            deadline_ms=self.deadline_ms,
            cleanup_ms=self.cleanup_ms,
        )

    def carries(self, plan: SagaPlan) -> bool:
        """Whether every step of a plan has its functions here, whatever its policies are."""
        here = {(step.name, isinstance(step, CalendarStep)) for step in self.steps}
        return here >= {(step.name, step.books) for step in plan.steps}

    def step(self, name: str) -> Step | CalendarStep:
        """A step by name; KeyError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


def with_override(plan: StepPlan, override: PolicyOverride | None) -> StepPlan:
    """A booking step's plan under what one booking has set otherwise."""
    if override is None or not plan.books:
        return plan
    retry = plan.retry.model_copy(
        update={
            name: value
            for name, value in (("attempts_max", override.attempts_max), ("backoff_ms", override.backoff_ms))
            if value is not None
        }
    )
    return plan.model_copy(update={"retry": retry, "timeout_ms": override.timeout_ms or plan.timeout_ms})
