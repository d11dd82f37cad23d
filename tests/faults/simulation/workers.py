"""Two to four workers on one shared store: they crash, freeze and drain, and their clocks are wrong, as the seed says.

Clients go from one worker to another. Besides the guarantees of every world, no worker may write, call or hold a row
that is another's by then, and whoever was acknowledged reads at any worker what he wrote.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from domain.appointment import Appointment
from domain.definition import SagaPlan
from domain.errors import LeaseLost, StoreUnavailable
from saga.breaker import BreakerPolicy
from saga.definition import Saga
from saga.inputs import Hold, Input
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Runtime
from saga.virtual_time import VirtualClock, VirtualLoop
from simulation.faulty_provider import Sent
from simulation.faulty_store import FaultyStore, at_once
from simulation.freezing import WORKER, FreezingLoop
from simulation.weather import FAULTS_END_S
from simulation.world import BREAKER_OPEN_MS, Crashed, Process, World
from store.memory import MemoryStore
from store.port import Append, Lane, OpenWork, Worker

LEASE_S = 1.5
ASK_LATENCY_S = 0.004


class SharedStore(FaultyStore):
    """One worker's handle on the shared medium. A write is judged by the name that was its worker's when it asked."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lease_s = self.durable.lease_s
        self.handed: Callable[[Sequence[OpenWork]], None] = lambda _rows: None
        self._asked_as: dict[int, str] = {}

    async def append(self, entry: Append) -> int:
        """As `FaultyStore.append`."""
        self._asked_as[id(entry)] = self.durable.owner
        try:
            return await super().append(entry)
        finally:
            del self._asked_as[id(entry)]

    def _commit(self, entry: Append, fault: str, done: "asyncio.Future[int]") -> None:
        if self._asked_as.get(id(entry), self.durable.owner) != self.durable.owner:
            if not done.done():
                done.set_exception(LeaseLost("asked under the name of before"))
            return
        try:
            super()._commit(entry, fault, done)
        except LeaseLost as lost:
            if not done.done():
                done.set_exception(lost)

    async def due(self, *given: Any, **more: Any) -> Sequence[OpenWork]:
        """As `Store.due`."""
        await self._read()
        rows = await self.durable.due(*given, **more)
        self.handed(rows)
        return rows

    async def hand_back(self, rows: Sequence[OpenWork], due_at: datetime) -> None:
        """As `Store.hand_back`."""
        await self._read()
        await self.durable.hand_back(rows, due_at)

    async def leave(self) -> None:
        """As `Store.leave`."""
        await self._read()
        await self.durable.leave()

    async def workers(self) -> Sequence[Worker]:
        """As `Store.workers`."""
        await self._read()
        return await self.durable.workers()

    async def now(self) -> datetime | None:
        """As `Store.now`; the way there takes longer than the way back, or the other way round."""
        await asyncio.sleep(self.weather.rng.uniform(0, ASK_LATENCY_S))
        await self._read()
        at = await self.durable.now()
        await asyncio.sleep(self.weather.rng.uniform(0, ASK_LATENCY_S))
        return at

    async def lanes(self) -> Sequence[Lane]:
        """As `Store.lanes`."""
        await self._read()
        return await self.durable.lanes()

    async def change_lane(self, lane: Lane) -> bool:
        """As `Store.change_lane`."""
        await self._read()
        return await self.durable.change_lane(lane)


class WatchedRuntime(Runtime):
    """Remembers when a lane let nothing of which appointment through, so that a replay may answer the same."""

    held: set[tuple[UUID, str, datetime]]

    def _hold(self, before: Appointment, given: Input, ruling: SagaPlan, now: datetime, target: str) -> Hold | None:
        hold = super()._hold(before, given, ruling, now, target)
        if hold is not None:
            self.held.add((before.id, target, now))
        return hold


@dataclass
class Manners:
    """What is drawn for one worker."""

    clock_off: timedelta
    sagas: tuple[Saga, ...]
    plan: SagaPlan


class Workers(World):
    """The world of one seed with several workers."""

    def __init__(self, seed: int, store_type: type[FaultyStore] = SharedStore) -> None:
        super().__init__(seed, store_type)
        rng = self.crew = Random(f"{seed} workers")
        self.medium: MemoryStore = MemoryStore("nobody", lease_s=LEASE_S, clock=self.clock.now)
        self.later_saga = replace(self.saga, version=2)
        self.later_plan = self.later_saga.plan(self.provider)
        upgrading = rng.random() < 0.4
        count = rng.choice((2, 2, 3, 4))
        self.manners = [self._manners(upgrading and number > 0) for number in range(count)]
        self.slots: dict[int, Process] = {}
        self.held_by: set[tuple[UUID, str, datetime]] = set()
        self.hands_out: set[tuple[UUID, int, int]] = set()
        self.stopped_until = self.clock.now()
        self.freezes = [
            (rng.uniform(0, FAULTS_END_S - 8), rng.randrange(count), LEASE_S * rng.choice((0.5, 1.1, 2.5, 5)))
            for _ in range(rng.choice((0, 1, 3, 6)))
        ]
        self.drains = [
            (rng.uniform(0, FAULTS_END_S - 3), rng.randrange(count)) for _ in range(rng.choice((0, 0, 1, 2)))
        ]

    def _manners(self, upgraded: bool) -> Manners:
        off = timedelta(hours=self.crew.uniform(-24, 24)) if self.crew.random() < 0.5 else timedelta(0)
        if not upgraded:
            return Manners(off, (self.saga,), self.plan)
        sagas = (self.later_saga, self.saga) if self.crew.random() < 0.7 else (self.later_saga,)
        return Manners(off, sagas, self.later_plan)

    def _loop(self) -> VirtualLoop:
        self.freezer = FreezingLoop()
        return self.freezer

    # -- life ----------------------------------------------------------------------------------------------------

    async def _boot(self) -> None:
        for at_s, number, for_s in self.freezes:
            self.loop.call_at(at_s, self._freeze, number, for_s, context=Context())
        for at_s, number in self.drains:
            self.loop.call_at(at_s, self._drain_soon, number, context=Context())
        # The last one runs every definition: what nobody runs would wait for ever.
        self.manners[-1].sagas = tuple(dict.fromkeys((*self.manners[-1].sagas, self.saga, self.later_saga)))
        await asyncio.gather(*(self._start(number) for number in range(len(self.manners))))

    async def _start(self, number: int) -> None:
        manners = self.manners[number]
        while True:
            self.generation += 1
            name = f"worker-{number}-{self.generation}"
            store = self.store_type(
                self.medium.sibling(name),
                self.store_weather,
                partial(self._crash, number),
                partial(self._wrote, number),
            )
            limits = LimitPolicy(concurrency=self.concurrency, breaker=BreakerPolicy(open_ms=BREAKER_OPEN_MS))
            clock = VirtualClock(self.loop)
            clock.jump(manners.clock_off)
            runtime = WatchedRuntime(store, clock, manners.sagas, {"main": self.provider}, Lanes({"*": limits}), name)
            runtime.held = self.held_by
            process = Process(runtime, store)
            process.context.run(WORKER.set, number)
            if isinstance(store, SharedStore):
                store.handed = partial(self._handed, name)
            self.slots[number] = process
            try:
                await process.through(runtime.start())
            except (StoreUnavailable, Crashed):
                self.note(f"{name} could not start")
                process.kill()
                await asyncio.sleep(0.3)
                continue
            self.note(f"{name} is up, {runtime.recovered} calls taken over")
            self.up.set()
            return

    def crash(self) -> None:
        """Kill one of them; another one starts in its place a while later."""
        self._crash(self.crew.randrange(len(self.manners)))

    def _crash(self, number: int) -> None:
        process = self.slots.get(number)
        if process is None or process.store.dead:
            return
        process.kill()
        self.freezer.continue_worker(number)
        if self._serving(process):
            down_s = self.rng.choice((0.01, 0.5, 4.0)) * self.rng.uniform(0.5, 1)
            self.note(f"{process.runtime._owner} crashes, down for {down_s:.3f}s")
            self._spawn_outside(self._come_back_as(number, down_s))

    def _serving(self, process: Process) -> bool:
        return hasattr(process.runtime, "_dispatcher")

    def _spawn_outside(self, work: Any) -> None:
        self.tasks.append(self.loop.create_task(work, context=Context()))

    async def _come_back_as(self, number: int, down_s: float) -> None:
        await asyncio.sleep(down_s)
        await self._start(number)

    def _freeze(self, number: int, for_s: float) -> None:
        process = self.slots.get(number)
        if process is None or process.store.dead:
            return
        self.note(f"{process.runtime._owner} is stopped for {for_s:.3f}s")
        self.stopped_until = max(self.stopped_until, self.clock.now() + timedelta(seconds=for_s))
        self.freezer.stop_worker(number)
        self.loop.call_later(for_s, self.freezer.continue_worker, number, context=Context())

    def _drain_soon(self, number: int) -> None:
        self._spawn(self._drain(number))

    async def _drain(self, number: int) -> None:
        process = self.slots[number]
        if process.store.dead or not self._serving(process):
            return
        self.note(f"{process.runtime._owner} is drained")
        try:
            await process.through(process.runtime.drain(self.crew.choice((0.0, 0.1, 2.0))))
        except (StoreUnavailable, Crashed):
            return
        process.kill()
        self._spawn_outside(self._come_back_as(number, 0.5))

    async def _running(self) -> Process:
        await self.up.wait()
        while True:
            up = [one for one in self.slots.values() if not one.store.dead and self._serving(one)]
            if up:
                return self.crew.choice(up)
            await asyncio.sleep(0.05)

    async def _stop(self) -> None:
        for process in self.slots.values():
            await process.runtime.stop()

    # -- what must never be ---------------------------------------------------------------------------------------

    def _alive(self, process: Process) -> bool:
        """Whether the others hold it to be alive."""
        names = {worker.owner for worker in at_once(self.medium.workers())}
        return process.store.durable.owner in names

    def _wrong(self, text: str) -> None:
        self.faults.append(f"{self.loop.time():.3f}s: {text}")

    def _wrote(self, number: int, entry: Append) -> None:
        self._committed(entry)
        process = self.slots[number]
        if self._serving(process) and not self._alive(process):
            self._wrong(f"{process.store.durable.owner} was declared dead, and has written")

    def _handed(self, name: str, rows: Sequence[OpenWork]) -> None:
        for row in rows:
            hand = (row.stream_id, row.version, row.epoch)
            if hand in self.hands_out:
                self._wrong(f"{row.stream_id} was handed out twice in epoch {row.epoch}, now to {name}")
            self.hands_out.add(hand)

    def _seen(self, sent: Sent) -> None:
        process = self.slots[WORKER.get()]
        if not process.store.dead and not self._alive(process):
            self._wrong(f"{sent.operation} of {sent.client_ref} left a worker that was declared dead")
        super()._seen(sent)

    def _crash_after_call(self, seconds: float) -> None:
        self.loop.call_later(seconds, self._crash, WORKER.get(), context=Context())

    def _booked_under(self, process: Process) -> SagaPlan:
        return next(self.manners[number].plan for number, one in self.slots.items() if one is process)

    def _check_prompt(self, appointment: UUID, ended_at: datetime | None, since: datetime) -> None:
        # Who waits at a worker that is stopped hears nothing.
        super()._check_prompt(appointment, ended_at, max(since, self.stopped_until))

    def _acknowledge(self, state: Appointment) -> None:
        self._spawn(self._read_again(state))

    async def _read_again(self, state: Appointment) -> None:
        """Whoever was acknowledged goes to any worker, and finds there what he wrote."""
        process = await self._running()
        try:
            found = await process.through(process.runtime.load(state.id))
        except (StoreUnavailable, Crashed):
            return
        if found.version < state.version:
            self._wrong(f"{state.id} was acknowledged at version {state.version}, and is read at {found.version}")

    def remembered(self) -> Iterator[Appointment]:
        """Each worker's cache may be behind; it must be the fold of the log as far as it goes."""
        for process in self.slots.values():
            for cached in process.runtime._cache.values():
                final = self.folded(cached.id)
                if final.version == cached.version:
                    yield cached

    def held_at(self, appointment: UUID) -> Set[tuple[str, datetime]]:
        """When which target let nothing of this appointment through, at any worker."""
        return {(target, at) for id, target, at in self.held_by if id == appointment}

    def plan_of(self, digest: str) -> SagaPlan:
        """The plan behind its digest."""
        return self.later_plan if digest == self.later_plan.digest else self.plan
