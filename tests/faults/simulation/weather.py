"""What goes wrong, and when: everything here is drawn from the seed."""

from dataclasses import dataclass, field
from random import Random

FAULTS_END_S = 30.0
"""From then on everybody answers, and nobody crashes."""

WRITE_FAULTS = (
    "slow",
    "timeout_lost",
    "timeout_applied",
    "timeout_late",
    "timeout_late",
    "lost_response",
    "reset_late",
    "reset_late",
    "unavailable",
    "unavailable_applied",
    "refused_connection",
    "throttled",
    "locked",
    "raises",
    "rejected",
    "overrun",
)
READ_FAULTS = ("slow", "timeout_lost", "unavailable", "refused_connection", "throttled", "raises", "overrun")
OUTAGES = (
    "unavailable",
    "refused_connection",
    "timeout_lost",
    "locked",
    "throttled",
    "timeout_applied",
    "timeout_late",
)


@dataclass(frozen=True)
class Outage:
    """A target answers everything in one bad way from `begin` to `end` (seconds)."""

    begin: float
    end: float
    fault: str


@dataclass
class Weather:
    """The weather at one target."""

    rng: Random
    rate: float
    outages: tuple[Outage, ...]
    ends_s: float = FAULTS_END_S
    rejects: bool = True
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def drawn(cls, rng: Random, rates: tuple[float, ...] = (0.0, 0.1, 0.3, 0.6)) -> "Weather":
        """A target's weather: how often it fails, and up to two outages of seconds to half a minute."""
        outages = []
        for _ in range(rng.choice((0, 0, 1, 2))):
            begin = rng.uniform(0, 20)
            outages.append(Outage(begin, min(begin + rng.choice((1, 4, 15)), FAULTS_END_S), rng.choice(OUTAGES)))
        return cls(Random(rng.random()), rng.choice(rates), tuple(outages))

    def fault(self, now_s: float, write: bool) -> str:
        """What happens to a call that is sent now; "fine" when nothing does."""
        kind = self._draw(now_s, write)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return kind

    def _draw(self, now_s: float, write: bool) -> str:
        if now_s >= self.ends_s:
            return "fine"
        for outage in self.outages:
            if outage.begin <= now_s < outage.end:
                return outage.fault
        if self.rng.random() >= self.rate:
            return "fine"
        kind = self.rng.choice(WRITE_FAULTS if write else READ_FAULTS)
        if kind == "rejected" and self.rng.random() < 0.5:
            return "fine"
        return kind


@dataclass
class StoreWeather:
    """What the store does to an append or a read."""

    rng: Random
    rate: float
    outages: tuple[tuple[float, float], ...]
    crash_rate: float
    """How often the process dies around a commit; and as often while a call is out."""
    ends_s: float = FAULTS_END_S

    @classmethod
    def drawn(cls, rng: Random) -> "StoreWeather":
        """Mostly a good store; sometimes one that is full for seconds, and processes that die around a commit."""
        outages = []
        if rng.random() < 0.2:
            begin = rng.uniform(0, 25)
            outages.append((begin, min(begin + rng.choice((0.5, 3, 8)), FAULTS_END_S)))
        rate = rng.choice((0.0, 0.0, 0.02, 0.1))
        return cls(Random(rng.random()), rate, tuple(outages), rng.choice((0.0, 0.01, 0.03, 0.08)))

    def latency_s(self, now_s: float) -> float:
        """How long an append takes to be durable; never nothing."""
        if now_s < self.ends_s and self.rng.random() < self.rate:
            return self.rng.uniform(0.02, 0.4)
        return self.rng.uniform(0.0002, 0.004)

    def append_fault(self, now_s: float) -> str:
        """One of "", "refused", "ambiguous", "crash_before", "crash_after"."""
        if now_s >= self.ends_s:
            return ""
        if any(begin <= now_s < end for begin, end in self.outages):
            return "refused"
        if self.rng.random() < self.rate:
            return self.rng.choice(("refused", "ambiguous"))
        if self.rng.random() < self.crash_rate:
            return self.rng.choice(("crash_before", "crash_after"))
        return ""

    def crash_after_call_s(self, now_s: float) -> float | None:
        """The process may die while a call is out: so long after it has left."""
        if now_s < self.ends_s - 1 and self.rng.random() < self.crash_rate:
            return self.rng.choice((0.0, 0.002, 0.03, 0.5)) * self.rng.random()
        return None

    def read_fails(self, now_s: float) -> bool:
        """Whether a read raises."""
        if now_s >= self.ends_s:
            return False
        if any(begin <= now_s < end for begin, end in self.outages):
            return self.rng.random() < 0.3
        return self.rate > 0 and self.rng.random() < self.rate / 2
