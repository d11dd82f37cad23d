"""Repeats the fast cases, A and B in turn, so that whatever else the machine does meets both alike."""

from collections import Counter, defaultdict
from collections.abc import Callable

from appointments.cases import Case, Result, compare, run_case
from Shared.harness.legacy_cases import play
from Shared.harness.metrics import latency
from Shared.harness.models import Given, Latency, LegacyResult

FAST_MS = 300
"""Longest duration of a case, on either side, that is worth repeating."""


def fast(cases: list[Case], legacy: list[LegacyResult], ours: list[Result]) -> list[Case]:
    """The cases of one booking that both systems ended quickly: the others measure waiting times that were set."""
    slowest = {a.id: max(a.duration_ms, b.duration_ms) for a, b in zip(legacy, ours, strict=True)}
    return [case for case in cases if [s.command for s in case.commands] == ["book"] and slowest[case.id] <= FAST_MS]


async def repeat(
    cases: list[Case], given: Given, times: int, told: Callable[[str], None]
) -> tuple[Latency | None, Latency | None]:
    """The latencies of A and of B. A repetition that ends otherwise than it should is counted beside its case."""
    samples_a, samples_b = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    differing_a, differing_b = Counter[str](), Counter[str]()
    for case in cases if times else ():
        for _ in range(times):
            a = await play(case, given.expected[case.id], given.legacy[case.id])
            b = compare(await run_case(case, given.data.settings), given.expected[case.id])
            samples_a[case.id].append(a.duration_ms)
            samples_b[case.id].append(b.duration_ms)
            differing_a[case.id] += bool(a.surprises)
            differing_b[case.id] += bool(b.differences)
        told(f"{case.id} {case.title}: {times} times each")
    return latency(samples_a, differing_a), latency(samples_b, differing_b)
