"""What Schemathesis cannot read from a schema: an end follows its start, which zones there are, what a key is for."""

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import schemathesis
from schemathesis.transport import requests as transport
from standardwebhooks.webhooks import Webhook

from appointments.http.openapi import EXAMPLES, TIMES

# Another library of this environment puts its own connection pools under `requests`; these cannot be counted.
transport._count_opened_connections = lambda session: 0

SECRET = "whsec_bW9jay1wcm92aWRlci1jYWxsYmFjay1zZWNyZXQ="
ZONED = {**TIMES, "summary": "Check-up"}
_numbers = count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Let what is meant to be accepted get as far as the desk; what is meant to be refused stays as it is.

    Nothing but what no schema can say is replaced: a key used twice, times in disorder, names of zones, the label of an
    event, a signature.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    for name in ("If-Match", "If-None-Match"):
        if (case.headers or {}).get(name) == "0":  # its coverage phase takes the quotes off the shortest tag
            case.headers[name] = '"0"'
    if not isinstance(case.body, dict):
        return
    if "start" in case.body:
        case.body.update({name: value for name, value in ZONED.items() if name in case.body})
    if case.path.endswith("/ui-events"):
        case.body = EXAMPLES["ui_event"]
    if "/callbacks/" in case.path:
        case.path_parameters = {"provider": "main"}
        _sign(case)


def _sign(case: Any) -> None:
    id, at = f"message-{next(_numbers)}", datetime.now(UTC)
    text = json.dumps(case.body)
    case.headers.update(
        {
            "webhook-id": id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(SECRET).sign(id, at, text),
        }
    )
