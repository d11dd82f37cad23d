"""The click handler of A.

KNOWN: an event that carries its label on `srcElement` has none for A (its README calls this a known issue).
ASSUMED: such an event does nothing, silently; one label has a handler, `book-appointment`; no cancel, no reschedule.
"""

from typing import Any

from Shared.legacy.booking import book
from Shared.legacy.labels import action_label

BOOK = "book-appointment"


def on_click(event: dict[str, Any], provider_url: str) -> dict[str, Any]:
    """What the user is told: booked or error; no_op where no label was read, unsupported where it has no handler."""
    label = action_label(event)
    if label is None:
        return {"told": "no_op"}
    if label != BOOK:
        return {"told": "unsupported", "detail": label}
    return book(provider_url, event["payload"])
