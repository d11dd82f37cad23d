"""Lanes across workers: what all of them know together of a target, and what only one of them may have at a time.

While a target is well and no rate is set, nobody asks the store: a record is changed by failures and by what ends them,
read at every beat, and claimed from where one probe, or the next place by rate, is for one worker alone.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from domain.errors import StoreUnavailable
from domain.provider import Outcome
from saga.breaker import Breaker, Sign, heard, sign, verdict
from saga.clock import Clock
from saga.lanes import Lanes, next_place, place_at
from store.port import Lane, Store

TRIES_MAX = 50
"""Of a change, when other workers are quicker every time."""


class SharedLanes:
    """Keeps one process's lanes in step with those of the other workers."""

    def __init__(self, store: Store, lanes: Lanes, clock: Clock, probe: timedelta) -> None:
        """`probe`: how long a probe has the right of way beyond the patience of its call."""
        self._store, self._lanes, self._clock, self._probe = store, lanes, clock, probe
        self._known: dict[str, Lane] = {}
        self._good_at: dict[str, datetime] = {}

    async def refresh(self) -> None:
        """Learn what the others have met with. Raises `StoreUnavailable`."""
        for lane in await self._store.lanes():
            self._learn(lane)
            good_at = self._good_at.get(lane.target)
            if lane.failures and lane.open_until is None and good_at and lane.failed_at and good_at > lane.failed_at:
                # It was well here, since, before this worker had heard that others had met with a failure.
                await self._change(lane, replace(lane, failures=0))

    async def admits(self, target: str, patience: timedelta) -> bool:
        """Whether a call that the lanes here let through may leave, as all workers know it.

        False: they know better by now. Raises `StoreUnavailable`.
        """
        aim = self._lanes.target(target)
        rate, burst = aim.policy.rate, aim.policy.burst
        if aim.breaker.open_until is None and rate is None:
            return True
        for _ in range(TRIES_MAX):
            now, lane = self._clock.now(), self._known.get(target) or Lane(target)
            self._learn(lane)
            if verdict(_breaker(lane, now), now) is not None:
                return False
            if rate is not None and lane.theoretical_at and now < place_at(lane.theoretical_at, rate, burst):
                return False
            claimed = lane
            if lane.open_until is not None:
                claimed = replace(claimed, probe_until=now + patience + self._probe)
            if rate is not None:
                claimed = replace(claimed, theoretical_at=next_place(lane.theoretical_at, now, rate))
            if claimed == lane or await self._store.change_lane(claimed):
                # The lanes here are about to note the same of this call.
                self._known[target] = replace(claimed, version=lane.version + (claimed != lane))
                return True
            await self.refresh()
        return False

    async def heard(self, target: str, outcome: Outcome) -> None:
        """An outcome is in; the others hear of a failure, and of what ends a row of them."""
        now, told = self._clock.now(), sign(outcome)
        if told is Sign.GOOD:
            self._good_at[target] = now
        lane = self._known.get(target)
        if told is not Sign.BAD and (lane is None or lane == replace(lane, failures=0, open_until=None)):
            return
        policy = self._lanes.target(target).policy.breaker
        try:
            for _ in range(TRIES_MAX):
                lane = self._known.get(target) or Lane(target)
                after = heard(_breaker(lane, now), outcome, now, policy)
                failed_at = now if told is Sign.BAD else lane.failed_at
                if await self._change(lane, _with(lane, after, failed_at)):
                    return
                await self.refresh()
        except StoreUnavailable:
            # Those here know; the next failure tells the others.
            return

    async def _change(self, lane: Lane, changed: Lane) -> bool:
        if changed == lane:
            return True
        if not await self._store.change_lane(changed):
            return False
        self._learn(replace(changed, version=lane.version + 1))
        return True

    def _learn(self, lane: Lane) -> None:
        aim = self._lanes.target(lane.target)
        self._known[lane.target] = lane
        aim.breaker = _breaker(lane, self._clock.now())
        aim.theoretical_at = lane.theoretical_at


def _breaker(lane: Lane, now: datetime) -> Breaker:
    probing = lane.probe_until is not None and now < lane.probe_until
    return Breaker(lane.failures, lane.open_until, probing, lane.opened)


def _with(lane: Lane, breaker: Breaker, failed_at: datetime | None) -> Lane:
    return replace(
        lane,
        failures=breaker.failures,
        failed_at=failed_at,
        open_until=breaker.open_until,
        opened=breaker.opened,
        probe_until=lane.probe_until if breaker.probing else None,
    )
