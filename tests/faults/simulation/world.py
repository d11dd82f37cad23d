"""One simulated world: a durable medium, a process that dies and comes back, clients, services, a follower."""

import asyncio
from collections.abc import Coroutine, Iterator, Set
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.commands import BookAppointment, ImportBooking, Request
from domain.definition import RetryPolicy, SagaPlan
from domain.errors import CommandRefused, ConcurrencyConflict, StoreUnavailable
from domain.evolve import evolve
from domain.identity import appointment_id
from domain.lifecycle import SETTLED
from domain.provider import BookingDetails, ProviderBooking
from saga.breaker import BreakerPolicy
from saga.definition import CalendarStep, Saga, Step
from saga.inputs import Asked, CalledBack, Hold
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Runtime
from saga.virtual_time import VirtualClock, VirtualLoop
from simulation import outside, script
from simulation.faulty_calls import Network
from simulation.faulty_provider import DepositService, FaultyProvider, Manner, NotifyService, Sent, Webhook
from simulation.faulty_store import FaultyStore, at_once
from simulation.script import Ask
from simulation.weather import FAULTS_END_S, StoreWeather, Weather
from store.mapper import decode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent

T = TypeVar("T")
DEADLINE_MS, CLEANUP_MS = 15_000, 40_000
BREAKER_OPEN_MS = 2_000
CANARY_AT_S = FAULTS_END_S + 4.0
"""By then every breaker has had the time to let a probe through."""
HORIZON_S = CANARY_AT_S + (DEADLINE_MS + CLEANUP_MS) / 1_000 + 15.0
"""By then every budget is spent."""
DELIVERIES_MAX = 100
QUIET_LOOKS = 8
LAST_LOOK_S = HORIZON_S - 25.0
"""What is reported by then has the time to come to its end."""
WAKES_WITHIN = timedelta(seconds=3)
"""Who waits for an end is told so soon after it, even if the store was in trouble then."""
ENDS = (e.AppointmentFailed.type, e.AppointmentCancelled.type)
WRITES = frozenset({"create", "cancel", "reschedule", "hold", "release", "tell"})


class Crashed(Exception):
    """The process died while somebody waited for its answer."""


class WatchedLanes(Lanes):
    """Remembers when it told whom to wait, so that a replay may answer the same."""

    def __init__(self, policies: dict[str, LimitPolicy], held: set[tuple[str, datetime]]) -> None:
        super().__init__(policies)
        self._held = held

    def hold(self, target: str, tenant: str, now: datetime) -> Hold | None:
        """As `Lanes.hold`."""
        hold = super().hold(target, tenant, now)
        if hold is not None:
            self._held.add((target, now))
        return hold


@dataclass
class Process:
    """One life of the process: a runtime on a store handle. Killing it drops everything that is not durable."""

    runtime: Runtime
    store: FaultyStore
    calls: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    context: Context = field(default_factory=Context)
    """In which everything of it runs."""

    async def through(self, work: Coroutine[Any, Any, T]) -> T:
        """Ask this process; raises `Crashed` when it dies meanwhile."""
        if self.store.dead:
            work.close()
            raise Crashed
        task = asyncio.get_running_loop().create_task(work, context=self.context.copy())
        self.calls[task] = None
        try:
            return await task
        except asyncio.CancelledError:
            if self.store.dead:
                raise Crashed from None
            task.cancel()
            raise
        finally:
            self.calls.pop(task, None)

    def kill(self) -> None:
        """Nothing of it goes on."""
        self.store.dead = True
        own = sorted(self.runtime._tasks, key=lambda task: int(task.get_name().rpartition("-")[2]))
        for task in (*self.calls, *own):
            task.cancel()


@dataclass
class Acknowledged:
    """A command that came back as accepted."""

    at_s: float
    ask: Ask
    replayed: bool


class World:
    """Everything of one seed. `run` lives through it; what is left is for the checks to judge."""

    def __init__(self, seed: int, store_type: type[FaultyStore] = FaultyStore) -> None:
        self.seed, self.store_type = seed, store_type
        rng = Random(seed)
        self.rng = rng
        self.loop = self._loop()
        self.clock = VirtualClock(self.loop)
        self.medium = MemoryStore("nobody")
        self.process: Process | None = None
        self.up = asyncio.Event()
        self.generation = 0
        self.story: list[tuple[float, str]] = []
        self.faults: list[str] = []
        """What must never be, noted when it was."""
        self.sent: list[Sent] = []
        self.acknowledged: list[Acknowledged] = []
        self.followed: list[RecordedEvent] = []
        self.commits: list[tuple[UUID, int, int]] = []
        self.held: set[tuple[str, datetime]] = set()
        self.deliveries = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._services(rng)
        self.saga = self._saga(rng)
        self.plan = self.saga.plan(self.provider)
        self.store_weather = StoreWeather.drawn(rng)
        self.asks = script.drawn(rng, rng.choice((3, 4, 5, 6)))
        self.crashes = sorted(rng.uniform(0, FAULTS_END_S - 1) for _ in range(rng.choice((0, 0, 1, 3))))
        self.concurrency = rng.choice((512, 512, 512, 1, 2))
        self.hands = Random(f"{seed} by hand")
        self.edits = outside.drawn(self.hands, len({ask.appointment for ask in self.asks}))
        self.elsewhere_share = self.hands.choice((0.0, 0.0, 0.4))
        self.provider.ledger.rebooks = self.hands.random() < 0.5

    def _services(self, rng: Random) -> None:
        def weather(rejects: float = 0.0) -> Weather:
            return Weather.drawn(rng)

        manner = Manner.drawn(rng)
        self.provider = FaultyProvider("main", Random(rng.random()), manner, weather(), self._seen, self._call_back)
        settle_ms = rng.choice((300, 1_500))
        network = Network(Random(rng.random()), weather(), settle_ms)
        idempotent, searchable = rng.random() < 0.7, rng.random() < 0.6
        self.deposit = DepositService(Random(rng.random()), network, idempotent, searchable, self._seen)
        self.notify = NotifyService(Network(Random(rng.random()), weather(), 0), self._seen)

    def _saga(self, rng: Random) -> Saga:
        retry = RetryPolicy(attempts_max=rng.choice((1, 2, 3, 3, 5)), backoff_ms=200, backoff_max_ms=2_000)
        undo = RetryPolicy(attempts_max=10, backoff_ms=200, backoff_max_ms=2_000)
        calendar = CalendarStep(retry=retry, undo_retry=undo, timeout_ms=1_000, poll_ms=500)
        deposit = Step(
            "deposit",
            action=self.deposit.hold,
            compensation=self.deposit.release,
            lookup=self.deposit.look if self.deposit.searchable else None,
            retry=retry,
            undo_retry=undo,
            timeout_ms=800,
            resend=self.deposit.idempotent,
            settle_ms=self.deposit.network.settle_ms,
        )
        notify = Step("notify", action=self.notify.tell, retry=retry, timeout_ms=500)
        steps = rng.choice(((calendar, notify), (calendar, deposit, notify), (deposit, calendar, notify)))
        return Saga("booking", 1, steps, deadline_ms=DEADLINE_MS, cleanup_ms=CLEANUP_MS)

    # -- life ----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """From the first start to the end of the last budget, or until nothing is left to do."""
        self.loop.set_exception_handler(self._fault)
        self._made_elsewhere()
        await self._boot()
        self._spawn(self._follow())
        people = [self._spawn(self._ask(ask)) for ask in self.asks]
        people += [self._spawn(self._edit(edit)) for edit in self.edits]
        if self.edits:
            people.append(self._spawn(self._observe()))
        for at_s in self.crashes:
            self.loop.call_at(at_s, self.crash)
        await asyncio.sleep(CANARY_AT_S - self.loop.time())
        people.append(self._spawn(self._ask(self._canary())))
        while self.loop.time() < HORIZON_S:
            await asyncio.sleep(1.0)
            if all(person.done() for person in people) and not self.deliveries and not self._left():
                break
        await self._stop()
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self.faults.append(f"somebody met {outcome!r}")

    def _loop(self) -> VirtualLoop:
        return VirtualLoop()

    async def _stop(self) -> None:
        assert self.process is not None
        await self.process.runtime.stop()

    def remembered(self) -> Iterator[Appointment]:
        """What the process that lives at the end holds in its cache, which must be what the log says."""
        assert self.process is not None
        yield from self.process.runtime._cache.values()

    def held_at(self, _appointment: UUID) -> Set[tuple[str, datetime]]:
        """When which target let nothing of this appointment through."""
        return self.held

    def plan_of(self, _digest: str) -> SagaPlan:
        """The plan behind its digest."""
        return self.plan

    def _made_elsewhere(self) -> None:
        """Some of what was to be booked has been booked by another system, and is taken over instead."""
        rng = Random(f"{self.seed} elsewhere")
        taken: dict[UUID, ProviderBooking | None] = {}
        for place, ask in enumerate(self.asks):
            if not isinstance(ask.command, BookAppointment):
                continue
            id, wanted = ask.appointment, ask.command.model_copy(update={"policy": None, "deadline_ms": None})
            if id not in taken:
                fields = wanted.model_dump(exclude={"policy", "deadline_ms"})
                foreign_ref = rng.choice(("", f"legacy-{place}"))
                details = BookingDetails.model_validate(fields)
                here = rng.random() >= self.elsewhere_share
                taken[id] = None if here else self.provider.ledger.create_elsewhere(str(id), foreign_ref, details)
            booking = taken[id]
            if booking is not None:
                command = ImportBooking(booked=wanted, booking=booking, source="legacy")
                self.asks[place] = replace(ask, command=command)

    def _left(self) -> bool:
        return any(row.due_at is not None for row in at_once(self.medium.open_work()))

    def _canary(self) -> Ask:
        key = "canary"
        rng = Random(0)
        self.canary = appointment_id(script.TENANT, key)
        book = script.booking(rng, 99).model_copy(update={"deadline_ms": None, "policy": None})
        return Ask(self.loop.time(), self.canary, book, Request(tenant=script.TENANT, key=key), 20)

    def note(self, text: str) -> None:
        """One line of the story."""
        self.story.append((self.loop.time(), text))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.append(task)
        return task

    def _fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if isinstance(fault, StoreUnavailable):
            self.note(f"a turn met a store that was not there: {fault}")
            return
        self.faults.append(f"{self.loop.time():.3f}s: {context['message']}: {fault!r}")

    async def _boot(self) -> None:
        while True:
            self.generation += 1
            owner = f"process-{self.generation}"
            self.medium = self.medium.reopen(owner)
            store = self.store_type(self.medium, self.store_weather, self.crash, self._committed)
            limits = LimitPolicy(concurrency=self.concurrency, breaker=BreakerPolicy(open_ms=BREAKER_OPEN_MS))
            lanes = WatchedLanes({"*": limits}, self.held)
            runtime = Runtime(store, self.clock, [self.saga], {"main": self.provider}, lanes, owner)
            process = self.process = Process(runtime, store)
            try:
                await process.through(runtime.start())
            except (StoreUnavailable, Crashed):
                self.note(f"{owner} could not start")
                process.kill()
                await asyncio.sleep(0.3)
                continue
            self.note(f"{owner} is up, {runtime.recovered} calls taken over")
            self.up.set()
            return

    def crash(self) -> None:
        """Kill the process; another one starts a while later."""
        process = self.process
        if process is None or process.store.dead:
            return
        process.kill()
        if self.up.is_set():
            self.up.clear()
            down_s = self.rng.choice((0.01, 0.5, 4.0)) * self.rng.uniform(0.5, 1)
            self.note(f"crash, down for {down_s:.3f}s")
            self._spawn(self._come_back(down_s))

    async def _come_back(self, down_s: float) -> None:
        await asyncio.sleep(down_s)
        await self._boot()

    async def _running(self) -> Process:
        await self.up.wait()
        assert self.process is not None
        return self.process

    # -- clients -------------------------------------------------------------------------------------------------

    async def _ask(self, ask: Ask) -> None:
        await asyncio.sleep(max(0.0, ask.at_s - self.loop.time()))
        if ask.after_end:
            await self._until_settled(ask.appointment)
        what = f"{type(ask.command).__name__} {getattr(ask.command, 'action', '')} {ask.request.key}"
        for number in range(ask.tries_max):
            if number:
                await asyncio.sleep(0.4 * number)
            process = await self._running()
            try:
                async with asyncio.timeout(ask.hangs_up_after_s if number == 0 else None):
                    given = Asked(ask.command, ask.request)
                    turned = await process.through(
                        process.runtime.give(ask.appointment, given, self._booked_under(process))
                    )
            except CommandRefused as refused:
                self.note(f"{what} refused: {refused}")
                return
            except (StoreUnavailable, ConcurrencyConflict, Crashed, TimeoutError) as fault:
                self.note(f"{what} unanswered: {type(fault).__name__}")
                continue
            self.note(f"{what} acknowledged{' as a repeat' if turned.replayed else ''}")
            self.acknowledged.append(Acknowledged(self.loop.time(), ask, turned.replayed))
            self._acknowledge(turned.state)
            return

    def _booked_under(self, _process: Process) -> SagaPlan:
        return self.plan

    def _acknowledge(self, _state: Appointment) -> None:
        """A command was acknowledged with this state."""

    async def _until_settled(self, appointment: UUID) -> None:
        for _ in range(20):
            process = await self._running()
            since = self.clock.now()
            try:
                state = await process.through(process.runtime.settled(appointment, 5.0))
            except (StoreUnavailable, Crashed):
                await asyncio.sleep(0.5)
                continue
            if state.state in SETTLED:
                self._check_prompt(appointment, state.updated_at, since)
                return

    def _check_prompt(self, appointment: UUID, ended_at: datetime | None, since: datetime) -> None:
        assert ended_at is not None
        late = self.clock.now() - max(ended_at, since)
        if late > WAKES_WITHIN:
            self.faults.append(f"{self.loop.time():.3f}s: who waited for {appointment} was told {late} late")

    # -- past the desk -------------------------------------------------------------------------------------------

    async def _edit(self, edit: outside.Edit) -> None:
        await asyncio.sleep(edit.at_s - self.loop.time())
        while self.loop.time() < FAULTS_END_S:
            if outside.edit(self.provider.ledger, self.folded(edit.appointment), edit):
                return
            await asyncio.sleep(0.5)

    async def _observe(self) -> None:
        """Look at what rests, and report it, until all was well for so long that nothing can come any more."""
        quiet = 0
        while quiet < QUIET_LOOKS and self.loop.time() < LAST_LOOK_S:
            await asyncio.sleep(self.hands.uniform(*outside.LOOKS_EVERY_S))
            quiet += 1 if self.loop.time() > CANARY_AT_S else 0
            for id in sorted({ask.appointment for ask in self.asks}):
                last = self.loop.time() > CANARY_AT_S
                ask = outside.report(self.hands, self.provider.ledger, self.folded(id), self.loop.time(), last)
                if ask is not None:
                    quiet = 0
                    await self._ask(ask)

    def folded(self, id: UUID) -> Appointment:
        """What the log says of an appointment."""
        state = Appointment(id)
        for recorded in at_once(self.medium.events(id)):
            state = evolve(state, decode(recorded))
        return state

    # -- services ------------------------------------------------------------------------------------------------

    def _committed(self, entry: Append) -> None:
        if entry.events:
            self.commits.append((entry.stream_id, entry.events[0].version, len(entry.events)))

    def _seen(self, sent: Sent) -> None:
        self.sent.append(sent)
        self.story.append((sent.at_s, f"call {sent.client_ref[:8]} {sent.target} {sent.operation}"))
        crash_after_s = self.store_weather.crash_after_call_s(sent.at_s)
        if crash_after_s is not None:
            self._crash_after_call(crash_after_s)
        if sent.operation not in WRITES:
            return
        if sent.operation == "create" and sent.operation_id in self.provider.ledger.edited:
            self.faults.append(f"{sent.at_s:.3f}s: {sent.client_ref} is made again by the operation that had made it")
        stream = at_once(self.medium.events(UUID(sent.client_ref)))
        announced = next((event for event in reversed(stream) if event.type == e.StepStarted.type), None)
        if announced is None or sent.operation_id.encode() not in announced.body:
            self.faults.append(f"{sent.at_s:.3f}s: {sent.operation} of {sent.client_ref} was not announced")
        elif any(event.type in ENDS for event in stream[announced.version :]):
            self.faults.append(f"{sent.at_s:.3f}s: {sent.operation} of {sent.client_ref} after the end")

    def _crash_after_call(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.crash, context=Context())

    def _call_back(self, webhook: Webhook) -> None:
        for delay_s in webhook.delays_s:
            self.deliveries += 1
            self._spawn(self._deliver(webhook, delay_s))

    async def _deliver(self, webhook: Webhook, delay_s: float) -> None:
        record = webhook.record
        told = CalledBack(webhook.webhook_id, f"bk_{record.number}", webhook.status, webhook.version)
        await asyncio.sleep(delay_s)
        for _ in range(DELIVERIES_MAX):
            process = await self._running()
            try:
                await process.through(process.runtime.called_back("main", record.client_ref, told))
                break
            except (StoreUnavailable, ConcurrencyConflict, Crashed):
                await asyncio.sleep(0.7)
        self.deliveries -= 1

    async def _follow(self) -> None:
        while True:
            process = await self._running()
            with suppress(StoreUnavailable, Crashed):
                self.followed += await process.through(process.store.log(len(self.followed), 40))
            await asyncio.sleep(0.9)
