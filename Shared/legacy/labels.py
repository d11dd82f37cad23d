"""The label extractor of A.

KNOWN: it reads `data-action` from `event.target` only.
ASSUMED: the attribute comes first and `dataset.action` of the same element is the fallback (the name of one of the two
known failures speaks of a "dataset fallback"); an event without a label gives None and raises nothing.
"""

from typing import Any


def action_label(event: dict[str, Any]) -> str | None:
    """The action that the clicked element names, or None."""
    target = event.get("target") or {}
    label: str | None = target.get("attributes", {}).get("data-action") or target.get("dataset", {}).get("action")
    return label
