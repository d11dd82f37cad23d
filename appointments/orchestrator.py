"""The Python face: book, cancel, reschedule, act, and know. The same commands as every other way in."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from appointments import bootstrap
from appointments.callbacks import Called
from appointments.migration.reading import Reading, read_there
from appointments.migration.split import Leader
from appointments.outbox.sink import Subscriber
from appointments.privacy import Erasure, ErasureRequest, erase, erasure_of
from appointments.reconciling import Healed, bookmarks, check, give_all, planned
from appointments.settings import Settings
from appointments.telemetry.context import traceparent
from appointments.telemetry.vitals import vitals
from appointments.views import (
    Appointment,
    AppointmentFilter,
    AppointmentPage,
    AuditEvent,
    Rebuilt,
    audit_trail,
    seen,
    view,
)
from domain import events as e
from domain.appointment import Appointment as State
from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    Command,
    ImportBooking,
    Instant,
    OperatorAction,
    Repair,
    ReportBooking,
    Request,
    RescheduleAppointment,
    parse,
)
from domain.decide import decide
from domain.definition import SagaPlan
from domain.errors import HistoryError, IllegalTransition, InvalidFields, UnknownAppointment
from domain.evolve import evolve
from domain.identity import appointment_id
from domain.labels import LABELS, action_label
from domain.lifecycle import SETTLED
from domain.personal import appointment_subject, subject
from domain.provider import BookingStatus, Provider, ProviderBooking, Value
from projections.current_state import CurrentStates, holders, page
from projections.figures import Figures
from projections.figures_query import hours as read_hours
from projections.figures_query import read as read_figures
from projections.figures_report import FiguresReport, HourFigures
from projections.health import Health, health
from projections.ownership import tenant_of
from projections.pulse import OVERDUE_MAX, BreakerState, Pulse, overdue
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.healing import Cure, plan
from projections.reconciliation.intended import Scope
from projections.reconciliation.model import Policy, Report
from projections.reconciliation.run import Wanted, nobody
from projections.reconciliation.run import reconcile as compare
from projections.reconciliation.survey import Sides, Told
from projections.views import Progress, Views
from saga.audit import Auditor
from saga.breaker import Breaker, standing
from saga.clock import Clock
from saga.definition import Saga, Step
from saga.inputs import Asked, CalledBack
from saga.replay import Replay
from store.mapper import decode
from store.port import RecordedEvent, Store

WAIT_MAX_S = 86_400.0


class _AsOf(Value):
    """A moment in the history of an appointment."""

    version: int | None
    at: Instant | None


class Orchestrator:
    """The appointment desk of one store. `async with Orchestrator.open(Settings(...)) as desk:`."""

    def __init__(self, parts: bootstrap.Parts) -> None:
        self._parts, self._runtime, self.settings = parts, parts.runtime, parts.settings
        self._views, self.tracing, self.vitals = parts.views, parts.tracing, partial(vitals, parts)
        self._plans: dict[str, SagaPlan] = {}
        self._bookmarks: Bookmarks | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        providers: tuple[Provider, ...] = (),
        sagas: tuple[Saga, ...] = (),
        steps: tuple[Step, ...] = (),
        clock: Clock | None = None,
        store: Store | None = None,
        listen: bool = True,
    ) -> AsyncIterator[Self]:
        """Open the store, take up what was left unfinished, and serve until the block ends.

        Further steps, sagas and providers are registered here. With a `callback_secret` in the settings it also
        listens for the provider's signed callbacks; with `listen` False somebody else hands them over. Raises
        `StoreLocked` when another process has the file, `InvalidFields` for settings that name nothing usable.
        """
        settings = settings or Settings()
        async with AsyncExitStack() as stack:
            listener = None
            if listen and settings.callback_secret is not None:
                listener = await stack.enter_async_context(bootstrap.make_listener(settings))
                url = settings.callback_url or listener.url(settings.provider_name)
                settings = settings.model_copy(update={"callback_url": url})
            parts = await bootstrap.build(
                settings, providers=providers, sagas=sagas, steps=steps, clock=clock, store=store
            )
            stack.push_async_callback(parts.close)
            desk = cls(parts)
            parts.views.follow()
            desk._bookmarks = bookmarks(settings) if store is None else None
            if listener is not None:
                listener.receiver.deliver = desk.called_back
            yield desk

    # -- commands ------------------------------------------------------------------------------------------------

    async def book(
        self, command: BookAppointment | Mapping[str, Any], *, key: str, wait: float | None = None, **who: Any
    ) -> Appointment:
        """Book. Returns when the command is durable; with `wait` (seconds), at the end or when that time is over.

        `who`: tenant, actor, correlation_id, action_label; traceparent, where it is not that of the request in hand.
        The same key and payload give the same appointment. Raises `InvalidFields`, `KeyReused`, `StoreUnavailable`.
        """
        asked = _checked(BookAppointment, command)
        request = self._request(key, who)
        id = appointment_id(request.tenant, key)
        return await self._give(id, asked, request, wait, await self._plan_of_new(id, asked, request))

    async def import_booking(self, command: ImportBooking | Mapping[str, Any], *, key: str, **who: Any) -> Appointment:
        """Take over a booking that another system made; it is kept, moved and cancelled here from then on.

        The same key and content take it over once; to book the same under that key then calls nobody. Raises as `book`.
        """
        asked = command if isinstance(command, ImportBooking) else parse(ImportBooking, command)
        request = self._request(key, who)
        plan = self._plan(self.provider(asked.booked.calendar))
        return await self._give(appointment_id(request.tenant, key), asked, request, None, plan)

    async def would_import(self, command: ImportBooking | Mapping[str, Any], *, key: str, **who: Any) -> bool:
        """Whether `import_booking` would find it taken over already. Nothing is recorded. Raises as that does."""
        asked = command if isinstance(command, ImportBooking) else parse(ImportBooking, command)
        request = self._request(key, who)
        state = await self._runtime.load(appointment_id(request.tenant, key))
        plan = self._plan(self.provider(asked.booked.calendar))
        return decide(state, asked, request, self._parts.clock.now(), plan).replayed

    async def holders(self, provider_refs: Sequence[str]) -> dict[tuple[str, str], UUID]:
        """Which appointments, of whatever tenant, hold bookings of these names, by calendar and name."""
        return (await self._views.read(CurrentStates.name, partial(holders, provider_refs=provider_refs)))[0]

    async def cancel(
        self, id: UUID | str, *, key: str, reason: str = "", wait: float | None = None, **who: Any
    ) -> Appointment:
        """Cancel. Raises `UnknownAppointment`, `IllegalTransition`, `StaleVersion`, `KeyReused`."""
        command = parse(CancelAppointment, {"reason": reason})
        return await self._give(_uuid(id), command, self._request(key, who), wait)

    async def reschedule(
        self,
        id: UUID | str,
        *,
        start: datetime | str,
        end: datetime | str,
        key: str,
        time_zone: str | None = None,
        wait: float | None = None,
        **who: Any,
    ) -> Appointment:
        """Move to another time. Raises as `cancel` does."""
        command = parse(RescheduleAppointment, {"start": start, "end": end, "time_zone": time_zone})
        return await self._give(_uuid(id), command, self._request(key, who), wait)

    async def act(
        self,
        id: UUID | str,
        action: OperatorAction | str,
        *,
        actor: str,
        reason: str,
        step: str | None = None,
        key: str | None = None,
        wait: float | None = None,
        **who: Any,
    ) -> Appointment:
        """An operator's action. Without a key, the same action at the same version is done once."""
        command = parse(Act, {"action": action, "reason": reason, "step": step})
        appointment = _uuid(id)
        if key is None:
            key = f"act-{command.action}-{(await self._state(appointment, who.get('tenant'))).version}"
        return await self._give(appointment, command, self._request(key, {**who, "actor": actor}), wait)

    async def observe(
        self,
        id: UUID | str,
        seen: ProviderBooking | Mapping[str, Any] | None,
        repair: Repair | str,
        *,
        actor: str,
        reason: str,
        key: str | None = None,
        wait: float | None = None,
        **who: Any,
    ) -> Appointment:
        """Report a booking that stands at the provider otherwise than here (None: gone), and say what is to come of it.

        Raises as `cancel` does, also where nothing differs. Without a key, as `act`.
        """
        command = parse(ReportBooking, {"seen": seen, "repair": repair, "reason": reason})
        appointment = _uuid(id)
        if key is None:
            key = f"report-{command.repair}-{(await self._state(appointment, who.get('tenant'))).version}"
        return await self._give(appointment, command, self._request(key, {**who, "actor": actor}), wait)

    async def ui_event(
        self, event: Mapping[str, Any], *, key: str, wait: float | None = None, **who: Any
    ) -> Appointment:
        """An event of the legacy front end as a command. Raises `UnknownLabel`; then nothing is recorded."""
        if not isinstance(event, Mapping):
            raise InvalidFields("the event is no object", (("", "Input should be an object"),))
        label = action_label(event)
        payload = event.get("payload")
        if not isinstance(payload, Mapping):
            raise InvalidFields("the event has no payload object", (("/payload", "Field required"),))
        who = {**who, "action_label": label}
        name = LABELS[label]
        if name == "book":
            return await self.book(payload, key=key, wait=wait, **who)
        fields = dict(payload)
        appointment = fields.pop("appointment_id", None)
        if not isinstance(appointment, str | UUID):
            raise InvalidFields(f"{name} needs the appointment_id", (("/payload/appointment_id", "Field required"),))
        model: type[CancelAppointment | RescheduleAppointment] = (
            CancelAppointment if name == "cancel" else RescheduleAppointment
        )
        return await self._give(_uuid(appointment), parse(model, fields), self._request(key, who), wait)

    async def called_back(
        self, provider: str, webhook_id: str, client_ref: str, provider_ref: str, status: str, version: int
    ) -> bool:
        """A provider's callback whose signature has been checked.

        False: kept for an operator, as nobody here knows the reference, or its stream cannot be read. Raises
        `InvalidFields` for what no provider may say.
        """
        fields = {"id": provider_ref, "client_ref": client_ref, "version": version, "status": status}
        data = parse(Called, {**fields, "webhook_id": webhook_id})
        told = CalledBack(data.webhook_id, data.id, BookingStatus(data.status), data.version)
        try:
            return await self._runtime.called_back(provider, client_ref, told)
        except HistoryError:
            await self._runtime.keep_callback(provider, client_ref, told)
            self._parts.log.unreadable(client_ref, provider)
            return False

    async def erase(
        self,
        *,
        email: str | None = None,
        appointment: UUID | str | None = None,
        reference: str,
        dry_run: bool = True,
        tenant: str | None = None,
        actor: str | None = None,
    ) -> Erasure:
        """Make what is known of a person (or of an appointment that names nobody) unreadable for good.

        `reference` is the number of the request. Raises `IllegalTransition` while an appointment concerned is
        unfinished; `InvalidFields`.
        """
        asked = parse(ErasureRequest, {"actor": actor or self.settings.actor, "reference": reference})
        if (email is None) == (appointment is None):
            raise InvalidFields("name one of them: an e-mail address, or an appointment that names nobody")
        name = appointment_subject(_uuid(appointment)) if appointment is not None else ""
        if email is not None:
            name = subject(tenant or self.settings.tenant, email)
        if dry_run:
            return await erasure_of(self._parts.store, name)
        erased = await erase(self._parts.store, name, asked, self._parts.clock, self._runtime.forget)
        await self._views.catch_up()
        return erased

    # -- what is known -------------------------------------------------------------------------------------------

    async def show(self, id: UUID | str, *, tenant: str | None = None, wait: float | None = None) -> Appointment:
        """One appointment as it stands now (read-your-writes). Raises `UnknownAppointment`."""
        state = await self._state(_uuid(id), tenant)
        if wait:
            state = await self._runtime.settled(state.id, min(wait, WAIT_MAX_S))
        return await self._seen(state)

    async def read(self, id: UUID | str, *, tenant: str | None = None) -> Reading:
        """One appointment, answered by whom the split says: the log, or the calendar, compared with the log.

        Without a legacy system the log answers. Raises `UnknownAppointment`.
        """
        state = await self._state(_uuid(id), tenant)
        seen = await self._seen(state)
        ours = self._parts.split.shares.answers(state.tenant, state.key) is Leader.OURS
        if ours or self._parts.legacy is None:
            return Reading(appointment=seen, answered_by=Leader.OURS)
        provider = self._parts.providers[state.provider]
        return await read_there(seen, state, provider, self.settings.call_timeout_ms)

    async def list(self, wanted: AppointmentFilter | None = None) -> AppointmentPage:
        """A page of appointments, newest first, with all that was durable at the call. Raises `InvalidFields`."""
        return await list_page(self._views, wanted or AppointmentFilter(tenant=self.settings.tenant))

    async def figures(
        self, *, since: datetime | None = None, until: datetime | None = None, tenant: str | None = None
    ) -> FiguresReport:
        """Success rate, attempts, retries, compensations and latencies, between two instants widened to whole hours.

        Raises `InvalidFields`.
        """
        query = partial(read_figures, since=since, until=until, tenant=tenant or self.settings.tenant)
        return (await self._views.read(Figures.name, query))[0]

    async def hours(self, since: datetime, *, tenant: str | None = None) -> tuple[HourFigures, ...]:
        """How many bookings were confirmed and failed, hour by hour from `since` on. Raises `InvalidFields`."""
        query = partial(read_hours, since=since, tenant=tenant or self.settings.tenant)
        return (await self._views.read(Figures.name, query))[0]

    async def pulse(self, *, tenant: str | None = None) -> Pulse:
        """What is under way, parked and overdue, and every breaker: cheap enough to be asked every second."""
        whose, now = tenant or self.settings.tenant, self._parts.clock.now()
        report, position = await self._views.read(Figures.name, partial(read_figures, since=now, tenant=whose))
        late = await overdue(self._parts.store, now, whose)
        return Pulse(
            at=now,
            position=position,
            by_state=report.total.now,
            unfinished=report.total.unfinished,
            parked=report.total.parked_now,
            overdue=len(late),
            overdue_more=len(late) >= OVERDUE_MAX,
            breakers=tuple(_breaker(name, one, now) for name, one in sorted(self._parts.lanes.breakers().items())),
        )

    async def rebuild(self, *names: str, progress: Progress | None = None) -> Rebuilt:
        """Refill these read models (all) from the log, while commands and reads go on against the old ones.

        `progress` is called with the position reached and the one to reach. Raises `StoreLocked` while another rebuild
        goes on, `InvalidFields` for a name.
        """
        return await rebuild(self._views, names, progress)

    async def events(self, id: UUID | str, *, tenant: str | None = None) -> tuple[AuditEvent, ...]:
        """The audit trail: who, when, why."""
        return await trail(self._parts.store, _uuid(id), tenant or self.settings.tenant)

    async def replay(self, id: UUID | str, *, tenant: str | None = None) -> Replay:
        """Decide again what was decided, and compare it with what was recorded. Raises `UnknownAppointment`."""
        appointment = _uuid(id)
        await _check_owner(self._parts.store, appointment, tenant or self.settings.tenant)
        return await Auditor(self._parts.store).replay(appointment)

    async def state_at(
        self, id: UUID | str, *, version: int | None = None, at: datetime | str | None = None, tenant: str | None = None
    ) -> Appointment:
        """The appointment as it was at a version, or at an instant (with an offset). Raises `InvalidFields`."""
        asked = parse(_AsOf, {"version": version, "at": at})
        return await as_it_was(self._parts.store, _uuid(id), tenant or self.settings.tenant, asked.version, asked.at)

    async def health(self) -> Health:
        """Whether anything in the log is wrong, overdue, parked or stranded.

        Walks all of it. What was signed of it, and the read models, `appointments check` looks at besides.
        """
        return await health(self._parts.store, self._parts.clock.now(), await self._runtime.run_by_anybody())

    async def reconcile(
        self,
        calendar: str,
        *,
        policy: Policy | str = Policy.PARK,
        changes: bool = False,
        with_matched: bool = False,
        tenant: str | None = None,
        told: Told = nobody,
    ) -> Report:
        """Compare a calendar with the log: intended, attempted, there. Changes nothing.

        `changes`: only what the provider says has changed since the last time. Raises `ProviderUnavailable`,
        `InvalidFields`.
        """
        here = {"calendar": calendar, "tenant": tenant or self.settings.tenant, "with_matched": with_matched}
        wanted = parse(Wanted, {**here, "policy": policy, "changes": changes})
        sides = Sides(self._parts.store, self.provider(calendar), self._parts.clock.now)
        return await compare(sides, wanted, self._bookmarks, told)

    async def heal(
        self, report: Report, *, dry_run: bool = True, wait: float | None = None, told: Told = nobody, **who: Any
    ) -> tuple[Healed, ...]:
        """Give the commands that a report proposes, or with `dry_run` only show them. A second time does nothing.

        Each is for what was compared: it is refused where the appointment has gone on since, or the calendar shows
        something else by now. `wait`: see `book`.
        """
        cures, scope = plan(report.findings), Scope(report.calendar, report.provider, report.tenant)
        if dry_run:
            return tuple(planned(cure) for cure in cures)
        sides = Sides(self._parts.store, self.provider(report.calendar), self._parts.clock.now)

        async def give(cure: Cure) -> Appointment:
            await check(cure, sides, scope)
            asked = {"tenant": report.tenant, **who, "expected_version": cure.version}
            return await self._give(cure.appointment, cure.command, self._request(cure.key, asked), wait)

        return await give_all(cures, give, told)

    def outbox(self, *further: Subscriber) -> AbstractAsyncContextManager[None]:
        """Tell the subscriptions of the settings what happens, and further subscribers, while the block runs.

        Raises `InvalidFields` for an address that is not called, and for a name that two of them have.
        """
        return bootstrap.make_outbox(self._parts, further).running()

    @property
    def runtime(self) -> Any:
        """The runtime, for those who embed it further."""
        return self._runtime

    # -- inside --------------------------------------------------------------------------------------------------

    def provider(self, calendar: str) -> Provider:
        """Who keeps a calendar. Raises `InvalidFields` where that one is not registered."""
        name = self.settings.calendars.get(calendar)
        if name is None:
            return next(iter(self._parts.providers.values()))
        try:
            return self._parts.providers[name]
        except KeyError:
            raise InvalidFields(
                f"calendar {calendar!r} is kept by provider {name!r}, which is not registered",
                (("/calendar", "its provider is not registered"),),
            ) from None

    def _plan(self, provider: Provider) -> SagaPlan:
        if provider.name not in self._plans:
            saga = self._parts.sagas[-1 if provider is self._parts.legacy else 0]
            self._plans[provider.name] = saga.plan(provider)
        return self._plans[provider.name]

    async def _plan_of_new(self, id: UUID, asked: BookAppointment, request: Request) -> SagaPlan:
        """What an appointment is booked under that has not begun; one that has goes on under its own."""
        own, legacy = self.provider(asked.calendar), self._parts.legacy
        if legacy is None or legacy.keeps != own.name:
            return self._plan(own)
        if self._parts.split.shares.leads(request.tenant, request.key) is Leader.OURS:
            return self._plan(own)
        if asked.policy is not None and not (await self._runtime.load(id)).version:
            raise InvalidFields(
                "the legacy system leads this booking, and is asked once: leave the policy out",
                (("/policy", "not while the legacy system leads"),),
            )
        return self._plan(legacy)

    def _request(self, key: str, who: Mapping[str, Any]) -> Request:
        here = {
            "tenant": self.settings.tenant,
            "actor": self.settings.actor,
            "callback_url": self.settings.callback_url,
            "traceparent": traceparent(),
        }
        request = parse(Request, {**here, **who, "key": key})
        self.settings.check_kept_here(request.tenant)
        return request

    async def _give(
        self, id: UUID, command: Command, request: Request, wait: float | None, plan: SagaPlan | None = None
    ) -> Appointment:
        if plan is None:
            await self._state(id, request.tenant)
        turned = await self._runtime.give(id, Asked(command, request), plan)
        state = turned.state
        if turned.replayed:
            self._parts.log.hit(state)
        if wait:
            state = await self._runtime.settled(id, min(wait, WAIT_MAX_S))
        wake = turned.wake.at if turned.wake and state.version == turned.state.version else None
        return view(state, wake, turned.replayed) if wake else await self._seen(state, turned.replayed)

    async def _state(self, id: UUID, tenant: str | None) -> State:
        await _check_owner(self._parts.store, id, tenant or self.settings.tenant)
        return await self._runtime.load(id)

    async def _seen(self, state: State, replayed: bool = False) -> Appointment:
        work = await self._parts.store.work(state.id)
        return view(state, work.due_at if work else None, replayed)


def _breaker(target: str, breaker: Breaker, now: datetime) -> BreakerState:
    return BreakerState(
        target=target,
        state=standing(breaker, now),
        failures=breaker.failures,
        opened=breaker.opened,
        open_until=breaker.open_until,
    )


def _checked(model: type[BookAppointment], command: BookAppointment | Mapping[str, Any]) -> BookAppointment:
    return command if isinstance(command, model) else parse(model, command)


def _uuid(id: UUID | str) -> UUID:
    try:
        return id if isinstance(id, UUID) else UUID(id)
    except (ValueError, TypeError, AttributeError):
        raise UnknownAppointment(f"{id!r} is no appointment id (a UUID)") from None


async def list_page(views: Views, wanted: AppointmentFilter) -> AppointmentPage:
    """One page of the list, from the read model. Raises `InvalidFields` for a cursor of another filter."""
    found, position = await views.read(CurrentStates.name, partial(page, wanted=wanted))
    unfinished = [one.id for one in found.items if one.state not in SETTLED]
    rows = await asyncio.gather(*(views.store.work(id) for id in unfinished))
    due = {row.stream_id: row.due_at for row in rows if row is not None}
    items = tuple(seen(one, due.get(one.id)) for one in found.items)
    return AppointmentPage(items=items, next_cursor=found.next_cursor, position=position)


async def rebuild(views: Views, names: Collection[str], progress: Progress | None) -> Rebuilt:
    """Refill read models; `names` empty: all."""
    position = await views.rebuild(names, progress)
    return Rebuilt(projections=tuple(name for name in views.names if not names or name in names), position=position)


async def _check_owner(store: Store, id: UUID, tenant: str) -> None:
    """Before anything else is read: a history of somebody else's that cannot be read is unknown like any other."""
    if await tenant_of(store, id) != tenant:
        raise UnknownAppointment(f"there is no appointment {id}")


async def _stream(store: Store, id: UUID, tenant: str) -> list[tuple[RecordedEvent, e.Event]]:
    await _check_owner(store, id, tenant)
    return [(recorded, decode(recorded)) for recorded in await store.events(id)]


async def trail(store: Store, id: UUID, tenant: str) -> tuple[AuditEvent, ...]:
    """The audit trail of one appointment. Raises `UnknownAppointment`."""
    stream = await _stream(store, id, tenant)
    first = stream[0][1]
    if not isinstance(first, e.Beginning):
        raise HistoryError(f"appointment {id} begins with {first.type}")
    return audit_trail(stream, first.correlation_id or str(id))


async def as_it_was(store: Store, id: UUID, tenant: str, version: int | None, at: datetime | None) -> Appointment:
    """The state at a version or an instant. Raises `UnknownAppointment`, `IllegalTransition` before its beginning."""
    state = State(id)
    for recorded, event in await _stream(store, id, tenant):
        if (version is not None and recorded.version > version) or (at is not None and event.at > at):
            break
        state = evolve(state, event)
    if not state.version:
        raise IllegalTransition("there was nothing yet at that version or instant")
    return view(state)
