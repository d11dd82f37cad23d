"""One suite that every adapter of the provider port passes, to be run against an adapter of one's own as well.

    for result in await run(provider, "main", run_id="2027-03-01a"):
        print(result)

It books, moves and cancels in the calendar that it is given, and leaves nothing live behind. What a provider does not
promise (`Capabilities`) is skipped, with the reason. The checks themselves are in `conformance_checks`.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from domain.errors import ProviderUnavailable
from domain.provider import Provider, SyncExpired
from providers.conformance_checks import CHECKS
from providers.conformance_trial import Broken, Skipped, Trial

START = datetime(2027, 6, 1, 8, tzinfo=UTC)


@dataclass(frozen=True)
class CheckResult:
    """What one check found; `detail` is the reason why it failed or was skipped."""

    name: str
    state: Literal["passed", "failed", "skipped"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}" + (f": {self.detail}" if self.detail else "")


class Conformance:
    """The suite, bound to one provider and one calendar.

    `run_id` (letters and digits, at most 12) makes the client references of this run its own: give each run against
    the same calendar another. `unreachable` is the same adapter pointed at a port where nobody listens, `silent` at
    one that takes requests and never answers; both are closed after their check. Without them it is skipped.
    """

    names = tuple(CHECKS)

    def __init__(
        self,
        provider: Provider,
        calendar: str,
        *,
        run_id: str = "run",
        start: datetime = START,
        timeout_ms: int = 10_000,
        unreachable: Provider | None = None,
        silent: Provider | None = None,
    ) -> None:
        self._trial = Trial(provider, calendar, run_id, start, timeout_ms, unreachable, silent)

    async def check(self, name: str) -> CheckResult:
        """Run one check by its name, then cancel what it booked, whether or not it passed."""
        trial = self._trial.begin(self.names.index(name))
        result = await self._result(name, CHECKS[name](trial))
        cleared = await self._result(name, trial.clear())
        return cleared if result.state == "passed" else result

    async def _result(self, name: str, work: Awaitable[None]) -> CheckResult:
        try:
            await work
        except Skipped as reason:
            return CheckResult(name, "skipped", str(reason))
        except Broken as reason:
            return CheckResult(name, "failed", str(reason))
        except (SyncExpired, ProviderUnavailable) as fault:
            return CheckResult(name, "failed", f"the calendar could not be listed: {fault!r}")
        except Exception as fault:
            return CheckResult(name, "failed", f"an exception left the adapter: {fault!r}")
        return CheckResult(name, "passed")


async def run(
    provider: Provider,
    calendar: str,
    *,
    run_id: str = "run",
    unreachable: Provider | None = None,
    silent: Provider | None = None,
) -> tuple[CheckResult, ...]:
    """Run every check in order, and give all results: see `Conformance` for the arguments."""
    suite = Conformance(provider, calendar, run_id=run_id, unreachable=unreachable, silent=silent)
    return tuple([await suite.check(name) for name in suite.names])
