"""From turns to spans: one for each call, each wait before a call, each callback, and each command's whole course.

An observer of the runtime, so it tells what is durable. Names and attributes follow the OpenTelemetry semantic
conventions (1.38). Nothing that somebody typed, and nothing that a provider said in words, becomes an attribute.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from appointments.telemetry.context import HERE, Context, course, left, same_course, written
from appointments.telemetry.spans import Attributes, Spans
from domain import events as e
from domain.appointment import Appointment, Progress, operation_of
from domain.lifecycle import SETTLED, State
from saga.clock import Clock
from saga.inputs import CalledBack, CallEnded, Effect, Input, ReadEnded, Turn

NOTED = frozenset(
    {
        e.RetryScheduled,
        e.StepInDoubt,
        e.CallDeferred,
        e.CompensationBegun,
        e.LateSuccess,
        e.RescheduleFailed,
        e.AppointmentParked,
    }
)
"""What is told as an event of the span because of which it happened; what else happens is a span of its own."""
FAILURES = frozenset({"retryable", "unknown", "rejected", "interrupted"})
WRITES = {e.Operation.ACTION: "create", e.Operation.COMPENSATION: "cancel", e.Operation.RESCHEDULE: "reschedule"}

Routes = Mapping[str, Mapping[str, str]]
"""By the name of a provider or a step, and by what is asked of it: `METHOD /url/{template}`."""


class Left(NamedTuple):
    """A call that has left."""

    span: Context
    within: Context
    began: datetime
    by_ref: bool


_LEFT: ContextVar[Left | None] = ContextVar("call", default=None)


class Tracing:
    """Sees every turn. `ratio`: the share that is kept of the traces that begin here."""

    def __init__(self, spans: Spans, clock: Clock, ratio: float, routes: Routes) -> None:
        self.spans, self.ratio, self._clock, self._routes = spans, ratio, clock, routes

    def leaves(self, state: Appointment, effect: Effect, began: datetime) -> str:
        """A call leaves, in a task of its own: its turn will come in the same one. The context that it carries."""
        within, _ = course(state, self.ratio)
        span = left(within, state, effect, began)
        _LEFT.set(Left(span, within, began, state.foreign))
        HERE.set(span)
        return str(span)

    def requested(
        self, span: Context, parent: Context | None, times: tuple[datetime, datetime], about: Attributes, status: int
    ) -> None:
        """A request was answered; `status` 0: it was not."""
        name = " ".join(str(about[part]) for part in ("http.request.method", "http.route") if part in about)
        failed = not status or status >= 500
        self.spans.end(name, span, parent, times, about, SpanKind.SERVER, failed)

    def __call__(self, before: Appointment, turned: Turn, given: Input) -> None:
        """A turn is durable."""
        state = turned.state
        noted = [(_name(event), event.at) for event in turned.events if type(event) in NOTED]
        call = _LEFT.get()
        if isinstance(given, CallEnded | ReadEnded) and call is not None:
            self._called(state, given, call, turned.events[0].at if turned.events else self._clock.now(), noted)
        elif isinstance(given, CalledBack):
            self._called_back(state, given, turned.events[0].at, noted)
        elif noted:
            self._decided(state, noted)
        for event in turned.events:
            if isinstance(event, e.StepStarted):
                self._waited(before, state, event)
            elif isinstance(event, e.CallInterrupted):
                self._interrupted(before, event)
        self._ended(before, state)

    def _called(
        self,
        state: Appointment,
        given: CallEnded | ReadEnded,
        call: Left,
        ended: datetime,
        noted: list[tuple[str, datetime]],
    ) -> None:
        if isinstance(given, CallEnded):
            name, about = self._write(state, given.step, given.operation, given.attempt)
        else:
            what = "get" if given.purpose == "poll" or call.by_ref else "find"
            name, about = self._about(state, given.step, what, given.purpose)
        about["appointments.outcome"] = kind = given.outcome.kind
        if kind in FAILURES:
            about["error.type"] = kind
        times = (call.began, ended)
        self.spans.end(name, call.span, call.within, times, about, SpanKind.CLIENT, kind in FAILURES, events=noted)

    def _interrupted(self, before: Appointment, event: e.CallInterrupted) -> None:
        """Its caller died: the span that it carried is told by whoever found it."""
        flight = before.in_flight
        assert flight is not None
        within, _ = course(before, self.ratio)
        name, about = self._write(before, flight.step, flight.operation, flight.attempt)
        about["appointments.outcome"] = about["error.type"] = "interrupted"
        times = (before.updated_at or event.at, event.at)
        span = written(within, flight.operation_id, flight.attempt)
        self.spans.end(name, span, within, times, about, SpanKind.CLIENT, failed=True)

    def _waited(self, before: Appointment, state: Appointment, event: e.StepStarted) -> None:
        if before.deferred_since is not None:
            since, why = before.deferred_since, "breaker"
        elif operation_of(before, event.step, event.operation).progress is Progress.WAITING:
            since, why = before.updated_at or event.at, "retry"
        else:
            return
        within, _ = course(state, self.ratio)
        about = {"appointments.id": str(state.id), "appointments.step": event.step, "appointments.wait": why}
        span = within.span("wait", event.operation_id, event.attempt)
        self.spans.end(f"wait for {why}", span, within, (since, event.at), about)

    def _called_back(
        self, state: Appointment, given: CalledBack, at: datetime, noted: list[tuple[str, datetime]]
    ) -> None:
        """It belongs to the appointment's trace, and points to that of the request that brought it."""
        within, _ = course(state, self.ratio)
        about = {"appointments.id": str(state.id), "appointments.callback.status": str(given.status)}
        span, times = within.span("callback", state.id, state.version), (at, self._clock.now())
        self.spans.end("callback", span, within, times, about, SpanKind.CONSUMER, link=HERE.get(), events=noted)

    def _decided(self, state: Appointment, noted: list[tuple[str, datetime]]) -> None:
        """Something was decided with no call behind it, such as that a deadline has passed."""
        within, _ = course(state, self.ratio)
        span, times = within.span("turn", state.id, state.version), (noted[0][1], noted[-1][1])
        self.spans.end("turn", span, within, times, {"appointments.id": str(state.id)}, events=noted)

    def _ended(self, before: Appointment, state: Appointment) -> None:
        goes_on = same_course(before, state)
        if before.version and before.state not in SETTLED and not goes_on:
            self._course(before, state)
        if state.state in SETTLED and (before.state not in SETTLED or not goes_on):
            self._course(state, state)

    def _course(self, whose: Appointment, until: Appointment) -> None:
        """What a command has set going has come to its end, or another command has come between."""
        span, asked = course(whose, self.ratio)
        assert until.updated_at is not None
        about = {"appointments.id": str(whose.id), "appointments.state": str(until.state)}
        if until.reason is not None:
            about["appointments.reason"] = str(until.reason)
        times = (whose.asked_at or until.updated_at, until.updated_at)
        name = f"{whose.keys[-1][0]} appointment"
        self.spans.end(name, span, asked, times, about, failed=until.state is State.FAILED)

    def _write(
        self, state: Appointment, step: str, operation: e.Operation, attempt: int
    ) -> tuple[str, dict[str, str | int]]:
        books = step == state.booking_step.name
        name, about = self._about(state, step, WRITES[operation] if books else str(operation), str(operation))
        about["appointments.attempt"] = attempt
        if attempt > 1:
            about["http.request.resend_count"] = attempt - 1
        return name, about

    def _about(self, state: Appointment, step: str, what: str, operation: str) -> tuple[str, dict[str, str | int]]:
        whom = state.provider if step == state.booking_step.name else step
        about: dict[str, str | int] = {
            "appointments.id": str(state.id),
            "appointments.step": step,
            "appointments.operation": operation,
            "peer.service": whom,
        }
        route = self._routes.get(whom, {}).get(what)
        if route is None:
            return f"{what} {whom}", about
        about["http.request.method"], _, about["url.template"] = route.partition(" ")
        return route, about


def _name(event: e.Event) -> str:
    return event.type.rpartition(".")[0]
