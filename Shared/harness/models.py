"""The shape of what the comparison reads and writes; `results_post.json` is `appointments.cases.Results`."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from appointments.cases import Expected, Strict, TestData

Told = Literal["booked", "error", "exception", "hung", "no_op", "unsupported"]
Wanted = Literal["booked", "error", "cancelled", "rescheduled"]


class Call(Strict):
    """One click on A: what the user was told, and the status that the provider answered where it did."""

    command: str
    told: Told
    status: int | None = None
    detail: str | None = None
    duration_ms: int
    """In A alone, without the start of its process; for a hung call the time after which it was stopped."""


class LegacyExpected(Strict):
    """What A is expected to do in a case: it must fail exactly so."""

    told: list[Told]
    live_bookings: int


class LegacyExpectedData(Strict):
    """`expected_prechange.json`."""

    cases: dict[str, LegacyExpected]


class Given(Strict):
    """The cases of a run, and what is expected of both systems."""

    data: TestData
    expected: dict[str, Expected]
    legacy: dict[str, LegacyExpected]


class LegacyResult(Strict):
    """What A did in a case. A keeps no state and knows no key: those fields are empty, and there to be compared."""

    id: str
    title: str
    phase: None = None
    state: None = None
    reason: None = None
    calls: list[Call]
    attempts: int
    retries: int = 0
    """Of the program; a user who clicks again is a call of their own."""
    provider_calls: dict[str, int]
    idempotent_hits: int = 0
    refusals: list[str] = Field(default_factory=list)
    compensated: bool
    live_bookings: int
    breaker_opened: int = 0
    told_booked: int
    told_too_early: bool
    """Told "booked" on a 202: the provider had not decided."""
    end_right: bool
    duration_ms: int
    verdict: Literal["passed", "failed"]
    differences: list[str]
    """From what must come of the case."""
    surprises: list[str]
    """From what A is expected to do."""


class Suite(Strict):
    """A run of a test suite."""

    tests: int
    failures: list[str]
    exit_code: int
    as_expected: bool


class LegacyTotals(Strict):
    """All cases of A together."""

    total: int
    passed: int
    failed: int


class LegacyResults(Strict):
    """`results/results_pre.json`."""

    generated_at: datetime
    suite: Suite
    totals: LegacyTotals
    cases: list[LegacyResult]


class Spread(Strict):
    """Average and greatest over the cases."""

    avg: float
    max: int


class Percentiles(Strict):
    """By nearest rank. Milliseconds."""

    p50: int
    p95: int
    p99: int
    samples: int


class CaseLatency(Percentiles):
    """Of one case. `differing`: repetitions that ended otherwise than the case did when it was judged."""

    differing: int


class Latency(Percentiles):
    """Of all repeated cases together, and of each; milliseconds."""

    cases: dict[str, CaseLatency]


class Assertions(Strict):
    """Of the cases in which a key comes twice: no second booking, and the repeat is answered from the first."""

    passed: int
    total: int


class Side(Strict):
    """The figures of one system."""

    suite: Suite
    total: int
    passed: int
    failed: int
    case_pass_rate: float
    booking_success_rate: float | None
    """Of the cases that must end confirmed, those that did, with the user told so; None: no such case was run."""
    attempts: Spread
    retries: Spread
    latency: Latency | None
    """None: no case was repeated."""
    breaker_opened: int
    compensations: int
    idempotency: Assertions
    unwanted_bookings: int
    """Live at the provider at the end, and not meant to be."""
    missing_bookings: int
    told: dict[str, int]
    """How often the user was told what: calls of A; ends and refusals of B."""


class Machine(Strict):
    """Where the figures were measured."""

    processor: str
    cores: int
    system: str
    python: str
    load_before: float | None
    """Load average over the minute before the run."""


class Metrics(Strict):
    """`results/aggregated_metrics.json`. `a`: the legacy system; `b`: this one."""

    generated_at: datetime
    commit: str
    machine: Machine
    repeats: int
    watchdog_s: float
    a: Side
    b: Side
    a_fails_as_expected: bool
    b_passes: bool
