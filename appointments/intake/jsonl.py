"""JSON lines: each line is the body of `POST /v1/appointments`, with an optional `key`. `calendar` may be left out."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from appointments.intake.fields import Rows
from appointments.intake.items import ROW_CHARS_MAX, Item, Scope
from domain.errors import InvalidFields

DEPTH_MAX = 8


def read(text: str, scope: Scope) -> Iterator[Item]:
    """The items of a JSON Lines file, in its order; blank lines are passed over."""
    rows = Rows("jsonl", scope)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = to_object(line)
        except InvalidFields as refused:
            yield rows.refusal(number, refused.detail)
        else:
            yield rows.item(number, fields)


def to_object(line: str) -> dict[str, Any]:
    """One JSON object, with no name twice, no NaN or Infinity, and within bounds; raises `InvalidFields`."""
    if len(line) > ROW_CHARS_MAX:
        raise InvalidFields(f"the line is longer than {ROW_CHARS_MAX} characters")
    _check_depth(line)
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as malformed:
        raise InvalidFields(f"not JSON: {str(malformed)[:100]}") from None
    if not isinstance(value, dict):
        raise InvalidFields("the line is no JSON object")
    return value


def _check_depth(line: str) -> None:
    """Brackets in texts count too: a booking has no use for that many of them either way."""
    depth = 0
    for char in line:
        if char in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise InvalidFields(f"nested deeper than {DEPTH_MAX}")
        elif char in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidFields(f"{name[:40]!r} stands there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidFields(f"{name} is no JSON value")
