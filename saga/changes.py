"""Changes of policy that a what-if may ask for: what differs from the recorded plans and limits, and nothing else."""

from pydantic import Field

from domain.definition import SagaPlan, StepPlan
from domain.provider import Value
from saga.breaker import BreakerPolicy
from saga.lanes import LimitPolicy


class RetryChange(Value):
    """Another retry policy for every step's action; None leaves it as it was recorded. Milliseconds."""

    attempts: int | None = Field(default=None, ge=1, le=1_000)
    backoff_ms: int | None = Field(default=None, ge=0, le=3_600_000)
    backoff_max_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    jitter: float | None = Field(default=None, ge=0, le=1)


class BreakerChange(Value):
    """Another breaker, milliseconds."""

    failures: int | None = Field(default=None, ge=1, le=1_000)
    open_ms: int | None = Field(default=None, ge=1, le=3_600_000)


class CapabilityChange(Value):
    """A calendar that can do more, or less."""

    resend: bool | None = None
    lookup: bool | None = None
    settle_ms: int | None = Field(default=None, ge=0, le=600_000)


class Changes(Value):
    """What is to be different. What a booking had set for itself stays as it is."""

    retry: RetryChange = RetryChange()
    timeout_ms: int | None = Field(default=None, ge=10, le=300_000)
    deadline_ms: int | None = Field(default=None, ge=100, le=86_400_000)
    breaker: BreakerChange = BreakerChange()
    capability: CapabilityChange = CapabilityChange()

    def plan(self, recorded: SagaPlan, version: int) -> SagaPlan:
        """A recorded plan with the changes, under a version of its own."""
        fields = {
            **recorded.model_dump(),
            "version": version,
            "steps": [self._step(step) for step in recorded.steps],
            **_given({"deadline_ms": self.deadline_ms}),
        }
        return SagaPlan.model_validate(fields)

    def _step(self, step: StepPlan) -> dict[str, object]:
        retry = self.retry.model_dump(exclude_none=True)
        if "attempts" in retry:
            retry["attempts_max"] = retry.pop("attempts")
        able = self.capability.model_dump(exclude_none=True) if step.books else {}
        fields = step.model_dump()
        return {**fields, "retry": {**fields["retry"], **retry}, **_given({"timeout_ms": self.timeout_ms}), **able}

    def limits(self, recorded: LimitPolicy) -> LimitPolicy:
        """The limits that were in force, with the changes to the breaker."""
        breaker = {"failures_max": self.breaker.failures, "open_ms": self.breaker.open_ms}
        changed = BreakerPolicy.model_validate({**recorded.breaker.model_dump(), **_given(breaker)})
        return recorded.model_copy(update={"breaker": changed})


def _given(fields: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in fields.items() if value is not None}
