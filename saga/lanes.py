"""Lanes: who may call whom now. One lane for a target and a tenant; breaker and limits decide. Holds state, no IO."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import Field

from domain.provider import Outcome, Value
from saga.breaker import Breaker, BreakerPolicy, admitted, heard, verdict
from saga.inputs import Hold

LANES_MAX = 10_000


class LimitPolicy(Value):
    """How much at once, and how fast. `rate` is calls a second to a target (None: as fast as it goes)."""

    concurrency: int = Field(default=512, ge=1, le=10_000)
    tenant_concurrency: int = Field(default=512, ge=1, le=10_000)
    rate: float | None = Field(default=None, gt=0, le=100_000)
    burst: int = Field(default=10, ge=1, le=10_000)
    breaker: BreakerPolicy = Field(default_factory=BreakerPolicy)


def place_at(theoretical_at: datetime, rate: float, burst: int) -> datetime:
    """From when on a call may leave, by GCRA (ATM Forum TM 4.0)."""
    return theoretical_at - timedelta(seconds=(burst - 1) / rate)


def next_place(theoretical_at: datetime | None, now: datetime, rate: float) -> datetime:
    """The theoretical time of the next call, when one leaves now."""
    return max(theoretical_at or now, now) + timedelta(seconds=1 / rate)


@dataclass(slots=True)
class Target:
    """One target: its breaker, how many calls run here, and when the next one is due."""

    policy: LimitPolicy
    breaker: Breaker = field(default_factory=Breaker)
    running: int = 0
    theoretical_at: datetime | None = None
    workers: int = 1
    """How many share its places."""

    @property
    def places(self) -> int:
        """How many more calls may run here at once."""
        return -(-self.policy.concurrency // self.workers) - self.running

    def hold(self, now: datetime) -> Hold | None:
        """Whether a call may leave now, as far as the whole target goes."""
        held = verdict(self.breaker, now)
        if held is not None:
            return held
        if self.places <= 0:
            return Hold("busy")
        if self.policy.rate is not None and self.theoretical_at is not None:
            allowed_at = place_at(self.theoretical_at, self.policy.rate, self.policy.burst)
            if now < allowed_at:
                return Hold("busy", allowed_at)
        return None

    def take(self, now: datetime) -> None:
        """A call leaves."""
        self.breaker = admitted(self.breaker)
        self.running += 1
        if self.policy.rate is not None:
            self.theoretical_at = next_place(self.theoretical_at, now, self.policy.rate)


def lane_key(target: str, tenant: str) -> str:
    """A lane's name in the open-work row; "" waits for nobody."""
    return f"{target}/{tenant}" if target else ""


class Lanes:
    """All lanes of one process."""

    def __init__(self, policies: dict[str, LimitPolicy] | None = None) -> None:
        self._policies = policies or {}
        self._targets: dict[str, Target] = {}
        self._running: dict[str, int] = {}
        self._waited: dict[str, tuple[str, str]] = {}
        self._workers = 1
        self._shut = False

    def target(self, name: str) -> Target:
        """A target's state; made when first asked for."""
        if name not in self._targets:
            policy = self._policies.get(name, self._policies.get("*", LimitPolicy()))
            self._targets[name] = Target(policy, workers=self._workers)
        return self._targets[name]

    def share_among(self, workers: int) -> None:
        """So many processes have these lanes together: each takes its share of the places."""
        self._workers = workers
        for target in self._targets.values():
            target.workers = workers

    def shut(self) -> None:
        """From now on no call leaves."""
        self._shut = True

    def hold(self, target: str, tenant: str, now: datetime) -> Hold | None:
        """Whether this tenant's call to this target may leave now."""
        aim = self.target(target)
        held = Hold("busy") if self._shut else aim.hold(now)
        if held is None and self.places(target, tenant) <= 0:
            held = Hold("busy")
        if held is not None:
            self.wait(target, tenant)
        return held

    def wait(self, target: str, tenant: str) -> None:
        """Somebody waits for a place of this tenant at this target."""
        if len(self._waited) < LANES_MAX:
            self._waited[lane_key(target, tenant)] = (target, tenant)

    def places(self, target: str, tenant: str) -> int:
        """How many more calls of this tenant to this target may run here at once, if the target has places."""
        share = -(-self.target(target).policy.tenant_concurrency // self._workers)
        return share - self._running.get(lane_key(target, tenant), 0)

    def elsewhere(self, _target: str, _now: datetime) -> Hold:
        """A call of a saga that another process runs: it is to leave from there."""
        return Hold("busy")

    def take(self, target: str, tenant: str, now: datetime) -> None:
        """A call leaves."""
        self.target(target).take(now)
        lane = lane_key(target, tenant)
        self._running[lane] = self._running.get(lane, 0) + 1

    def give_back(self, target: str, tenant: str, now: datetime, outcome: Outcome | None) -> None:
        """A call has ended; None when it never left."""
        aim, lane = self.target(target), lane_key(target, tenant)
        aim.running -= 1
        self._running[lane] -= 1
        if not self._running[lane]:
            del self._running[lane]
        if outcome is not None:
            aim.breaker = heard(aim.breaker, outcome, now, aim.policy.breaker)
        elif aim.breaker.probing:
            aim.breaker = Breaker(aim.breaker.failures, aim.breaker.open_until, opened=aim.breaker.opened)

    @property
    def waited(self) -> bool:
        """Whether somebody was told to wait for a lane."""
        return bool(self._waited)

    def closed(self, now: datetime) -> tuple[str, ...]:
        """Lanes that somebody waits for and that let nothing through now."""
        held = {lane: who for lane, who in self._waited.items() if self.hold(*who, now) is not None}
        self._waited = held
        return tuple(held)

    def reopens_at(self, now: datetime) -> datetime | None:
        """The next instant at which a closed lane opens by itself."""
        holds = (self.hold(target, tenant, now) for target, tenant in tuple(self._waited.values()))
        return min((held.until for held in holds if held is not None and held.until is not None), default=None)

    def breakers(self) -> dict[str, Breaker]:
        """Every target's breaker, for those who look."""
        return {name: target.breaker for name, target in self._targets.items()}
