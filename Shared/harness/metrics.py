"""The figures of both systems from what came of the cases. Pure; the same rules for both."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from appointments.cases import Case, Expected, Result
from domain.lifecycle import State
from Shared.harness.models import (
    Assertions,
    CaseLatency,
    Latency,
    LegacyResult,
    Side,
    Spread,
    Suite,
)

Outcome = LegacyResult | Result


def side(
    cases: list[Case], expected: dict[str, Expected], results: Sequence[Outcome], suite: Suite, latency: Latency | None
) -> Side:
    """The figures of one system."""
    passed = sum(result.verdict == "passed" for result in results)
    over = [result.live_bookings - expected[result.id].live_bookings for result in results]
    bookings = [result for result in results if expected[result.id].state is State.CONFIRMED]
    return Side(
        suite=suite,
        total=len(results),
        passed=passed,
        failed=len(results) - passed,
        case_pass_rate=_rate(passed, len(results)),
        booking_success_rate=_rate(sum(end_right(result, expected[result.id]) for result in bookings), len(bookings))
        if bookings
        else None,
        attempts=_spread([result.attempts for result in results]),
        retries=_spread([result.retries for result in results]),
        latency=latency,
        breaker_opened=sum(result.breaker_opened for result in results),
        compensations=sum(result.compensated for result in results),
        idempotency=_idempotency(cases, expected, results),
        unwanted_bookings=sum(max(0, more) for more in over),
        missing_bookings=sum(max(0, -more) for more in over),
        told=dict(sorted(Counter(word for result in results for word in told(result)).items())),
    )


def told(result: Outcome) -> list[str]:
    """What the user was told: by A at each click; by B the end of the appointment and each refusal."""
    if isinstance(result, LegacyResult):
        return [call.told for call in result.calls]
    ended = (
        [] if result.state is State.INIT else [f"{result.state} ({result.reason})" if result.reason else result.state]
    )
    return [*ended, *(f"refused ({refusal})" for refusal in result.refusals)]


def end_right(result: Outcome, expected: Expected) -> bool:
    """Whether the end that was told, and what is at the provider, are right."""
    if isinstance(result, LegacyResult):
        return result.end_right
    return (result.state, result.reason, result.live_bookings) == (
        expected.state,
        expected.reason,
        expected.live_bookings,
    )


def percentile(samples: Sequence[int], percent: int) -> int:
    """By nearest rank: the smallest sample that `percent` of all samples do not exceed."""
    return sorted(samples)[max(0, math.ceil(percent / 100 * len(samples)) - 1)]


def latency(samples: Mapping[str, list[int]], differing: Mapping[str, int]) -> Latency | None:
    """Over all samples, and for each case; None where there are none."""
    together = [one for of_case in samples.values() for one in of_case]
    if not together:
        return None
    cases = {id: CaseLatency(**_percentiles(of_case), differing=differing[id]) for id, of_case in samples.items()}
    return Latency(**_percentiles(together), cases=cases)


def _percentiles(samples: list[int]) -> dict[str, int]:
    return {f"p{percent}": percentile(samples, percent) for percent in (50, 95, 99)} | {"samples": len(samples)}


def _idempotency(cases: list[Case], expected: dict[str, Expected], results: Sequence[Outcome]) -> Assertions:
    """Two assertions for each case in which a key comes twice."""
    of_case = {result.id: result for result in results}
    held = []
    for case in cases:
        if len({send.key for send in case.commands}) < len(case.commands):
            result, want = of_case[case.id], expected[case.id]
            held.append(result.live_bookings == want.live_bookings)
            held.append((result.idempotent_hits, result.refusals) == (want.idempotent_hits, want.refusals))
    return Assertions(passed=sum(held), total=len(held))


def _spread(counts: list[int]) -> Spread:
    return Spread(avg=_rate(sum(counts), len(counts)), max=max(counts))


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4)
