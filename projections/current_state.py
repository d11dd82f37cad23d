"""Current state: one row for each appointment, kept up with the log, and its pages with filters and a stable cursor.

Owns the row, the filter and the cursor. A row's place is the position of its first event, so no write ever moves it.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from domain.appointment import Appointment
from domain.commands import Instant
from domain.errors import InvalidFields
from domain.events import EndReason
from domain.lifecycle import PHASES, Phase, State
from domain.provider import BookingDetails, Value
from projections.projection import Change
from store.rows import instant, microseconds

PAGE_MAX = 200

_INT64 = BigInteger().with_variant(Integer(), "sqlite")
metadata = MetaData()
appointments = Table(
    "appointments",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("calendar", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("parked", Boolean, nullable=False),
    Column("start_at", _INT64, nullable=False),
    Column("end_at", _INT64, nullable=False),
    Column("search", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _INT64, nullable=False),
    Column("updated_at", _INT64, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("reason", Text),
    Column("parked_reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("provider_ref", Text),
    Column("details", LargeBinary, nullable=False),
    Column("id", LargeBinary(16), nullable=False, unique=True),
    Column("position", _INT64, primary_key=True, autoincrement=False),
)
_rows = appointments.c
Index("appointments_state", _rows.tenant, _rows.state, _rows.position)
Index("appointments_phase", _rows.tenant, _rows.phase, _rows.position)
Index("appointments_calendar", _rows.tenant, _rows.calendar, _rows.position)
Index("appointments_parked", _rows.tenant, _rows.parked, _rows.position)
# What no index finds is looked for here, in order: everything that can be asked for in a tenth of the row's bytes.
Index(
    "appointments_scan",
    *(_rows.tenant, _rows.position, _rows.state, _rows.phase, _rows.calendar, _rows.parked),
    *(_rows.start_at, _rows.end_at, _rows.search),
)


class CurrentState(Value):
    """What is shown of an appointment as of `version`; `position` is that of its first event."""

    position: int
    id: UUID
    tenant: str
    provider: str
    state: State
    parked: bool
    parked_reason: str
    reason: EndReason | None
    detail: str
    details: BookingDetails
    version: int
    attempts: int
    """How often the provider was asked to book it."""
    provider_ref: str | None
    created_at: datetime
    updated_at: datetime
    correlation_id: str


class AppointmentFilter(Value):
    """Which appointments to list. `from_` (`from` in JSON) and `to` bound the time that they overlap."""

    model_config = ConfigDict(populate_by_name=True)

    tenant: str = "default"
    state: State | None = None
    phase: Phase | None = None
    calendar: str | None = Field(default=None, max_length=64)
    parked: bool | None = None
    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None
    q: str | None = Field(default=None, max_length=255)
    """Part of the summary, the location or the id, in whatever case."""
    limit: int = Field(default=50, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(default=None, max_length=64)
    """`next_cursor` of the page before; the other fields but `limit` must be as they were."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.from_ is not None and self.to is not None and self.to <= self.from_:
            raise ValueError("to must be later than from")
        return self


class Page(Value):
    """Some appointments, newest first; `next_cursor` leads on to those after them."""

    items: tuple[CurrentState, ...]
    next_cursor: str | None


class CurrentStates:
    """The projection: an appointment's row says what its last event has come to."""

    name = "current_state"
    version = 1
    metadata = metadata

    def apply(self, connection: Connection, changes: Sequence[Change]) -> None:
        """Write the rows of the appointments that a batch has changed, each once."""
        begun: dict[int, int] = {}
        states: dict[int, Appointment] = {}
        for change in changes:
            after = change.after
            if after is not None:
                number = after.id.int  # hashes ten times as fast as the id itself
                states[number] = after
                if after.version == 1:
                    begun[number] = change.recorded.position
        new, changed = [], []
        for number, state in states.items():
            row = (*_row(state), state.id.bytes)
            if number in begun:
                new.append((*row, begun[number]))
            else:
                changed.append(row)
        if new:
            connection.exec_driver_sql(_INSERT, new)
        if changed:
            connection.exec_driver_sql(_UPDATE, changed)

    def forget(self, connection: Connection, streams: Sequence[UUID]) -> None:
        """Take out the rows of streams that cannot be read any more: what they say may be untrue."""
        connection.exec_driver_sql(_DELETE, [(id.bytes,) for id in streams])


def _text(statement: Any) -> str:
    return str(statement.compile(dialect=_dialect))


# As text, with rows as tuples: half the time of a rebuild would go into the conversion of parameters.
_dialect = sqlite_dialect(paramstyle="qmark")
_INSERT = _text(insert(appointments))
_UPDATE = _text(
    update(appointments)
    .where(_rows.id == bindparam("of"))
    .values({column.name: bindparam(column.name) for column in list(_rows)[:-2]})
)
_DELETE = _text(delete(appointments).where(_rows.id == bindparam("of")))


def current(state: Appointment, position: int = 0) -> CurrentState:
    """What is shown of a state, which must have begun."""
    assert state.details is not None
    assert state.created_at is not None
    assert state.updated_at is not None
    return CurrentState.model_construct(
        position=position,
        id=state.id,
        tenant=state.tenant,
        provider=state.provider,
        state=state.state,
        parked=state.parked,
        parked_reason=state.parked_reason,
        reason=state.reason,
        detail=state.detail,
        details=state.details,
        version=state.version,
        attempts=state.booking_step.attempts,
        provider_ref=state.booking.provider_ref if state.booking else None,
        created_at=state.created_at,
        updated_at=state.updated_at,
        correlation_id=state.correlation_id,
    )


def page(connection: Connection, wanted: AppointmentFilter) -> Page:
    """The appointments that match, newest first, from where the cursor stands. Raises `InvalidFields` for a cursor."""
    conditions = _conditions(wanted)
    if wanted.cursor is not None:
        conditions.append(_rows.position < _position(wanted))
    found = select(_rows.position).where(*conditions).order_by(_rows.position.desc()).limit(wanted.limit + 1).subquery()
    query = select(appointments).where(_rows.position.in_(select(found.c.position))).order_by(_rows.position.desc())
    items = [_item(row._mapping) for row in connection.execute(query)]
    more = len(items) > wanted.limit
    items = items[: wanted.limit]
    return Page(items=tuple(items), next_cursor=_cursor(wanted, items[-1].position) if more else None)


def holders(connection: Connection, provider_refs: Sequence[str]) -> dict[tuple[str, str], UUID]:
    """Which appointments, of whatever tenant, hold bookings of these names, by calendar and name."""
    query = select(_rows.calendar, _rows.provider_ref, _rows.id).where(_rows.provider_ref.in_(provider_refs))
    return {(calendar, ref): UUID(bytes=id) for calendar, ref, id in connection.execute(query)}


def _row(state: Appointment) -> tuple[Any, ...]:
    """The columns up to `details`, in order: what `current` shows."""
    details, step = state.details, state.booking_step
    assert details is not None
    assert state.created_at is not None
    assert state.updated_at is not None
    return (
        state.tenant,
        details.calendar,
        state.provider,
        state.state.value,
        PHASES[state.state].value,
        state.parked,
        microseconds(details.start),
        microseconds(details.end),
        f"{details.summary}\n{details.location or ''}\n{state.id}".casefold(),
        state.version,
        step.attempts,
        microseconds(state.created_at),
        microseconds(state.updated_at),
        state.correlation_id,
        state.reason and state.reason.value,
        state.parked_reason,
        state.detail,
        step.booking.provider_ref if step.booking else None,
        details.__pydantic_serializer__.to_json(details, exclude_defaults=True),
    )


def _item(row: Any) -> CurrentState:
    told = {name: row[name] for name in CurrentState.model_fields}
    told["id"] = UUID(bytes=row["id"])
    told["details"] = BookingDetails.model_validate_json(row["details"])
    told["created_at"], told["updated_at"] = instant(row["created_at"]), instant(row["updated_at"])
    return CurrentState.model_validate(told)


def _conditions(wanted: AppointmentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [_rows.tenant == wanted.tenant]
    if wanted.state is not None:
        conditions.append(_rows.state == wanted.state.value)
    if wanted.phase is not None:
        conditions.append(_rows.phase == wanted.phase.value)
    if wanted.calendar is not None:
        conditions.append(_rows.calendar == wanted.calendar)
    if wanted.parked is not None:
        conditions.append(_rows.parked if wanted.parked else ~_rows.parked)
    if wanted.from_ is not None:
        conditions.append(_rows.end_at > microseconds(wanted.from_))
    if wanted.to is not None:
        conditions.append(_rows.start_at < microseconds(wanted.to))
    if wanted.q:
        conditions.append(func.instr(_rows.search, wanted.q.casefold()) > 0)
    return conditions


def _cursor(wanted: AppointmentFilter, position: int) -> str:
    return urlsafe_b64encode(struct.pack(">q", position) + _digest(wanted)).decode()


def _position(wanted: AppointmentFilter) -> int:
    assert wanted.cursor is not None
    try:
        (position,) = struct.unpack(">q", urlsafe_b64decode(wanted.cursor)[:8])
    except (ValueError, struct.error):
        position = 0
    if _cursor(wanted, position) != wanted.cursor:
        raise InvalidFields(
            "the cursor does not belong to this filter; give it the filter of the page that it came with, "
            "or begin without a cursor",
            (("/cursor", "not a cursor of this filter"),),
        )
    return int(position)


def _digest(wanted: AppointmentFilter) -> bytes:
    """What the page was asked for: a cursor goes on with the same question only."""
    return sha256(wanted.model_dump_json(exclude={"limit", "cursor"}).encode()).digest()[:10]
