"""How often something took how long, in fixed buckets: added to at every turn, so it costs next to nothing."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

BORDERS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Timings:
    """Counts by bucket: what took at most so many seconds, the last one without a border."""

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BORDERS_S) + 1)
        self.sum_s = 0.0

    @classmethod
    def of_all(cls, each: "Iterable[Timings]") -> "Timings":
        """All of these as one."""
        total = cls()
        for one in each:
            total._counts = [n + more for n, more in zip(total._counts, one._counts, strict=True)]
            total.sum_s += one.sum_s
        return total

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(BORDERS_S, seconds)] += 1
        self.sum_s += seconds

    def at_most(self) -> list[tuple[str, float]]:
        """(border in seconds, how many took no longer), as a Prometheus histogram has its buckets."""
        return list(zip((*map(str, BORDERS_S), "+Inf"), map(float, accumulate(self._counts)), strict=True))
