"""The runtime: load, turn, append, and when that is durable acknowledge and call. It carries; it decides nothing.

One rhythm for every input. An effect leaves only after the event that announces it is durable; its outcome is the
next input. Open-work rows are the timers, the queue and the recovery list.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any, Protocol
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment, but
from domain.commands import BookAppointment
from domain.definition import SagaPlan
from domain.errors import CommandRefused, ConcurrencyConflict, HistoryError, LeaseLost, StoreUnavailable
from domain.evolve import evolve
from domain.identity import definition_stream, orphan_stream
from domain.lifecycle import SETTLED
from domain.provider import BookingStatus, Outcome, Provider
from saga import effects
from saga.clock import Clock
from saga.definition import Saga
from saga.entry import entry, later
from saga.inputs import Asked, CalledBack, CallEnded, Due, Effect, Hold, Input, Read, ReadEnded, Turn, Write
from saga.lanes import Lanes
from saga.membership import Membership, run_name
from saga.timings import Timings
from saga.turn import turn
from store.mapper import decode, encode
from store.port import Append, OpenWork, Store

CONFLICTS_MAX = 20
CACHE_MAX = 10_000
"""States in memory; of what has ended no more than `ENDED_MAX`."""
ENDED_MAX = 1_024
DUE_BATCH = 128
POLL_S = 1.0
LOOK_S = 0.05
"""How soon the log is looked at for what another worker may have done; doubled up to `POLL_S`."""
STORE_RETRY_S = 0.25
NOBODY_RUNS = timedelta(seconds=60)


class Observer(Protocol):
    """Is told of every turn after it is durable. Must not raise, nor wait."""

    def __call__(self, before: Appointment, turned: Turn, given: Input) -> None:
        """A turn is durable."""
        ...


TraceContext = Callable[[Appointment, Effect, datetime], str]
"""Is asked, in the call's own task, which W3C trace context a call that leaves now is to carry."""


class Runtime:
    """Drives every appointment of one store to its end. Use as an async context manager."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        sagas: Sequence[Saga],
        providers: Mapping[str, Provider],
        lanes: Lanes,
        owner: str,
        observe: Observer | None = None,
        trace_context: TraceContext | None = None,
    ) -> None:
        self.store, self.clock, self.lanes = store, clock, lanes
        self._sagas = {(saga.name, saga.version): saga for saga in sagas}
        self._providers, self._owner, self._observe = providers, owner, observe
        self._members = None
        if store.lease_s is not None:
            runs = [run_name(*run) for run in sorted(self.runs)]
            self._members = Membership(store, clock, lanes, owner, runs)
            self.clock = self._members.clock
        self._trace_context = trace_context
        self._plans: dict[str, SagaPlan] = {}
        self._cache: OrderedDict[UUID, Appointment] = OrderedDict()
        self._at_rest: deque[UUID] = deque()
        self._locks: dict[UUID, tuple[asyncio.Lock, int]] = {}
        self._calling: dict[UUID, Write | Read] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._waiting: dict[UUID, list[asyncio.Future[Appointment]]] = {}
        self._wake = asyncio.Event()
        self._sleeping_until: datetime | None = None
        self._closing = False
        self.recovered = 0
        self.appends = Timings()
        """How long it took until a turn was durable."""

    async def start(self) -> None:
        """Write down the plans, take over what a dead process left, and start to hand out what is due."""
        for saga in self._sagas.values():
            for provider in self._providers.values():
                await self._register(saga.plan(provider))
        if self._members is None:
            self.recovered = await self.store.claim(self._owner, self.clock.now())
        else:
            self.recovered = await self._members.join()
            self._spawn(self._members.beats(self._wake.set))
        self._dispatcher = self._spawn(self._dispatch())

    async def drain(self, within_s: float) -> None:
        """Take up nothing more, give the calls that are out so long to end, then stop. What is left others take up."""
        self._closing = True
        self.lanes.shut()
        self._wake.set()
        await asyncio.wait((self._dispatcher,))
        if self._calls:
            await asyncio.wait(tuple(self._calls), timeout=within_s)
        await self.stop()

    async def stop(self) -> None:
        """Cut calls short (their outcome will be looked up at the next start) and let go. Nothing is lost."""
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        if self._members is not None:
            await self._members.leave()

    async def _register(self, plan: SagaPlan) -> None:
        self._plans[plan.digest] = plan
        stream = definition_stream(plan.digest)
        fact = e.DefinitionRegistered(at=self.clock.now(), digest=plan.digest, plan=plan.model_dump(mode="json"))
        if not await self.store.events(stream, limit=1):
            try:
                await self.store.append(Append(stream, 0, (encode(stream, 1, fact),), touches_work=False))
            except ConcurrencyConflict:
                return

    # -- one turn ------------------------------------------------------------------------------------------------

    async def give(self, appointment: UUID, given: Input, plan: SagaPlan | None = None) -> Turn:
        """Give an input to an appointment; returns when its turn is durable. Raises what the turn or the store raise.

        `plan` is that of a new appointment; one that exists goes on under the plan it began with.
        """
        lock, users = self._locks.get(appointment) or (asyncio.Lock(), 0)
        self._locks[appointment] = (lock, users + 1)
        try:
            async with lock:
                return await self._turn(appointment, given, plan)
        finally:
            _, users = self._locks[appointment]
            if users == 1:
                del self._locks[appointment]
            else:
                self._locks[appointment] = (lock, users - 1)

    async def _turn(self, appointment: UUID, given: Input, plan: SagaPlan | None) -> Turn:
        if isinstance(given, Due) and appointment in self._calling:
            return Turn(await self._known(appointment), idle=True)
        new = isinstance(given, Asked) and isinstance(given.command, BookAppointment)
        for _ in range(CONFLICTS_MAX):
            # A key is new nearly always: not looking first saves a read, and the store refuses a second version 1.
            before = (
                Appointment(appointment) if new and appointment not in self._cache else await self._known(appointment)
            )
            new = False
            ruling = await self._plan(before.definition) if before.version else plan
            if ruling is None:
                ruling = next(iter(self._plans.values()))
            now = self.clock.now()
            try:
                turned = turn(before, given, now, ruling, partial(self._hold, before, given, ruling, now))
            except (CommandRefused, HistoryError):
                if await self._moved_on(before):
                    continue
                raise
            if turned.idle:
                if await self._moved_on(before):
                    continue
                return turned
            name = self.name
            if turned.effect is not None:
                if not await self._admitted(turned.effect):
                    continue
                self.lanes.take(turned.effect.target, turned.state.tenant, now)
            appending = perf_counter()
            try:
                await self.store.append(entry(before, turned))
            except ConcurrencyConflict:
                self._forget(before, turned)
                continue
            except LeaseLost:
                self._forget(before, turned)
                self._struck(name)
                raise
            except BaseException:
                self._forget(before, turned)
                raise
            self.appends.add(perf_counter() - appending)
            self._durable(before, turned, given, name)
            return turned
        raise ConcurrencyConflict(f"{appointment}: the stream moved on {CONFLICTS_MAX} times")

    def _hold(self, before: Appointment, given: Input, ruling: SagaPlan, now: datetime, target: str) -> Hold | None:
        if self._members is not None and not self._carries(ruling):
            return self.lanes.elsewhere(target, now)
        tenant = given.request.tenant if isinstance(given, Asked) else before.tenant
        return self.lanes.hold(target, tenant, now)

    def _forget(self, before: Appointment, turned: Turn) -> None:
        self._cache.pop(before.id, None)
        if turned.effect is not None:
            self.lanes.give_back(turned.effect.target, turned.state.tenant, self.clock.now(), None)

    def _let_go(self, ended: UUID) -> None:
        """What has ended is hardly asked for any more; the places are for what goes on."""
        if (state := self._cache.get(ended)) is not None and state.state in SETTLED:
            del self._cache[ended]

    def _durable(self, before: Appointment, turned: Turn, given: Input, name: str) -> None:
        state = turned.state
        self._cache[state.id] = state
        self._cache.move_to_end(state.id)
        if len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)
        if state.state in SETTLED:
            self._at_rest.append(state.id)
            if len(self._at_rest) > ENDED_MAX:
                self._let_go(self._at_rest.popleft())
        if turned.effect is not None:
            self._calling[state.id] = turned.effect
            call = self._spawn(self._call(state, turned.effect, name))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        elif turned.wake is not None and (self._sleeping_until is None or turned.wake.at < self._sleeping_until):
            self._wake.set()
        if state.state in SETTLED or state.parked:
            for future in self._waiting.pop(state.id, ()):
                if not future.done():
                    future.set_result(state)
        if self._observe is not None:
            self._observe(before, turned, given)

    # -- what is known -------------------------------------------------------------------------------------------

    async def load(self, appointment: UUID) -> Appointment:
        """The state as of the last durable event; version 0 when there is none. Raises `HistoryError`."""
        state = self._cache.get(appointment)
        if state is not None and await self._moved_on(state):
            state = None
        return state or await self._known(appointment)

    async def _known(self, appointment: UUID) -> Appointment:
        """As `load`; on a shared store perhaps as it was before another worker went on with it."""
        state = self._cache.get(appointment)
        if state is None:
            state = Appointment(appointment)
            for recorded in await self.store.events(appointment):
                state = evolve(state, decode(recorded))
        return state

    async def _moved_on(self, state: Appointment) -> bool:
        """Whether another worker has gone on from this state; then it is forgotten. On a store of one's own, never."""
        if self._members is None or not await self.store.events(state.id, state.version, 1):
            return False
        self._cache.pop(state.id, None)
        return True

    def forget(self, appointment: UUID) -> None:
        """Remember nothing of an appointment: what the log says of it is to be read anew."""
        self._cache.pop(appointment, None)

    async def settled(self, appointment: UUID, timeout_s: float) -> Appointment:
        """Wait for the end (or for parking), at most `timeout_s`; the state as it is then."""
        state = await (self._known(appointment) if appointment in self._calling else self.load(appointment))
        if state.state in SETTLED or state.parked or timeout_s <= 0:
            return state
        future: asyncio.Future[Appointment] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(appointment, []).append(future)
        state = self._cache.get(appointment, state)
        if state.state in SETTLED or state.parked:
            # It ended while it was being loaded.
            future.set_result(state)
        try:
            return await self._first_known(appointment, future, timeout_s)
        finally:
            waiting = self._waiting.get(appointment, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[appointment]

    async def _first_known(self, appointment: UUID, told: asyncio.Future[Appointment], timeout_s: float) -> Appointment:
        """Whichever comes first: this process tells of the end, the log shows it, or the time is over."""
        loop = asyncio.get_running_loop()
        ends_at, look_after_s = loop.time() + timeout_s, LOOK_S
        while (left_s := ends_at - loop.time()) > 0:
            # While a call is out from here, this process is the first to know of its end.
            here = self._members is None or appointment in self._calling
            if (await asyncio.wait((told,), timeout=min(left_s, POLL_S if here else look_after_s)))[0]:
                return told.result()
            # An append whose answer was lost has told nobody.
            try:
                state = await self.load(appointment)
            except StoreUnavailable:
                look_after_s = STORE_RETRY_S
                continue
            if state.state in SETTLED or state.parked:
                return state
            look_after_s = min(2 * look_after_s, POLL_S)
        return await self.load(appointment)

    async def _plan(self, digest: str) -> SagaPlan:
        plan = self._plans.get(digest)
        if plan is None:
            recorded = await self.store.events(definition_stream(digest), limit=1)
            if not recorded:
                raise HistoryError(f"the log holds no definition {digest}")
            fact = decode(recorded[0])
            assert isinstance(fact, e.DefinitionRegistered)
            plan = self._plans[digest] = SagaPlan.model_validate(fact.plan)
        return plan

    @property
    def runs(self) -> frozenset[tuple[str, int, str]]:
        """The sagas (name, version) that this process can carry out, at each provider that it knows."""
        return frozenset((*saga, provider) for saga in self._sagas for provider in self._providers)

    async def run_by_anybody(self) -> frozenset[tuple[str, int, str]]:
        """As `runs`, of all who work on this store."""
        return self.runs if self._members is None else self.runs | await self._members.run_by_anybody()

    def _carries(self, plan: SagaPlan) -> bool:
        saga = self._sagas.get((plan.name, plan.version))
        if saga is None or plan.provider not in self._providers:
            return False
        # Among others, one that has a step may be there, or come; alone, a step that is gone is parked with its reason.
        return self._members is None or saga.carries(plan)

    # -- among other workers, on a shared store ------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Who this is, in the rows that it has; on a shared store a new one after it was declared dead."""
        return self._owner if self._members is None else self._members.owner

    def _struck(self, name: str) -> None:
        if self._members is not None:
            self._members.struck(name)

    def _still(self, name: str) -> bool:
        return self._members is None or self._members.holds(name)

    async def _admitted(self, effect: Effect) -> bool:
        if self._members is None:
            return True
        return await self._members.lanes.admits(effect.target, timedelta(milliseconds=effect.timeout_ms))

    # -- effects -------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            # A fault in our own code: its appointment is due again when the announced call has run out.
            task.get_loop().call_exception_handler({"message": "a turn failed", "exception": fault, "task": task})

    async def _call(self, state: Appointment, effect: Write | Read, name: str) -> None:
        try:
            ended = await self._outcome(state, effect, name)
            if ended is not None and name == self.name:
                await self._record(state.id, ended)
        finally:
            # Until here the call counts as running: a due row must not take it for one that was cut off.
            if self._calling.get(state.id) is effect:
                del self._calling[state.id]

    async def _outcome(self, state: Appointment, effect: Write | Read, name: str) -> Input | None:
        """What came of a call; None when it did not leave, because others may have taken it over meanwhile."""
        outcome: Outcome | None = None
        began = self.clock.now()
        try:
            if self._trace_context is not None:
                state = but(state, traceparent=self._trace_context(state, effect, began))
            plan = await self._plan(state.definition)
            saga, provider = self._sagas[plan.name, plan.version], self._providers[plan.provider]
            if not self._still(name):
                return None
            if isinstance(effect, Write):
                outcome = written = await effects.write(state, effect, saga, provider)
                return CallEnded(effect.step, effect.operation, effect.operation_id, effect.attempt, written)
            outcome = seen = await effects.read(state, effect, saga, provider)
            return ReadEnded(effect.step, effect.purpose, seen, began)
        finally:
            self.lanes.give_back(effect.target, state.tenant, self.clock.now(), outcome)
            if self.lanes.waited:
                self._wake.set()
            if self._members is not None and outcome is not None:
                await self._members.lanes.heard(effect.target, outcome)

    async def _record(self, appointment: UUID, given: Input) -> None:
        """Record an outcome, however long the store takes no writes; the due row covers a crash meanwhile."""
        while True:
            try:
                await self.give(appointment, given)
                return
            except LeaseLost:
                return
            except StoreUnavailable:
                if self._closing:
                    return
                await asyncio.sleep(STORE_RETRY_S)
            except HistoryError:
                await self._set_aside(appointment)
                return

    # -- timers, queue and recovery ------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                looked_at = self.clock.now()
                if not await self._hand_out(looked_at):
                    await self._sleep(looked_at)
            except StoreUnavailable:
                await asyncio.sleep(STORE_RETRY_S)
            except Exception as fault:
                # Whatever is wrong with one row, the others are still to be handed out.
                asyncio.get_running_loop().call_exception_handler({"message": "a turn failed", "exception": fault})
                await asyncio.sleep(POLL_S)

    async def _hand_out(self, now: datetime) -> int:
        busy = tuple(self._calling)
        limit, closed = DUE_BATCH, self.lanes.closed(now)
        if self._members is not None:
            limit, closed = min(self._members.handed_max, limit), (*closed, *self._members.not_run)
        rows = await self.store.due(now, limit, closed, busy[:DUE_BATCH])
        ready = self._with_places([row for row in rows if row.stream_id not in self._calling], now)
        gone = await asyncio.gather(*(self._wake_up(row) for row in ready))
        if self._members is not None:
            taken_up = {row.stream_id for row, went in zip(ready, gone, strict=True) if went}.union(self._calling)
            await self._members.hand_back([row for row in rows if row.stream_id not in taken_up], len(rows))
        return len(ready)

    def _with_places(self, rows: Sequence[OpenWork], now: datetime) -> list[OpenWork]:
        """Those that may go, as many of each lane as there are places: the others would be loaded for nothing."""
        left: dict[str, int] = {}
        ready = []
        for row in rows:
            target, tenant = _calls(row, now)
            if target:
                places = left.setdefault(target, self.lanes.target(target).places)
                of_tenant = left.setdefault(row.lane, self.lanes.places(target, tenant))
                if min(places, of_tenant) <= 0 or not self._may_go(row, now):
                    self.lanes.wait(target, tenant)
                    continue
                left[target], left[row.lane] = places - 1, of_tenant - 1
            ready.append(row)
        return ready

    def _may_go(self, row: OpenWork, now: datetime) -> bool:
        target, tenant = _calls(row, now)
        return not target or self.lanes.hold(target, tenant, now) is None

    async def _wake_up(self, row: OpenWork) -> bool:
        """Give a due row its turn; False where its lane has no place left."""
        try:
            cached = self._cache.get(row.stream_id)
            if cached is not None and cached.version < row.version:
                self._cache.pop(row.stream_id)
            state = await self._known(row.stream_id)
            plan = await self._plan(state.definition)
            if not self._carries(plan):
                await self._leave_to_others(row, state, plan)
            # Those before it may have taken the last place: its turn would only write its row anew.
            elif not self._may_go(row, self.clock.now()):
                return False
            else:
                await self.give(row.stream_id, Due())
        except HistoryError:
            await self._set_aside(row.stream_id)
        except ConcurrencyConflict:
            self._cache.pop(row.stream_id, None)
        except StoreUnavailable:
            raise
        except Exception as fault:
            # A fault in our own code, met by this appointment alone: it tries again later, and the others go on now.
            asyncio.get_running_loop().call_exception_handler({"message": "a turn failed", "exception": fault})
            await self._put_off(row)
        return True

    async def _leave_to_others(self, row: OpenWork, state: Appointment, plan: SagaPlan) -> None:
        """What this process does not run waits for one that does: another worker at once, or the next to be started."""
        due_at = self.clock.now()
        after = later(row, due_at + NOBODY_RUNS)
        if self._members is not None:
            after = later(row, due_at, self._members.leaves_to_others(plan))
        await self.store.append(Append(row.stream_id, state.version, (), after))

    async def _put_off(self, row: OpenWork) -> None:
        self._cache.pop(row.stream_id, None)
        version = await self._version(row)
        await self.store.append(Append(row.stream_id, version, (), later(row, self.clock.now() + NOBODY_RUNS)))

    async def _set_aside(self, appointment: UUID) -> None:
        """A stream that cannot be read is parked by its row alone; the others go on."""
        self._cache.pop(appointment, None)
        row = await self.store.work(appointment)
        if row is not None:
            await self.store.append(Append(appointment, await self._version(row), (), later(row, None)))

    async def _version(self, row: OpenWork) -> int:
        try:
            return len(await self.store.events(row.stream_id))
        except HistoryError:
            # Not even its rows can be read; the open work says which was the last when it was written.
            return row.version

    async def _sleep(self, looked_at: datetime) -> None:
        # What fell due since the look is next: asked for what is later than now, the store would pass over it.
        next_due = await self.store.next_due(looked_at)
        now = self.clock.now()
        until = min(filter(None, (next_due, self.lanes.reopens_at(now))), default=None)
        wait_s = POLL_S if until is None else min(POLL_S, max(0.001, (until - now).total_seconds()))
        self._sleeping_until = now + timedelta(seconds=wait_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._sleeping_until = None

    # -- callbacks -----------------------------------------------------------------------------------------------

    async def called_back(self, provider: str, client_ref: str, told: CalledBack) -> bool:
        """A verified callback. False: nobody here knows the reference; it is kept in a stream of its own."""
        try:
            appointment = UUID(client_ref)
            state = await self.load(appointment)
        except ValueError:
            appointment, state = None, None
        if appointment is not None and state is not None and state.version and state.provider == provider:
            await self.give(appointment, told)
            return True
        await self.keep_callback(provider, client_ref, told)
        return False

    async def keep_callback(self, provider: str, client_ref: str, told: CalledBack) -> None:
        """Keep a callback that reaches no appointment, in a stream of its own, once."""
        stream = orphan_stream(provider, told.webhook_id)
        orphan = e.OrphanCallbackReceived(
            at=self.clock.now(),
            provider=provider,
            webhook_id=told.webhook_id,
            client_ref=client_ref,
            status=BookingStatus(told.status),
            provider_ref=told.provider_ref,
            version=told.version,
        )
        with suppress(ConcurrencyConflict):
            await self.store.append(Append(stream, 0, (encode(stream, 1, orphan),), touches_work=False))


def _calls(row: OpenWork, now: datetime) -> tuple[str, str]:
    """The target and the tenant of the call that a due row waits for; none where it waits for no place."""
    if row.deadline_at is not None and row.deadline_at <= now:
        return "", ""
    target, _, tenant = row.lane.rpartition("/")
    return target, tenant
