"""The process dies at every point, one after the other: before and after each commit, before and after each call takes
effect. The next process, and a client that repeats its command, must come to the end that an undisturbed run comes to.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from domain.appointment import Appointment
from domain.commands import BookAppointment, CancelAppointment, Command, Request
from domain.definition import RetryPolicy
from domain.identity import appointment_id
from domain.lifecycle import State
from domain.provider import BookingDetails, Call, Confirmed, ReadOutcome, Rejected, WriteOutcome
from providers.local import LocalProvider
from saga.clock import WallClock
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Asked
from saga.lanes import Lanes
from saga.runtime import Runtime
from store.memory import MemoryStore
from store.port import Append

BOOK = BookAppointment.model_validate(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "Europe/Berlin",
        "summary": "Check-up",
    }
)
ID = appointment_id("default", "booked")
ENDINGS = {"confirmed": State.CONFIRMED, "failed": State.FAILED, "cancelled": State.CANCELLED}
POINTS_MAX = 40
END_S = 10.0


class Points:
    """Counts the points at which a process may die, and stops everything at the chosen one."""

    def __init__(self, dies_at: int | None) -> None:
        self.passed: list[str] = []
        self.dead = asyncio.Event()
        self._dies_at = dies_at

    async def pass_by(self, name: str) -> None:
        """Go on, or be dead from here on: nothing after this point happens in this process."""
        if len(self.passed) == self._dies_at:
            self.dead.set()
        if self.dead.is_set():
            await asyncio.Event().wait()
        self.passed.append(name)


@dataclass
class Outside:
    """The provider and the downstream, which outlive every process."""

    ending: str
    calendar: LocalProvider = field(default_factory=lambda: LocalProvider("main"))
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def reach(
        self, points: Points, name: str, call: Call, act: Callable[[], Awaitable[WriteOutcome]]
    ) -> WriteOutcome:
        """One call: it may never arrive, or be applied and its answer be lost."""
        await points.pass_by(f"before {name} takes effect")
        outcome = await act()
        self.calls[name, call.operation_id] += 1
        await points.pass_by(f"after {name} took effect")
        return outcome

    async def tell(self, asked: StepCall) -> WriteOutcome:
        """The downstream refuses where the appointment is to fail."""
        return Rejected(reason="closed") if self.ending == "failed" else Confirmed()


class Calendar(LocalProvider):
    """One process's way to the provider."""

    def __init__(self, outside: Outside, points: Points) -> None:
        super().__init__("main")
        self.outside, self.points = outside, points

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        calendar = self.outside.calendar
        return await self.outside.reach(self.points, "create", call, lambda: calendar.create(call, details))

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        return await self.outside.calendar.find(call, calendar)

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        there = self.outside.calendar
        return await self.outside.reach(self.points, "cancel", call, lambda: there.cancel(call, calendar, provider_ref))


class Log(MemoryStore):
    """One process's way to the log."""

    points: Points

    async def append(self, entry: Append) -> int:
        last = entry.events[-1].type if entry.events else "a due time"
        await self.points.pass_by(f"before the commit of {last}")
        position = await super().append(entry)
        await self.points.pass_by(f"after the commit of {last}")
        return position


async def live(log: Log, outside: Outside, dies_at: int | None) -> tuple[Points, Appointment | None]:
    """One process: it books, and cancels where that is the ending. None: it died on the way."""
    points = Points(dies_at)
    log.points = points
    calendar = Calendar(outside, points)

    async def notify(asked: StepCall) -> WriteOutcome:
        return await outside.reach(points, "notify", asked.call, lambda: outside.tell(asked))

    saga = Saga("booking", 1, (CalendarStep(retry=RetryPolicy(attempts_max=1)), Step("notify", action=notify)))
    runtime = Runtime(log, WallClock(), (saga,), {"main": calendar}, Lanes(), log.owner)

    async def work() -> Appointment:
        await runtime.start()
        state = await _ask(runtime, BOOK, "booked", saga.plan(calendar))
        if outside.ending == "cancelled":
            state = await _ask(runtime, CancelAppointment(), "cancelled", saga.plan(calendar))
        return state

    working, dying = asyncio.create_task(work()), asyncio.create_task(points.dead.wait())
    done, _ = await asyncio.wait((working, dying), timeout=END_S, return_when=asyncio.FIRST_COMPLETED)
    assert done, f"no end within {END_S} s; passed: {points.passed}"
    for task in (working, dying):
        task.cancel()
    await asyncio.gather(working, dying, return_exceptions=True)
    await runtime.stop()
    return points, working.result() if working in done else None


async def _ask(runtime: Runtime, command: Command, key: str, plan: object) -> Appointment:
    """A client that repeats its command until it was acknowledged, then waits for the end."""
    await runtime.give(ID, Asked(command, Request(key=key)), plan)  # type: ignore[arg-type]
    return await runtime.settled(ID, END_S)


async def undisturbed(ending: str) -> list[str]:
    points, state = await live(Log("first"), Outside(ending), None)
    assert state is not None
    assert state.state is ENDINGS[ending]
    return points.passed


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_death_at_any_point_changes_no_end(ending: str) -> None:
    names = await undisturbed(ending)
    assert 10 < len(names) <= POINTS_MAX
    for number, name in enumerate(names):
        log, outside = Log("first"), Outside(ending)
        _, died = await live(log, outside, number)
        assert died is None, name
        _, state = await live(log.reopen("second"), outside, None)
        assert state is not None
        assert (state.state, state.parked) == (ENDINGS[ending], False), name
        assert len(outside.calendar.live("main")) == (ending == "confirmed"), name
        assert all(count <= 2 for count in outside.calls.values()), f"{name}: {outside.calls}"
        assert len(outside.calls) == len({called for called, _ in outside.calls}), f"{name}: another operation id"
        assert await _versions(log.reopen("reader")) == list(range(1, state.version + 1)), name


async def _versions(log: MemoryStore) -> list[int]:
    return [event.version for event in await log.events(ID)]


async def test_control_a_process_that_takes_nothing_over_is_noticed() -> None:
    """Without the takeover of what a dead process left in flight, the end does not come in time."""
    names = await undisturbed("confirmed")
    log, outside = Log("first"), Outside("confirmed")
    await live(log, outside, names.index("after create took effect"))

    async def claim_nothing(owner: str, now: object) -> int:
        return 0

    forgetful = log.reopen("second")
    forgetful.claim = claim_nothing  # type: ignore[method-assign]
    forgetful.points = Points(None)
    saga = Saga("booking", 1, (CalendarStep(), Step("notify", action=outside.tell)))
    runtime = Runtime(forgetful, WallClock(), (saga,), {"main": Calendar(outside, forgetful.points)}, Lanes(), "second")
    await runtime.start()
    state = await runtime.settled(UUID(str(ID)), 0.3)
    await runtime.stop()
    assert state.state is State.BOOKING
