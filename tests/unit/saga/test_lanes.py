"""Lanes: limits on concurrency and rate, for a target and for each tenant; one broken target delays nobody else."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.provider import Confirmed, Unknown
from saga.breaker import BreakerPolicy
from saga.inputs import Hold
from saga.lanes import LANES_MAX, Lanes, LimitPolicy, lane_key

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
BAD = Unknown(reason="timeout")


def seconds(count: float) -> datetime:
    return NOON + timedelta(seconds=count)


def lanes(**policy: object) -> Lanes:
    return Lanes({"*": LimitPolicy.model_validate(policy)})


def test_a_lane_is_a_target_and_a_tenant() -> None:
    assert lane_key("main", "acme") == "main/acme"
    assert lane_key("", "acme") == ""


class TestConcurrency:
    def test_a_target_takes_so_many_and_the_next_waits_without_a_time(self) -> None:
        some = lanes(concurrency=2)
        for tenant in ("a", "b"):
            assert some.hold("main", tenant, NOON) is None
            some.take("main", tenant, NOON)
        assert some.hold("main", "c", NOON) == Hold("busy")
        some.give_back("main", "a", NOON, Confirmed())
        assert some.hold("main", "c", NOON) is None

    def test_a_tenant_takes_no_more_than_its_share(self) -> None:
        some = lanes(concurrency=9, tenant_concurrency=1)
        some.take("main", "a", NOON)
        assert some.hold("main", "a", NOON) == Hold("busy")
        assert some.hold("main", "b", NOON) is None

    def test_a_call_that_never_left_is_given_back(self) -> None:
        some = lanes(concurrency=1)
        some.take("main", "a", NOON)
        some.give_back("main", "a", NOON, None)
        assert some.hold("main", "a", NOON) is None


class TestBreaker:
    def test_a_broken_target_delays_nobody_else(self) -> None:
        some = lanes(breaker=BreakerPolicy(failures_max=1))
        some.take("main", "a", NOON)
        some.give_back("main", "a", NOON, BAD)
        assert some.hold("main", "b", NOON) == Hold("circuit_open", seconds(5))
        assert some.hold("notify", "b", NOON) is None
        assert some.breakers()["main"].opened == 1

    def test_a_probe_that_never_left_frees_the_way(self) -> None:
        some = lanes(breaker=BreakerPolicy(failures_max=1))
        some.take("main", "a", NOON)
        some.give_back("main", "a", NOON, BAD)
        some.take("main", "a", seconds(5))
        assert some.hold("main", "a", seconds(5)) == Hold("busy")
        some.give_back("main", "a", seconds(5), None)
        assert some.hold("main", "a", seconds(5)) is None


class TestRate:
    def test_a_burst_passes_then_one_at_a_time(self) -> None:
        some = lanes(rate=10, burst=2)
        for _ in range(2):
            assert some.hold("main", "a", NOON) is None
            some.take("main", "a", NOON)
        assert some.hold("main", "a", NOON) == Hold("busy", seconds(0.1))
        assert some.hold("main", "a", seconds(0.1)) is None

    @given(
        st.floats(0.5, 500),
        st.integers(1, 20),
        st.lists(st.floats(0, 0.5), min_size=1, max_size=100),
    )
    def test_never_more_than_the_rate_and_one_burst(self, rate: float, burst: int, gaps: list[float]) -> None:
        some, now, passed = lanes(rate=rate, burst=burst), NOON, 0
        for gap in gaps:
            now += timedelta(seconds=gap)
            if some.hold("main", "a", now) is None:
                some.take("main", "a", now)
                some.give_back("main", "a", now, Confirmed())
                passed += 1
        assert passed <= burst + (now - NOON).total_seconds() * rate + 1

    @given(st.floats(0.5, 500), st.integers(1, 20))
    def test_when_it_says_when_it_means_it(self, rate: float, burst: int) -> None:
        some = lanes(rate=rate, burst=burst)
        for _ in range(burst):
            some.take("main", "a", NOON)
        held = some.hold("main", "a", NOON)
        assert held is not None
        assert held.until is not None
        assert some.hold("main", "a", held.until) is None


class TestWhoWaits:
    def test_lanes_that_were_waited_for_are_closed_until_they_open(self) -> None:
        some = lanes(concurrency=1)
        some.take("main", "a", NOON)
        assert some.closed(NOON) == ()
        assert not some.waited
        some.hold("main", "b", NOON)
        assert some.waited
        assert some.closed(NOON) == ("main/b",)
        some.give_back("main", "a", NOON, Confirmed())
        assert some.closed(NOON) == ()

    def test_the_next_opening_is_known_where_time_alone_opens(self) -> None:
        some = lanes(breaker=BreakerPolicy(failures_max=1))
        some.take("main", "a", NOON)
        some.give_back("main", "a", NOON, BAD)
        some.hold("main", "a", NOON)
        assert some.reopens_at(NOON) == seconds(5)
        assert some.reopens_at(seconds(5)) is None

    def test_those_who_wait_are_remembered_within_bounds(self) -> None:
        some = lanes(concurrency=1)
        some.take("main", "a", NOON)
        for number in range(LANES_MAX + 10):
            some.hold("main", f"t{number}", NOON)
        assert len(some.closed(NOON)) == LANES_MAX


def test_a_target_may_have_a_policy_of_its_own() -> None:
    some = Lanes({"*": LimitPolicy(concurrency=1), "notify": LimitPolicy(concurrency=5)})
    for target in ("main", "notify"):
        some.take(target, "a", NOON)
    assert some.hold("main", "b", NOON) == Hold("busy")
    assert some.hold("notify", "b", NOON) is None


@given(st.lists(st.tuples(st.sampled_from(["main", "notify"]), st.sampled_from("ab"), st.booleans()), max_size=60))
def test_what_is_taken_and_given_back_leaves_nothing(course: list[tuple[str, str, bool]]) -> None:
    some, out = lanes(concurrency=3, tenant_concurrency=2), []
    for target, tenant, takes in course:
        if takes and some.hold(target, tenant, NOON) is None:
            some.take(target, tenant, NOON)
            out.append((target, tenant))
        elif not takes and out:
            some.give_back(*out.pop(), NOON, Confirmed())
    assert max((some.target(target).running for target in ("main", "notify")), default=0) <= 3
    for target, tenant in out:
        some.give_back(target, tenant, NOON, Confirmed())
    assert all(some.target(target).running == 0 for target in ("main", "notify"))
    assert some.closed(NOON) == ()
