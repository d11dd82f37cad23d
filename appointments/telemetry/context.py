"""Trace contexts: how one is read and written, and those that follow from what the log says of an appointment.

Whoever goes on with an appointment, this process or one after a crash, comes to the same ids: they are derived from the
log. Imports nothing of OpenTelemetry.
"""

import re
from contextvars import ContextVar
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple, Self

from domain.appointment import Appointment
from saga.inputs import Read, Write

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
KEPT_OF = 2**56
"""The lowest 56 bits of a trace id are random (W3C Trace Context, level 2): by them it is decided which are kept."""


class Context(NamedTuple):
    """A span by its ids, and whether its trace is kept."""

    trace_id: int
    span_id: int
    kept: bool

    @classmethod
    def read(cls, header: str | None) -> Self | None:
        """What a `traceparent` says (W3C Trace Context, 3.2); None for one that has to be ignored."""
        found = TRACEPARENT.fullmatch(header or "")
        if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
            return None
        trace_id, span_id = int(found[2], 16), int(found[3], 16)
        return cls(trace_id, span_id, bool(int(found[4], 16) & SAMPLED)) if trace_id and span_id else None

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.kept:02x}"

    def span(self, *cause: object) -> Self:
        """The span of this trace with this cause."""
        return self._replace(span_id=_id(*cause))


HERE: ContextVar[Context | None] = ContextVar("trace context", default=None)
"""The request, or the call, in whose course we are."""


def traceparent() -> str | None:
    """The trace context that a command given now is recorded with."""
    now = HERE.get()
    return None if now is None else str(now)


def is_kept(trace_id: int, ratio: float) -> bool:
    """Whether a trace that begins here is one of those that are kept."""
    return trace_id % KEPT_OF < ratio * KEPT_OF


def course(state: Appointment, ratio: float) -> tuple[Context, Context | None]:
    """The span of what the last command has set going, and the one in which that was asked for, where it told one.

    Without one, the appointment's id is the trace's.
    """
    asked = Context.read(state.traceparent)
    base = asked or Context(state.id.int, 0, is_kept(state.id.int, ratio))
    return base.span(state.id, *_stretch(state)), asked


def same_course(one: Appointment, other: Appointment) -> bool:
    """Whether both belong to the same command (or the same late success)."""
    return _stretch(one) == _stretch(other)


def written(course: Context, operation_id: str, attempt: int) -> Context:
    """The span of one attempt."""
    return course.span(operation_id, attempt)


def left(course: Context, state: Appointment, effect: Write | Read, began: datetime) -> Context:
    """The span of a call that leaves now."""
    if isinstance(effect, Write):
        return written(course, effect.operation_id, effect.attempt)
    return course.span(state.id, effect.step, effect.purpose, began)


def _stretch(state: Appointment) -> tuple[int, int]:
    return len(state.keys), state.rounds


def _id(*cause: object) -> int:
    return int.from_bytes(blake2b("\0".join(map(str, cause)).encode(), digest_size=8).digest()) or 1
