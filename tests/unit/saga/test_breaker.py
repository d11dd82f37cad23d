"""The breaker: opens after failures in a row, lets one probe through, and judges only what says something of health."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.provider import (
    BookingStatus,
    Confirmed,
    Found,
    Missing,
    Outcome,
    Pending,
    ProviderBooking,
    Rejected,
    Retryable,
    Unknown,
)
from saga.breaker import Breaker, BreakerPolicy, Sign, admitted, heard, sign, verdict
from saga.inputs import Hold

pytestmark = pytest.mark.evidence(
    target="breaker",
    answers=("R2.5",),
    given="a breaker",
    when="outcomes come in",
    then="it opens after failures in a row, and lets one probe through",
    seen_in="state of the breaker",
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = BreakerPolicy(failures_max=3, open_ms=5_000)
OPEN_FOR = timedelta(milliseconds=POLICY.open_ms)
SEEN = ProviderBooking(provider_ref="bk-1", client_ref="c", status=BookingStatus.PENDING)
BAD = Unknown(reason="timeout")
GOOD = Confirmed()
NEITHER = Retryable(reason="429", throttled=True)


def after(*outcomes: Outcome, breaker: Breaker | None = None, now: datetime = NOON) -> Breaker:
    at = breaker or Breaker()
    for outcome in outcomes:
        at = heard(at, outcome, now, POLICY)
    return at


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Confirmed(), Sign.GOOD),
        (Pending(booking=SEEN), Sign.GOOD),
        (Found(booking=SEEN), Sign.GOOD),
        (Missing(), Sign.GOOD),
        (Rejected(reason="full"), Sign.GOOD),
        (Retryable(reason="refused"), Sign.BAD),
        (Unknown(reason="timeout"), Sign.BAD),
        (Retryable(reason="429", throttled=True), Sign.NEITHER),
        (Unknown(reason="409", in_flight=True), Sign.NEITHER),
    ],
)
def test_what_an_outcome_says_of_health(outcome: Outcome, expected: Sign) -> None:
    assert sign(outcome) is expected


def test_it_opens_after_three_failures_in_a_row() -> None:
    assert verdict(after(BAD, BAD), NOON) is None
    opened = after(BAD, BAD, BAD)
    assert verdict(opened, NOON) == Hold("circuit_open", NOON + OPEN_FOR)
    assert opened.opened == 1


def test_a_success_between_starts_the_count_anew() -> None:
    assert verdict(after(BAD, BAD, GOOD, BAD, BAD), NOON) is None


def test_throttling_neither_counts_nor_clears() -> None:
    assert verdict(after(*[NEITHER] * 9), NOON) is None
    assert verdict(after(BAD, BAD, NEITHER, BAD), NOON) is not None


class TestHalfOpen:
    half = after(BAD, BAD, BAD)
    later = NOON + OPEN_FOR

    def test_until_its_time_nothing_passes(self) -> None:
        assert verdict(self.half, self.later - timedelta(microseconds=1)) is not None

    def test_then_one_probe_passes_and_the_others_wait_for_it(self) -> None:
        assert verdict(self.half, self.later) is None
        assert verdict(admitted(self.half), self.later) == Hold("busy")

    def test_a_good_probe_closes_it(self) -> None:
        closed = after(GOOD, breaker=admitted(self.half), now=self.later)
        assert verdict(closed, self.later) is None
        assert closed.failures == 0

    def test_a_bad_probe_opens_it_again_at_once(self) -> None:
        again = after(BAD, breaker=admitted(self.half), now=self.later)
        assert verdict(again, self.later) == Hold("circuit_open", self.later + OPEN_FOR)
        assert again.opened == 2

    def test_a_probe_that_says_nothing_leaves_room_for_another(self) -> None:
        assert verdict(after(NEITHER, breaker=admitted(self.half), now=self.later), self.later) is None

    @pytest.mark.parametrize("outcome", [GOOD, BAD])
    def test_answers_to_calls_from_before_do_not_decide(self, outcome: Outcome) -> None:
        assert after(outcome, breaker=self.half, now=NOON + timedelta(seconds=1)) == self.half


@settings(suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "good", "bad", "neither"]), st.integers(0, 6_000)), min_size=1, max_size=60
    )
)
def test_whatever_happens_it_lets_somebody_through_in_the_end(course: list[tuple[str, int]]) -> None:
    """No course of answers leaves a breaker shut for good, and in half-open never more than one probe is out."""
    breaker, now, running = Breaker(), NOON, 0
    answers = {"good": GOOD, "bad": BAD, "neither": NEITHER}
    for happens, wait_ms in course:
        now += timedelta(milliseconds=wait_ms)
        if happens == "call":
            if verdict(breaker, now) is None:
                assert not (breaker.open_until is not None and breaker.probing)
                breaker, running = admitted(breaker), running + 1
        elif running:
            breaker, running = heard(breaker, answers[happens], now, POLICY), running - 1
    while running:
        breaker, running = heard(breaker, NEITHER, now, POLICY), running - 1
    assert verdict(breaker, now + OPEN_FOR) is None
