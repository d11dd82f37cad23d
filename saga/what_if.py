"""What-if: recorded appointments live again in virtual time, under other policies, with the answers that were recorded.

Owns the rerun, and the report on what would have ended otherwise. A rerun under the
recorded policies stands beside it as the control: what the record cannot reproduce is not judged.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.commands import BookAppointment
from domain.definition import SagaPlan, StepPlan
from domain.errors import CommandRefused
from domain.identity import definition_stream
from domain.provider import Value
from saga.changes import Changes
from saga.definition import CalendarStep, Saga, Step
from saga.inputs import Asked, CalledBack, Input, Turn
from saga.lanes import Lanes, LimitPolicy
from saga.recorded_provider import Record, RecordedProvider, Source
from saga.recording import End, Recording, call_name
from saga.runtime import POLL_S, Runtime
from saga.virtual_store import VirtualStore
from saga.virtual_time import VirtualClock, VirtualLoop, run
from store.mapper import encode
from store.port import Append

AWAKE = timedelta(seconds=POLL_S + 0.05)
"""Left of a quiet stretch when it is jumped over: who sleeps looks at the clock once in that time."""
STEP_S = 1.0


@dataclass(slots=True)
class Course:
    """How everything went, once."""

    ends: dict[UUID, End] = field(default_factory=dict)
    ended_after: dict[UUID, timedelta] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    answers: Counter[Source] = field(default_factory=Counter)
    refused: int = 0
    """Commands and callbacks that were not legal when their time came."""


class Times(Value):
    """From the request to the first end, in milliseconds; None when nothing ended."""

    p50: int | None
    p95: int | None


class Counts(Value):
    """A count as recorded, as it came out again, and as it would have been."""

    recorded: int
    control: int
    what_if: int


class Control(Value):
    """How many of the recorded ends the record itself reproduces, under the policies it was made under."""

    compared: int
    equal: int


class Difference(Value):
    """One appointment that would have ended otherwise."""

    id: UUID
    recorded: str
    what_if: str


class Report(Value):
    """What would have been different. Ends are compared where the control reproduces them."""

    appointments: int
    unfinished: int
    """Left out of the comparison: the record ends before they did."""
    control: Control
    differing: int
    differences: tuple[Difference, ...]
    by_kind: dict[str, int]
    """`<recorded end> -> <other end>` to how many."""
    calls: dict[str, Counts]
    answers: dict[Source, int]
    refused: int
    time_to_end_ms: dict[str, Times]


def what_if(
    recordings: Sequence[Recording],
    plans: Mapping[str, SagaPlan],
    changes: Changes,
    limits: LimitPolicy,
    tell: Callable[[], None] = lambda: None,
) -> Report:
    """Live through it twice: as recorded, and changed. `tell` is called whenever an appointment begins, in either.

    `limits` are those that were in force: the log does not hold them. Runs event loops of its own; not for a coroutine.
    """
    control = rerun(recordings, plans, Changes(), limits, tell)
    changed = rerun(recordings, plans, changes, limits, tell)
    return report(recordings, control, changed)


def rerun(
    recordings: Sequence[Recording],
    plans: Mapping[str, SagaPlan],
    changes: Changes,
    limits: LimitPolicy,
    tell: Callable[[], None] = lambda: None,
) -> Course:
    """Live through it once. `plans`: each recorded definition by its digest."""
    inputs = sorted(
        ((at, recording.id, given, recording.definition) for recording in recordings for at, given in recording.asked),
        key=lambda one: one[0],
    )
    if not inputs:
        return Course()
    loop = VirtualLoop()
    again = _Again(VirtualClock(loop, inputs[0][0]), Record(recordings), plans, changes, limits, tell)
    run(again.live(inputs), loop)
    return again.course


class _Again:
    def __init__(
        self,
        clock: VirtualClock,
        record: Record,
        plans: Mapping[str, SagaPlan],
        changes: Changes,
        limits: LimitPolicy,
        tell: Callable[[], None],
    ) -> None:
        self.clock, self.course, self._tell = clock, Course(), tell
        self.plans = {digest: changes.plan(plan, number) for number, (digest, plan) in enumerate(plans.items(), 1)}
        targets = {step.target for plan in self.plans.values() for step in plan.steps}
        self.providers = {name: RecordedProvider(name, record, clock, self.course.answers) for name in targets}
        self.lanes = Lanes({"*": changes.limits(limits)})
        self.store = VirtualStore("what-if")
        sagas = [_saga(plan, self.providers) for plan in self.plans.values()]
        self.runtime = Runtime(self.store, clock, sagas, self.providers, self.lanes, "what-if", self._observe)
        self._began: dict[UUID, datetime] = {}

    async def live(self, inputs: Sequence[tuple[datetime, UUID, Asked | CalledBack, str]]) -> None:
        for plan in self.plans.values():
            await self._define(plan)
        await self.runtime.start()
        for at, id, given, definition in inputs:
            await self._until(at)
            await self._give(id, given, self.plans[definition])
        await self._until(None)
        await self.runtime.stop()

    async def _define(self, plan: SagaPlan) -> None:
        stream = definition_stream(plan.digest)
        fact = e.DefinitionRegistered(at=self.clock.now(), digest=plan.digest, plan=plan.model_dump(mode="json"))
        await self.store.append(Append(stream, 0, (encode(stream, 1, fact),), touches_work=False))

    async def _give(self, id: UUID, given: Asked | CalledBack, plan: SagaPlan) -> None:
        if isinstance(given, Asked) and isinstance(given.command, BookAppointment):
            self._began[id] = self.clock.now()
            self._tell()
        elif isinstance(given, CalledBack) and not self.providers[plan.booking_step.target].called(str(id)):
            self.course.refused += 1
            return
        try:
            await self.runtime.give(id, given, plan)
        except CommandRefused:
            self.course.refused += 1

    async def _until(self, at: datetime | None) -> None:
        """Let the time pass until then, or until nothing is left to do. Stretches without any work are jumped over."""
        while at is None or self.clock.now() < at:
            now = self.clock.now()
            if not await self._busy(now):
                ahead = (at, await self.store.next_due(now), self.lanes.reopens_at(now))
                next_at = min(filter(None, ahead), default=None)
                if next_at is None:
                    return
                self.clock.jump(max(next_at - now - AWAKE, timedelta(0)))
            await asyncio.sleep(STEP_S if at is None else min(STEP_S, (at - self.clock.now()).total_seconds()))

    async def _busy(self, now: datetime) -> bool:
        if any(self.lanes.target(name).running for name in self.providers):
            return True
        return bool(await self.store.due(now, 1, self.lanes.closed(now)))

    def _observe(self, before: Appointment, turned: Turn, given: Input) -> None:
        state = turned.state
        for event in turned.events:
            if isinstance(event, e.StepStarted):
                self.course.calls[call_name(event)] += 1
        end = self.course.ends[state.id] = End.of(state)
        if end.final and state.updated_at is not None:
            self.course.ended_after.setdefault(state.id, state.updated_at - self._began[state.id])


def _saga(plan: SagaPlan, providers: Mapping[str, RecordedProvider]) -> Saga:
    """Callables under the plan's name; what they may do is in the plan alone."""

    def step(asked: StepPlan) -> Step | CalendarStep:
        if asked.books:
            return CalendarStep(asked.name)
        target = providers[asked.target]
        return Step(asked.name, action=target.act, compensation=target.undo, lookup=target.look)

    return Saga(plan.name, plan.version, tuple(map(step, plan.steps)))


def report(recordings: Sequence[Recording], control: Course, changed: Course) -> Report:
    """What is different, where the control tells that the record can say so."""
    finished = [recording for recording in recordings if recording.end.final]
    reproduced = [recording for recording in finished if control.ends.get(recording.id) == recording.end]
    differences = tuple(
        Difference(id=one.id, recorded=str(one.end), what_if=str(changed.ends.get(one.id)))
        for one in reproduced
        if changed.ends.get(one.id) != one.end
    )
    recorded_calls: Counter[str] = Counter()
    for recording in recordings:
        recorded_calls.update(recording.calls)
    names = sorted(recorded_calls | control.calls | changed.calls)
    recorded_times = [one.ended_after for one in recordings if one.ended_after is not None]
    return Report(
        appointments=len(recordings),
        unfinished=len(recordings) - len(finished),
        control=Control(compared=len(finished), equal=len(reproduced)),
        differing=len(differences),
        differences=differences,
        by_kind=dict(Counter(f"{one.recorded} -> {one.what_if}" for one in differences).most_common()),
        calls={
            name: Counts(recorded=recorded_calls[name], control=control.calls[name], what_if=changed.calls[name])
            for name in names
        },
        answers={source: changed.answers[source] for source in Source},
        refused=changed.refused,
        time_to_end_ms={
            "recorded": _times(recorded_times),
            "control": _times(control.ended_after.values()),
            "what_if": _times(changed.ended_after.values()),
        },
    )


def _times(took: Iterable[timedelta]) -> Times:
    ordered = sorted(took)

    def at(share: float) -> int | None:
        return ordered[int(share * (len(ordered) - 1))] // timedelta(milliseconds=1) if ordered else None

    return Times(p50=at(0.5), p95=at(0.95))
