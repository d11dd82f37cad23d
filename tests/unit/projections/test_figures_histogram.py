"""Buckets of durations: quantiles within the error that is promised, and sums that do not care for the order."""

from collections import Counter
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.histogram import ERROR_MAX, OCTAVES_MS, PER_OCTAVE, Latency, bucket_of, latency

MICROSECONDS = st.integers(min_value=1, max_value=10**13)


def told(durations_us: list[int]) -> Latency:
    return latency(Counter(map(bucket_of, durations_us)), sum(durations_us))


@given(MICROSECONDS)
def test_a_bucket_holds_what_lies_between_its_borders(us: int) -> None:
    bucket = bucket_of(us)
    assert 2 ** ((bucket - 1) / PER_OCTAVE) * (1 - 1e-12) <= us / 1_000 <= 2 ** (bucket / PER_OCTAVE) * (1 + 1e-12)


@given(st.integers(min_value=0, max_value=30))
def test_a_power_of_two_is_the_last_of_its_bucket(octave: int) -> None:
    us = 1_000 * 2**octave
    assert bucket_of(us) == PER_OCTAVE * octave
    assert bucket_of(us + 1) == PER_OCTAVE * octave + 1


@given(st.lists(MICROSECONDS, min_size=1, max_size=300))
def test_quantiles_are_within_the_error_of_the_nearest_rank(durations: list[int]) -> None:
    found, exact = told(durations), sorted(durations)
    for percent, ms in ((50, found.p50_ms), (95, found.p95_ms), (99, found.p99_ms)):
        # Four digits are shown: that is half a thousandth more.
        assert ms == pytest.approx(exact[ceil(len(exact) * percent / 100) - 1] / 1_000, rel=ERROR_MAX + 0.0006)


@pytest.mark.parametrize("seed", range(3))
def test_counts_up_to_a_power_of_two_are_exact(seed: int) -> None:
    print(f"seed {seed}")
    rng = Random(seed)
    durations = [round(1_000 * rng.lognormvariate(3, 2)) + 1 for _ in range(5_000)] + [1_000 * ms for ms in OCTAVES_MS]
    found = told(durations)
    assert found.at_most == tuple((ms, sum(us <= 1_000 * ms for us in durations)) for ms in OCTAVES_MS)
    assert (found.count, found.sum_ms) == (len(durations), sum(durations) / 1_000)


def test_control_buckets_twice_as_wide_break_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [1_000 + 7 * n for n in range(1_000)]
    monkeypatch.setattr("projections.histogram._BORDERS", [2 ** (2 * step / PER_OCTAVE - 1) for step in range(16)])
    exact, found = durations[499] / 1_000, told(durations).p50_ms
    assert found is not None
    assert abs(found / exact - 1) > ERROR_MAX + 0.0006


def test_what_never_happened_took_no_time() -> None:
    assert told([]) == Latency()
