"""The circuit breaker as pure code: closed, open, half-open with one probe. Time is an argument."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal

from pydantic import Field

from domain.provider import Outcome, Retryable, Unknown, Value
from saga.inputs import Hold


class BreakerPolicy(Value):
    """When to open, and for how long (milliseconds)."""

    failures_max: int = Field(default=3, ge=1, le=1_000)
    open_ms: int = Field(default=5_000, ge=1, le=3_600_000)


@dataclass(frozen=True, slots=True)
class Breaker:
    """One provider's breaker. Closed while `open_until` is None; half-open once that has passed."""

    failures: int = 0
    open_until: datetime | None = None
    probing: bool = False
    opened: int = 0
    """How often it has opened."""


def standing(breaker: Breaker, now: datetime) -> Literal["closed", "open", "half_open"]:
    """How it stands, for those who look."""
    if breaker.open_until is None:
        return "closed"
    return "open" if now < breaker.open_until else "half_open"


class Sign(Enum):
    """What an outcome says of the provider's health."""

    GOOD = "good"
    BAD = "bad"
    NEITHER = "neither"


def sign(outcome: Outcome) -> Sign:
    """429, 423 and "still in flight" say nothing of health; a refusal for good shows a provider that works."""
    match outcome:
        case Retryable(throttled=True) | Unknown(in_flight=True):
            return Sign.NEITHER
        case Retryable() | Unknown():
            return Sign.BAD
        case _:
            return Sign.GOOD


def verdict(breaker: Breaker, now: datetime) -> Hold | None:
    """None: a call may leave. In half-open one probe may, the others are busy waiting for it."""
    if breaker.open_until is None:
        return None
    if now < breaker.open_until:
        return Hold("circuit_open", breaker.open_until)
    return Hold("busy") if breaker.probing else None


def admitted(breaker: Breaker) -> Breaker:
    """A call leaves: in half-open it is the probe."""
    return breaker if breaker.open_until is None else replace(breaker, probing=True)


def heard(breaker: Breaker, outcome: Outcome, now: datetime, policy: BreakerPolicy) -> Breaker:
    """An outcome is in."""
    match sign(outcome):
        case Sign.NEITHER:
            return replace(breaker, probing=False)
        case Sign.GOOD:
            if breaker.open_until is not None and not breaker.probing:
                return breaker
            return replace(breaker, failures=0, open_until=None, probing=False)
        case Sign.BAD:
            if breaker.open_until is not None and not breaker.probing:
                return breaker
            failures = breaker.failures + 1
            if failures < policy.failures_max and breaker.open_until is None:
                return replace(breaker, failures=failures)
            open_until = now + timedelta(milliseconds=policy.open_ms)
            return Breaker(failures, open_until, opened=breaker.opened + 1)
