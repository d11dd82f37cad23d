"""The interfaces as their pydantic models declare them: fields with constraints, and examples that the models check."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from generating.markdown import json_block, table

AT = datetime(2031, 3, 1, 8, 0, tzinfo=UTC)
ID = UUID("3cfaf99d-28cb-5cbb-bca4-fe1070d18e32")


def fields(model: type[BaseModel], leave_out: Iterable[str] = ()) -> str:
    """Every field of a model with its type and limits; a `?` marks those that may be left out."""
    schema = model.model_json_schema(mode="validation")
    needed = schema.get("required", ())
    told = [
        f"`{name}`{'' if name in needed else '?'} {_kind(one, schema)}".rstrip()
        for name, one in schema.get("properties", {}).items()
        if name not in leave_out
    ]
    return "; ".join(told) or "none of its own"


def _kind(one: dict[str, Any], root: dict[str, Any]) -> str:
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        there = root["$defs"][name]
        return _choices(there["enum"]) if "enum" in there else name
    if "anyOf" in one:
        told = [_kind(each, root) for each in one["anyOf"] if each.get("type") != "null"]
        # A field with a default may be left out, which says as much.
        return " or ".join(told if "default" in one or len(told) == len(one["anyOf"]) else [*told, "null"])
    if "enum" in one:
        return _choices(one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    if one.get("type") == "array":
        most = f", at most {one['maxItems']}" if "maxItems" in one else ""
        return f"list of {_kind(one['items'], root)}{most}" if "items" in one else f"list{most}"
    if one.get("type") == "object":
        most = f", at most {one['maxProperties']}" if "maxProperties" in one else ""
        return f"object{most}"
    return _plain(one)


def _choices(values: list[str]) -> str:
    return " / ".join(f"`{value}`" for value in values)


def _plain(one: dict[str, Any]) -> str:
    if "pattern" in one:
        return f"`{one['pattern']}`"
    if one.get("format") == "date-time":
        return "instant"
    low, high = one.get("minimum", one.get("exclusiveMinimum")), one.get("maximum")
    if low is not None or high is not None:
        over = "over " if "exclusiveMinimum" in one else ""
        return f"{over}{low:,}" + (f" to {high:,}" if high is not None else " or more")
    if "maxLength" in one:
        return f"{one.get('minLength', 0)} to {one['maxLength']:,} characters"
    kinds = {"boolean": "true/false", "string": one.get("format", "text")}
    return kinds.get(one.get("type", ""), one.get("type", "any"))


def _rows(models: Iterable[type[BaseModel]], leave_out: Iterable[str] = ()) -> list[tuple[str, str]]:
    return [(f"`{model.__name__}`", fields(model, leave_out)) for model in models]


def commands() -> str:
    """What may be asked, with an example."""
    from domain import commands as c
    from domain.provider import Party, ProviderBooking

    example = {
        "calendar": "main",
        "start": "2031-03-03T09:00:00+01:00",
        "end": "2031-03-03T09:30:00+01:00",
        "time_zone": "Europe/Berlin",
        "summary": "Check-up",
        "attendees": [{"email": "pat@example.org", "name": "Pat Example"}],
        "deadline_ms": 60_000,
    }
    c.BookAppointment.model_validate(example)
    kinds = (*c.Command.__args__, c.Request, c.PolicyOverride, Party, ProviderBooking)
    return f"{json_block(example)}\n\n{table(('model', 'fields'), _rows(kinds))}"


def events() -> str:
    """What is recorded, with an example."""
    from domain import events as e

    example = e.StepStarted(
        at=AT, step="calendar", operation_id="37926184-f3db-5388-8fa4-4f84944a4de3", attempt=1, timeout_ms=5_000
    )
    groups = (("fact", e.FACTS), ("decision", e.DECISIONS), ("other", e.OUTSIDE_APPOINTMENTS))
    rows = [(f"`{kind.type}`", group, fields(kind, ("at",))) for group, kinds in groups for kind in kinds]
    told = table(("stored type", "kind", "fields beside `at`"), rows)
    return f"{json_block(example.model_dump(mode='json'))}\n\n{told}"


def outcomes() -> str:
    """What the provider port may answer, and what a call carries, with an example."""
    from domain import provider as p

    example = p.Unknown(reason="no answer within 5000 ms", in_flight=True, retry_after_ms=1_000)
    kinds = (*p.Outcome.__args__, p.Call, p.BookingDetails)
    return f"{json_block(example.model_dump(mode='json'))}\n\n{table(('model', 'fields'), _rows(kinds))}"


def results() -> str:
    """What callers get to see, with an example."""
    from appointments.callbacks import CallbackBody, CallbackData
    from appointments.cases import Result
    from appointments.views import Appointment, AppointmentPage, AuditEvent
    from projections.current_state import AppointmentFilter
    from projections.health import Health
    from projections.reconciliation.model import Finding, Report
    from saga.replay import Replay

    line = AuditEvent(
        version=2,
        position=4711,
        type="step-started.v1",
        recorded_at=AT,
        actor=None,
        cause=1,
        correlation_id=str(ID),
        data={"step": "calendar", "attempt": 1, "timeout_ms": 5_000},
    )
    kinds = (Appointment, AppointmentFilter, AppointmentPage, AuditEvent, Replay, Health, Report, Finding, Result)
    told = table(("model", "fields"), _rows((*kinds, CallbackBody, CallbackData)))
    return f"{json_block(line.model_dump(mode='json'))}\n\n{told}"
