"""How fast a tenant may ask, or an address may fail: GCRA (ATM Forum TM 4.0), as pure code. Time is an argument."""

from collections import OrderedDict
from datetime import datetime, timedelta

REMEMBERED_MAX = 100_000
"""Who was let through last; of those that have not asked for a while nothing has to be remembered."""


class Throttle:
    """`rate` a second for each of them, `burst` of these at once. `rate` None: as fast as it goes."""

    def __init__(self, rate: float | None, burst: int) -> None:
        self._every = timedelta(seconds=1 / rate) if rate else None
        self._burst = burst
        self._due: OrderedDict[str, datetime] = OrderedDict()

    def wait_s(self, whose: str, now: datetime) -> float | None:
        """None: go on, and it counts. Else how many seconds to wait; that does not count."""
        if self._every is None:
            return None
        due_at = max(self._due.get(whose, now), now)
        allowed_at = due_at - self._every * (self._burst - 1)
        if now < allowed_at:
            return (allowed_at - now).total_seconds()
        self._due[whose] = due_at + self._every
        self._due.move_to_end(whose)
        if len(self._due) > REMEMBERED_MAX:
            self._due.popitem(last=False)
        return None
