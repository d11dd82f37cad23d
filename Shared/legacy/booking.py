"""The booking call of A.

ASSUMED, all of it: that the call exists; that it is one POST without key, client reference, time limit, retry,
compensation or log; that every 2xx, a 202 included, shows "booked"; that a body that is not JSON raises.
"""

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

SENT = ("start", "end", "time_zone", "summary", "location", "organizer", "attendees", "metadata")


def book(provider_url: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Book once; what the user is told, and the status that the provider answered. Raises what `http.client` raises."""
    address = urlsplit(provider_url)
    connection = HTTPConnection(address.netloc)  # no time limit: that is the point
    body = {"calendar_id": payload["calendar"]} | {name: payload[name] for name in SENT if name in payload}
    connection.request("POST", f"{address.path}/bookings", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status // 100 != 2:
        return {"told": "error", "status": answer.status}
    return {"told": "booked", "status": answer.status, "detail": json.loads(content)["id"]}
