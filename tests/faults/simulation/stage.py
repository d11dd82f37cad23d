"""A world without chance: one appointment, scripted answers, and one crash at a place that is counted out."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from domain.commands import Command, ReportBooking, Request
from domain.definition import RetryPolicy
from domain.identity import appointment_id
from domain.provider import Call, Capabilities, Retryable, Unknown
from saga.definition import CalendarStep, Saga, Step
from saga.virtual_time import run
from simulation import script
from simulation.faulty_calls import Network
from simulation.faulty_provider import FaultyProvider, Manner, NotifyService
from simulation.faulty_store import FaultyStore
from simulation.outside import Edit, edit
from simulation.script import Ask
from simulation.weather import StoreWeather, Weather
from simulation.world import World
from store.port import Append

T = TypeVar("T")
FINE = Weather(Random(0), 0.0, ())
DOWN_S = 0.05


@dataclass(frozen=True)
class Point:
    """Where the process dies: before or after the `number`-th commit or call (1-based)."""

    at: str
    number: int
    when: str


@dataclass(frozen=True)
class Scene:
    """What is asked, and what the services answer: one list of answers to an operation, used in turn, then "fine"."""

    name: str
    then: tuple[tuple[float, Command, bool], ...] = ()
    """Further commands: (seconds after the one before was acknowledged, command, whether to wait for the end first)."""
    answers: dict[str, Sequence[str]] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    """Answers to an operation that stay the same for ever."""
    pending: bool = False
    by_hand: str = ""
    """What somebody does to the booking before a report of it is given; the report tells what is there then."""
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(settle_ms=1_000))


class ScriptedNetwork(Network):
    """Answers as the scene says, and dies where the point says."""

    def __init__(self, stage: "Stage") -> None:
        super().__init__(Random(0), FINE, 0)
        self.stage = stage
        self.answers = {operation: list(answers) for operation, answers in stage.scene.answers.items()}

    async def write(
        self, call: Call, apply: Callable[[], T], reject: Callable[[], T], very_late_s: float = 0.0, known: bool = True
    ) -> T | Retryable | Unknown:
        """One write."""
        answer = self._answer(call)
        await self.stage.boundary("call", call.client_ref, "before")
        await asyncio.sleep(0.005)
        outcome: T | Retryable | Unknown
        match answer:
            case "fine":
                outcome = apply()
            case "refused":
                outcome = Retryable(reason="connection refused")
            case "rejected":
                outcome = reject()
            case "lost":
                apply()
                outcome = Unknown(reason="connection reset")
            case _:
                outcome = Unknown(reason="503")
        await self.stage.boundary("call", call.client_ref, "after")
        await asyncio.sleep(0.005)
        return outcome

    async def read(self, call: Call, look: Callable[[], T]) -> T | Retryable | Unknown:
        """One read."""
        await self.stage.boundary("call", call.client_ref, "before")
        await asyncio.sleep(0.005)
        seen = look()
        await self.stage.boundary("call", call.client_ref, "after")
        await asyncio.sleep(0.005)
        return seen

    def _answer(self, call: Call) -> str:
        operation = self.stage.sent[-1].operation
        if call.client_ref != self.stage.ref:
            return "fine"
        left = self.answers.get(operation)
        return left.pop(0) if left else self.stage.scene.always.get(operation, "fine")


class ScriptedStoreWeather(StoreWeather):
    """One millisecond to a commit, and the death that the point orders."""

    stage: "Stage"

    def latency_s(self, now_s: float) -> float:
        """Always the same."""
        return 0.001

    def append_fault(self, now_s: float) -> str:
        """The store asks with the entry in hand, see `StagedStore`."""
        return self.stage.commit_fault


class StagedStore(FaultyStore):
    """Counts the commits of the one appointment."""

    async def append(self, entry: Append) -> int:
        """As `FaultyStore.append`."""
        assert isinstance(self.weather, ScriptedStoreWeather)
        self.weather.stage.about_to_commit(entry)
        return await super().append(entry)


class Stage(World):
    """Plays a scene, with at most one crash."""

    def __init__(self, scene: Scene, point: Point | None = None) -> None:
        self.scene, self.point = scene, point
        self.appointment = appointment_id(script.TENANT, "book-0")
        self.ref = str(self.appointment)
        super().__init__(0, StagedStore)
        self.counts = {"commit": 0, "call": 0}
        self.commit_fault = ""
        weather = ScriptedStoreWeather(Random(0), 0.0, (), 0.0)
        weather.stage = self
        self.store_weather = weather
        self.crashes, self.concurrency, self.edits, self.elsewhere_share = [], 512, (), 0.0
        self._cast()
        self.asks = [self._line(0, 0.0, script.booking(Random(1), 0), False)]
        self.asks += [self._line(number, *then) for number, then in enumerate(scene.then, 1)]

    def _cast(self) -> None:
        shares = 1.0 if self.scene.pending else 0.0
        manner = Manner(self.scene.capabilities, shares, 0.0, 0.0, settles_within_s=0.3)
        self.provider = FaultyProvider("main", Random(0), manner, FINE, self._seen, self._call_back)
        self.provider.network = ScriptedNetwork(self)
        self.provider.ledger.rebooks = True
        self.notify = NotifyService(ScriptedNetwork(self), self._seen)
        retry = RetryPolicy(attempts_max=3, backoff_ms=100, jitter=0)
        calendar = CalendarStep(retry=retry, undo_retry=retry, timeout_ms=1_000, poll_ms=200)
        notify = Step("notify", action=self.notify.tell, retry=retry, timeout_ms=500)
        self.saga = Saga("booking", 1, (calendar, notify), deadline_ms=10_000, cleanup_ms=10_000)
        self.plan = self.saga.plan(self.provider)

    def _line(self, number: int, at_s: float, command: Command, after_end: bool) -> Ask:
        key = f"ask-{number}" if number else "book-0"
        request = Request(tenant=script.TENANT, actor="stage", key=key)
        return Ask(at_s, self.appointment, command, request, 20, None, after_end)

    def about_to_commit(self, entry: Append) -> None:
        """Count, and order the death that is due."""
        self.commit_fault = ""
        if entry.stream_id == self.appointment:
            self.counts["commit"] += 1
            for when in ("before", "after"):
                if self.point == Point("commit", self.counts["commit"], when):
                    self.commit_fault = f"crash_{when}"

    async def boundary(self, at: str, ref: str, when: str) -> None:
        """A call is about to leave, or has taken effect."""
        if ref != self.ref:
            return
        self.counts[at] += when == "before"
        if self.point == Point(at, self.counts[at], when):
            self.crash()
            await asyncio.sleep(0)

    async def _ask(self, ask: Ask) -> None:
        """One person speaks: each command follows the acknowledgement of the one before."""
        before = self.asks.index(ask) if ask in self.asks else 0
        if before:
            while not any(told.ask is self.asks[before - 1] for told in self.acknowledged):
                await asyncio.sleep(0.001)
            await asyncio.sleep(ask.at_s)
        if self.scene.by_hand and isinstance(ask.command, ReportBooking):
            ask = await self._seen_after_edit(ask, ask.command)
        await super()._ask(ask)

    async def _seen_after_edit(self, ask: Ask, report: ReportBooking) -> Ask:
        await self._until_settled(ask.appointment)
        ledger = self.provider.ledger
        edit(ledger, self.folded(ask.appointment), Edit(0.0, ask.appointment, self.scene.by_hand, 11))
        there = ledger.by_ref[self.ref]
        seen = there[-1].booking() if there else None
        return replace(ask, command=report.model_copy(update={"seen": seen}))

    async def _come_back(self, down_s: float) -> None:
        await super()._come_back(DOWN_S)

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Every write that was sent for the appointment: (operation, operation id)."""
        writes = ("create", "cancel", "reschedule", "tell")
        return [(s.operation, s.operation_id) for s in self.sent if s.client_ref == self.ref and s.operation in writes]

    @property
    def searches(self) -> int:
        """How many look-ups were sent for the appointment."""
        return sum(sent.client_ref == self.ref and sent.operation == "find" for sent in self.sent)


def play(scene: Scene, point: Point | None = None) -> Stage:
    """Play a scene to its end."""
    stage = Stage(scene, point)
    run(stage.live(), stage.loop)
    return stage


def points(stage: Stage) -> list[Point]:
    """Every boundary of a scene that was played without a crash."""
    return [
        Point(at, number, when)
        for at, count in stage.counts.items()
        for number in range(1, count + 1)
        for when in ("before", "after")
    ]
