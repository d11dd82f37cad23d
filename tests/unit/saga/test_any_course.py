"""Whatever comes in, in whatever order: a turn refuses commands and nothing else, and nobody is forgotten."""

from datetime import timedelta
from typing import Any

from given_when_then import BOOK, MOVE, NEW_END, NEW_START, THREE, booking
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import World, plan_of

from domain.commands import Act, CancelAppointment, OperatorAction, PolicyOverride, Repair, ReportBooking, Request
from domain.provider import BookingStatus, Confirmed, Found, Missing, Pending, Rejected, Retryable, Unknown
from saga.inputs import Asked, CalledBack, Due

LANES = ("main", "bank", "notify")
STEPS = tuple(step.name for step in THREE.steps)


@st.composite
def bookings(draw: st.DrawFn) -> Any:
    start, end = draw(st.sampled_from([(None, None), (BOOK.start, BOOK.end), (NEW_START, NEW_END)]))
    ref = draw(st.sampled_from(["bk-1", "bk-2"]))
    status = draw(st.sampled_from(["pending", "accepted", "accepted", "rejected", "cancelled"]))
    return booking(status, draw(st.integers(0, 6)), ref, start, end)


waits = st.one_of(st.none(), st.sampled_from([0, 300, 5_000, 200_000]))
writes = st.one_of(
    st.builds(Confirmed, booking=st.one_of(st.none(), bookings()), replayed=st.booleans()),
    st.builds(Pending, booking=bookings(), poll_after_ms=waits),
    st.builds(Rejected, reason=st.just("no"), conflict=st.booleans()),
    st.builds(Retryable, reason=st.just("later"), retry_after_ms=waits, throttled=st.booleans()),
    st.builds(Unknown, reason=st.just("timeout"), in_flight=st.booleans(), retry_after_ms=waits),
)
reads = st.one_of(
    st.builds(Found, booking=bookings(), poll_after_ms=waits),
    st.just(Missing()),
    st.builds(Rejected, reason=st.just("no")),
    st.builds(Retryable, reason=st.just("later"), retry_after_ms=waits),
    st.builds(Unknown, reason=st.just("timeout")),
)
keys = st.sampled_from(["fresh", "fresh", "fresh", "key-1", "key-2"])


class Course(RuleBasedStateMachine):
    """Hypothesis chooses what happens next."""

    @initialize(
        resend=st.booleans(),
        lookup=st.booleans(),
        settle_ms=st.sampled_from([0, 2_000]),
        paid=st.sampled_from(["resend", "lookup", "neither"]),
        policy=st.one_of(st.none(), st.just(PolicyOverride(attempts_max=1, timeout_ms=200))),
    )
    def book(self, resend: bool, lookup: bool, settle_ms: int, paid: str, policy: PolicyOverride | None) -> None:
        self.world = World(plan_of(resend, lookup, settle_ms, paid))
        self.world.give(Asked(BOOK.model_copy(update={"policy": policy}), Request(key="key-0")))

    @rule(key=keys)
    def cancel(self, key: str) -> None:
        self.world.ask(CancelAppointment(), key)

    @rule(key=keys)
    def reschedule(self, key: str) -> None:
        self.world.ask(MOVE, key)

    @rule(
        key=keys,
        action=st.sampled_from(list(OperatorAction)),
        step=st.one_of(st.none(), st.none(), st.sampled_from(STEPS)),
    )
    def act(self, key: str, action: OperatorAction, step: str | None) -> None:
        self.world.ask(Act(action=action, reason="because", step=step), key)

    @rule(key=keys, seen=st.one_of(st.none(), bookings()), repair=st.sampled_from(list(Repair)))
    def report(self, key: str, seen: Any, repair: Repair) -> None:
        self.world.ask(ReportBooking(seen=seen, repair=repair), key)

    @precondition(lambda self: self.world.calls)
    @rule(outcome=writes, pick=st.integers(-2, -1))
    def call_ends(self, outcome: Any, pick: int) -> None:
        """Mostly the call in flight; now and then one that was given up before."""
        self.world.call_ends(outcome, pick)

    @precondition(lambda self: self.world.state.in_flight is not None)
    @rule(version=st.integers(1, 6))
    def call_succeeds(self, version: int) -> None:
        books = self.world.calls[-1].step == "calendar"
        self.world.call_ends(Confirmed(booking=booking(version=version) if books else None))

    @precondition(lambda self: self.world.reads)
    @rule(outcome=reads, pick=st.integers(-2, -1))
    def read_ends(self, outcome: Any, pick: int) -> None:
        self.world.read_ends(outcome, pick)

    @rule(
        webhook=st.sampled_from(["wh-1", "wh-2", "wh-3", "wh-4", "wh-5"]),
        status=st.sampled_from(list(BookingStatus)),
        newer=st.sampled_from([-1, 0, 1, 1, 2]),
        ref=st.sampled_from(["bk-1", "bk-1", "bk-9"]),
    )
    def called_back(self, webhook: str, status: BookingStatus, newer: int, ref: str) -> None:
        known = self.world.state.booking
        version = max(0, (known.version if known else 0) + newer)
        self.world.give(CalledBack(webhook, ref, status, version))

    @precondition(lambda self: self.world.last.wake is not None)
    @rule()
    def due(self) -> None:
        self.world.due()

    @precondition(lambda self: self.world.state.in_flight is not None)
    @rule()
    def crash(self) -> None:
        """The next process finds the call in flight, long before it would have timed out."""
        self.world.give(Due())

    @rule(wait_ms=st.sampled_from([1, 100, 700, 2_500, 15_000, 700_000]))
    def time_passes(self, wait_ms: int) -> None:
        self.world.now += timedelta(milliseconds=wait_ms)

    @rule(lane=st.sampled_from(LANES), held=st.sampled_from(["", "", "circuit_open", "busy"]))
    def gate(self, lane: str, held: str) -> None:
        self.world.holds[lane] = held


TestAnyCourse = Course.TestCase
TestAnyCourse.settings = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    database=None,
    suppress_health_check=list(HealthCheck),
)
