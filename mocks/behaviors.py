"""The behaviours that a script may ask for, one model a mode, with their parameters and limits."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Op = Literal["create", "get", "find", "list", "cancel", "reschedule", "notify"]
Apply = Literal["before", "after", "never"]
DAY_MS = 86_400_000
MESSAGES_MAX = 20

ANY_OP: tuple[Op, ...] = ("create", "get", "find", "list", "cancel", "reschedule", "notify")
CHANGING: tuple[Op, ...] = ("create", "cancel", "reschedule")


class Model(BaseModel):
    """Frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Behavior(Model):
    def ops(self) -> tuple[Op, ...]:
        """The operations on which this behaviour means anything."""
        return ANY_OP


class Immediate(_Behavior):
    """Done and answered at once; what happens without a script."""

    mode: Literal["immediate"] = "immediate"


class CallbackPlan(Model):
    """How the callbacks of one change go out."""

    copies: int = Field(default=1, ge=1, le=1_000)
    """Deliveries of each message, the first included; all carry the same webhook-id."""
    order: tuple[int, ...] | Literal["reversed", "shuffled"] = (0,)
    """The order in which the booking's last messages go out. (1, 0): the newer of two before the older. Where there are
    not that many, the provider touches the booking: a version more, nothing else changed. A word stands for three."""
    early_lead_ms: int | None = Field(default=None, ge=0, le=60_000)
    """One callback arrives this long before the answer to the call that caused it."""
    fault: Literal["bad_signature", "stale_timestamp", "unknown_ref", "dropped"] | None = None

    @model_validator(mode="after")
    def _is_permutation(self) -> Self:
        if not isinstance(self.order, str) and sorted(self.order) != list(range(max(1, len(self.order)))):
            raise ValueError("order must be a permutation of 0..n-1")
        if len(self.order) > MESSAGES_MAX:
            raise ValueError(f"order has more than {MESSAGES_MAX} places")
        return self


class Pending(_Behavior):
    """202; settles `settle_ms` later. Reads show the truth whatever `via` says; callback and both also call back."""

    mode: Literal["pending"] = "pending"
    settle_ms: int = Field(default=100, ge=0, le=DAY_MS)
    final: Literal["accepted", "rejected", "never"] = "accepted"
    via: Literal["poll", "callback", "both"] = "both"
    callbacks: CallbackPlan = CallbackPlan()

    def ops(self) -> tuple[Op, ...]:
        return ("create",)


class Delayed(_Behavior):
    """Answered `delay_ms` late, applied before or after that time. `never`: not applied, the late answer is 503."""

    mode: Literal["delayed"] = "delayed"
    delay_ms: int = Field(default=100, ge=0, le=DAY_MS)
    apply: Apply = "after"


class FailThenSucceed(_Behavior):
    """The first `failures` calls of each client reference fail, later ones do not. `applied`: failing calls commit."""

    mode: Literal["fail_then_succeed"] = "fail_then_succeed"
    failures: int = Field(default=1, ge=1, le=1_000_000)
    status: Literal[500, 502, 503, 504] = 503
    applied: bool = False


class Timeout(_Behavior):
    """Never a byte; held until the client leaves, at most `hold_ms`. `after`: applied when the hold ends."""

    mode: Literal["timeout"] = "timeout"
    applied: bool | None = None
    """Short for apply before (true) or never (false)."""
    apply: Apply = "never"
    hold_ms: int = Field(default=60_000, ge=1, le=600_000)

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("applied"), bool):
            apply = "before" if given["applied"] else "never"
            if given.get("apply", apply) != apply:
                raise ValueError("applied and apply contradict each other")
            return {**given, "apply": apply}
        return given


class LostResponse(_Behavior):
    """Committed, and the answer is lost."""

    mode: Literal["lost_response"] = "lost_response"
    how: Literal["close", "rst", "500", "truncated"] = "close"


class RateLimited(_Behavior):
    """Refused for now. `retry_after` as a number of seconds also sets `seconds`."""

    mode: Literal["rate_limited"] = "rate_limited"
    status: Literal[429, 403] = 429
    retry_after: Literal["number", "date", "absent"] = "number"
    seconds: int = Field(default=1, ge=0, le=86_400)

    @model_validator(mode="before")
    @classmethod
    def _take_number(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and type(given.get("retry_after")) is int:
            return {**given, "retry_after": "number", "seconds": given["retry_after"]}
        return given


class _CallbackBehavior(_Behavior):
    settle_ms: int = Field(default=100, ge=0, le=DAY_MS)
    """On a create, which is pending first. A cancel or reschedule calls back at once."""
    final: Literal["accepted", "rejected"] = "accepted"

    def ops(self) -> tuple[Op, ...]:
        return CHANGING

    def plan(self) -> CallbackPlan:
        """The callbacks that this behaviour means."""
        return CallbackPlan()


class DuplicateCallbacks(_CallbackBehavior):
    """Every callback is delivered `copies` times."""

    mode: Literal["duplicate_callbacks"] = "duplicate_callbacks"
    copies: int = Field(default=2, ge=1, le=1_000)

    def plan(self) -> CallbackPlan:
        return CallbackPlan(copies=self.copies)


class OutOfOrderCallbacks(_CallbackBehavior):
    """Newer callbacks arrive before older ones."""

    mode: Literal["out_of_order_callbacks"] = "out_of_order_callbacks"
    order: tuple[int, ...] | Literal["reversed", "shuffled"] = (1, 0)
    copies: int = Field(default=1, ge=1, le=1_000)

    @model_validator(mode="after")
    def _has_a_plan(self) -> Self:
        self.plan()
        return self

    def plan(self) -> CallbackPlan:
        return CallbackPlan(order=self.order, copies=self.copies)


class EarlyCallback(_CallbackBehavior):
    """The callback arrives `lead_ms` before the answer."""

    mode: Literal["early_callback"] = "early_callback"
    lead_ms: int = Field(default=50, ge=0, le=60_000)

    def plan(self) -> CallbackPlan:
        return CallbackPlan(early_lead_ms=self.lead_ms)


class CallbackFault(_CallbackBehavior):
    """The callback is forged, stale, about nobody we know, or never sent."""

    mode: Literal["callback_fault"] = "callback_fault"
    fault: Literal["bad_signature", "stale_timestamp", "unknown_ref", "dropped"]

    def plan(self) -> CallbackPlan:
        return CallbackPlan(fault=self.fault)


class CorruptJson(_Behavior):
    """A 2xx status with a body that is not what it should be."""

    mode: Literal["corrupt_json"] = "corrupt_json"
    how: Literal["truncated", "invalid_utf8", "wrong_type", "html", "extra_data", "nan", "empty"] = "truncated"
    applied: bool = True


class SlowBody(_Behavior):
    """The whole answer, one byte at a time."""

    mode: Literal["slow_body"] = "slow_body"
    byte_interval_ms: int = Field(default=10, ge=0, le=60_000)


class StaleList(_Behavior):
    """The listing and the look-up by reference show what was `lag_ms` ago."""

    mode: Literal["stale_list"] = "stale_list"
    lag_ms: int = Field(default=1_000, ge=0, le=DAY_MS)

    def ops(self) -> tuple[Op, ...]:
        return ("list", "find")


class ResetSync(_Behavior):
    """Every sync token given out so far expires; a listing that came with one gets 410."""

    mode: Literal["reset_sync"] = "reset_sync"

    def ops(self) -> tuple[Op, ...]:
        return ("list",)


class StuckLocked(_Behavior):
    """423 for every matching call, whatever `times` says, until reset."""

    mode: Literal["stuck_locked"] = "stuck_locked"


class SlotConflict(_Behavior):
    """409: somebody else holds the slot."""

    mode: Literal["slot_conflict"] = "slot_conflict"

    def ops(self) -> tuple[Op, ...]:
        return ("create", "reschedule")


class Reject(_Behavior):
    """Refused for good, not applied."""

    mode: Literal["reject"] = "reject"
    status: int = Field(default=422, ge=400, le=499)
    code: str = Field(default="rejected", pattern=r"^[a-z0-9_]{1,64}$")


Behavior = Annotated[
    Immediate
    | Pending
    | Delayed
    | FailThenSucceed
    | Timeout
    | LostResponse
    | RateLimited
    | DuplicateCallbacks
    | OutOfOrderCallbacks
    | EarlyCallback
    | CallbackFault
    | CorruptJson
    | SlowBody
    | StaleList
    | ResetSync
    | StuckLocked
    | SlotConflict
    | Reject,
    Field(discriminator="mode"),
]


def as_pending(behavior: Behavior) -> Behavior:
    """On a create, the callback behaviours are ways of being pending."""
    if isinstance(behavior, _CallbackBehavior):
        return Pending(settle_ms=behavior.settle_ms, final=behavior.final, callbacks=behavior.plan())
    return behavior


def plan_of(behavior: Behavior | None) -> CallbackPlan | None:
    """The callbacks that a behaviour asks for; None: it does not speak of them."""
    return behavior.plan() if isinstance(behavior, _CallbackBehavior) else None
