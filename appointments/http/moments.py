"""Instants as they are written over HTTP: RFC 3339, with an offset. Numbers, which pydantic would take, are none."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from domain.commands import Instant, refusal
from domain.errors import InvalidFields

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
DETAIL = "write it as RFC 3339 has it, with an offset: 2031-03-03T09:00:00+01:00"


def _written(value: Any) -> Any:
    if not _is_written(value):
        raise ValueError(DETAIL)
    return value


def _times_written(fields: Any, check: ValidatorFunctionWrapHandler) -> Any:
    times = {name: fields.get(name) for name in ("start", "end")} if isinstance(fields, Mapping) else {}
    faults = [(f"/{name}", DETAIL) for name, at in times.items() if at is not None and not _is_written(at)]
    if not faults:
        return check(fields)
    try:
        check(fields)
    except ValidationError as others:  # whoever mends fields wants to know of all of them
        faults += [one for one in refusal(others).errors if one[0] not in dict(faults)]
    raise InvalidFields("; ".join(f"{pointer}: {detail}" for pointer, detail in faults), tuple(faults))


def _is_written(value: Any) -> bool:
    return isinstance(value, str) and RFC3339.fullmatch(value) is not None


T = TypeVar("T")
Moment = Annotated[Instant, BeforeValidator(_written)]
"""An instant in a query, or in a body of ours."""
Timed = Annotated[T, WrapValidator(_times_written)]
"""A command with `start` and `end`."""
