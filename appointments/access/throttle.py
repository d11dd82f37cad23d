"""How fast a tenant may ask: GCRA (ATM Forum TM 4.0), as pure code. Time is an argument."""

from datetime import datetime, timedelta

TENANTS_MAX = 100_000
"""Tenants that are remembered; of those that have not asked for a while nothing has to be."""


class Throttle:
    """`rate` requests a second for each tenant, `burst` of them at once. `rate` None: as fast as it goes."""

    def __init__(self, rate: float | None, burst: int) -> None:
        self._every = timedelta(seconds=1 / rate) if rate else None
        self._burst = burst
        self._due: dict[str, datetime] = {}

    def wait_s(self, tenant: str, now: datetime) -> float | None:
        """None: go on, and it counts. Else how many seconds to wait; that does not count."""
        if self._every is None:
            return None
        due_at = max(self._due.get(tenant, now), now)
        allowed_at = due_at - self._every * (self._burst - 1)
        if now < allowed_at:
            return (allowed_at - now).total_seconds()
        self._due[tenant] = due_at + self._every
        if len(self._due) > TENANTS_MAX:
            self._due = {name: at for name, at in self._due.items() if at > now}
        return None
