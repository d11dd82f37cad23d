"""The plain synchronous face: the same calls, blocking, on an event loop of its own in one thread."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from appointments.orchestrator import Orchestrator
from appointments.outbox.sink import Subscriber
from appointments.privacy import Erasure
from appointments.reconciling import Healed
from appointments.settings import Settings
from appointments.views import Appointment, AppointmentFilter, AppointmentPage, AuditEvent, Rebuilt
from projections.figures_report import FiguresReport
from projections.health import Health
from projections.reconciliation.model import Report
from projections.views import Progress
from saga.replay import Replay

T = TypeVar("T")


class SyncOrchestrator:
    """`with SyncOrchestrator.open(Settings(...)) as desk:`; see `Orchestrator` for what each call does and raises."""

    def __init__(self, opening: AbstractAsyncContextManager[Orchestrator]) -> None:
        self._opening = opening

    @classmethod
    def open(cls, settings: Settings | None = None, **parts: Any) -> Self:
        """As `Orchestrator.open`, as a plain context manager."""
        return cls(Orchestrator.open(settings, **parts))

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="appointments", daemon=True)
        self._thread.start()
        try:
            self._desk = self._run(self._opening.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._opening.__aexit__(kind, fault, trace))
        finally:
            self._end()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def book(self, command: Any, *, key: str, wait: float | None = None, **who: Any) -> Appointment:
        """See `Orchestrator.book`."""
        return self._run(self._desk.book(command, key=key, wait=wait, **who))

    def import_booking(self, command: Any, *, key: str, **who: Any) -> Appointment:
        """See `Orchestrator.import_booking`."""
        return self._run(self._desk.import_booking(command, key=key, **who))

    def would_import(self, command: Any, *, key: str, **who: Any) -> bool:
        """See `Orchestrator.would_import`."""
        return self._run(self._desk.would_import(command, key=key, **who))

    def holders(self, provider_refs: Any) -> Any:
        """See `Orchestrator.holders`."""
        return self._run(self._desk.holders(provider_refs))

    def cancel(self, id: UUID | str, *, key: str, **more: Any) -> Appointment:
        """See `Orchestrator.cancel`."""
        return self._run(self._desk.cancel(id, key=key, **more))

    def reschedule(self, id: UUID | str, *, key: str, **more: Any) -> Appointment:
        """See `Orchestrator.reschedule`."""
        return self._run(self._desk.reschedule(id, key=key, **more))

    def act(self, id: UUID | str, action: str, *, actor: str, reason: str, **more: Any) -> Appointment:
        """See `Orchestrator.act`."""
        return self._run(self._desk.act(id, action, actor=actor, reason=reason, **more))

    def observe(self, id: UUID | str, seen: Any, repair: str, *, actor: str, reason: str, **more: Any) -> Appointment:
        """See `Orchestrator.observe`."""
        return self._run(self._desk.observe(id, seen, repair, actor=actor, reason=reason, **more))

    def erase(self, **whom: Any) -> Erasure:
        """See `Orchestrator.erase`."""
        return self._run(self._desk.erase(**whom))

    def ui_event(self, event: Any, *, key: str, **more: Any) -> Appointment:
        """See `Orchestrator.ui_event`."""
        return self._run(self._desk.ui_event(event, key=key, **more))

    def show(self, id: UUID | str, **more: Any) -> Appointment:
        """See `Orchestrator.show`."""
        return self._run(self._desk.show(id, **more))

    def list(self, wanted: AppointmentFilter | None = None) -> AppointmentPage:
        """See `Orchestrator.list`."""
        return self._run(self._desk.list(wanted))

    def figures(self, **window: Any) -> FiguresReport:
        """See `Orchestrator.figures`."""
        return self._run(self._desk.figures(**window))

    def read(self, id: UUID | str, **more: Any) -> Any:
        """See `Orchestrator.read`."""
        return self._run(self._desk.read(id, **more))

    def hours(self, since: Any, **more: Any) -> Any:
        """See `Orchestrator.hours`."""
        return self._run(self._desk.hours(since, **more))

    def pulse(self, **more: Any) -> Any:
        """See `Orchestrator.pulse`."""
        return self._run(self._desk.pulse(**more))

    def rebuild(self, *names: str, progress: Progress | None = None) -> Rebuilt:
        """See `Orchestrator.rebuild`; `progress` is called in another thread."""
        return self._run(self._desk.rebuild(*names, progress=progress))

    def events(self, id: UUID | str, **more: Any) -> tuple[AuditEvent, ...]:
        """See `Orchestrator.events`."""
        return self._run(self._desk.events(id, **more))

    def replay(self, id: UUID | str, **more: Any) -> Replay:
        """See `Orchestrator.replay`."""
        return self._run(self._desk.replay(id, **more))

    def state_at(self, id: UUID | str, **more: Any) -> Appointment:
        """See `Orchestrator.state_at`."""
        return self._run(self._desk.state_at(id, **more))

    def reconcile(self, calendar: str, **wanted: Any) -> Report:
        """See `Orchestrator.reconcile`."""
        return self._run(self._desk.reconcile(calendar, **wanted))

    def heal(self, report: Report, *, dry_run: bool = True, **more: Any) -> tuple[Healed, ...]:
        """See `Orchestrator.heal`."""
        return self._run(self._desk.heal(report, dry_run=dry_run, **more))

    def health(self) -> Health:
        """See `Orchestrator.health`."""
        return self._run(self._desk.health())

    @contextmanager
    def outbox(self, *further: Subscriber) -> Iterator[None]:
        """See `Orchestrator.outbox`; a subscriber in this process is called in another thread."""

        async def begun() -> AbstractAsyncContextManager[None]:
            running = self._desk.outbox(*further)
            await running.__aenter__()
            return running

        running = self._run(begun())
        try:
            yield
        finally:
            self._run(running.__aexit__(None, None, None))
