"""Durations in buckets: what a million calls took, in a few rows that add up, with quantiles at most 1.1 % off.

Bucket `b` holds what took over 2^((b-1)/32) ms and up to 2^(b/32) ms, so every power of two is a border. The quantile
is the geometric middle of the bucket that holds the nearest rank (the scheme of DDSketch, Masson et al., 2019).
"""

from bisect import bisect_left
from collections.abc import Mapping
from math import ceil, frexp

from domain.provider import Value

PER_OCTAVE = 32
"""Buckets between a power of two and the next."""
ERROR_MAX = 2 ** (1 / (2 * PER_OCTAVE)) - 1
"""How far a quantile may be from the exact one, as a share of it."""
OCTAVES_MS = tuple(2**octave for octave in range(21))
"""The borders of `Latency.at_most`: 1 ms to 17 minutes."""

_BORDERS = [2 ** (step / PER_OCTAVE - 1) for step in range(PER_OCTAVE)]


class Latency(Value):
    """How long something took, over all of its `count` times. Milliseconds; None when it never happened."""

    count: int = 0
    sum_ms: float = 0.0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    at_most: tuple[tuple[int, int], ...] = ()
    """(milliseconds, how often it took no longer), for each power of two of `OCTAVES_MS`."""


def bucket_of(microseconds: int) -> int:
    """The bucket of a duration, of 1 or more."""
    # Exact on every machine: a float holds every such quotient's place between two borders.
    mantissa, exponent = frexp(microseconds / 1_000)
    return PER_OCTAVE * (exponent - 1) + bisect_left(_BORDERS, mantissa)


def latency(buckets: Mapping[int, int], total_us: int) -> Latency:
    """What the counts by bucket, and the sum of all durations, say."""
    count = sum(buckets.values())
    if not count:
        return Latency()
    in_order = sorted(buckets.items())
    p50, p95, p99 = (_quantile(in_order, ceil(count * percent / 100)) for percent in (50, 95, 99))
    return Latency(
        count=count,
        sum_ms=total_us / 1_000,
        mean_ms=round(total_us / 1_000 / count, 3),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        at_most=tuple((ms, _at_most(in_order, PER_OCTAVE * octave)) for octave, ms in enumerate(OCTAVES_MS)),
    )


def _quantile(in_order: list[tuple[int, int]], rank: int) -> float:
    seen = 0
    for bucket, count in in_order:
        seen += count
        if seen >= rank:
            return float(f"{2 ** ((bucket - 0.5) / PER_OCTAVE):.4g}")
    raise AssertionError(rank)


def _at_most(in_order: list[tuple[int, int]], border: int) -> int:
    return sum(count for bucket, count in in_order if bucket <= border)
