"""Action labels: how an event of the legacy front end becomes a command's name. A closed list."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from domain.errors import UnknownLabel

CommandName = Literal["book", "cancel", "reschedule"]

LABELS: dict[str, CommandName] = {
    "book": "book",
    "book-appointment": "book",
    "cancel": "cancel",
    "cancel-appointment": "cancel",
    "reschedule": "reschedule",
    "reschedule-appointment": "reschedule",
}
LABEL_MAX = 64


def action_label(event: Mapping[str, Any]) -> str:
    """The label of a UI event: `data-action` on `target`, else on `srcElement`; an attribute wins over `dataset`.

    Raises `UnknownLabel` when there is none, or one that is not in the list.
    """
    for side in ("target", "srcElement"):
        label = _label(event.get(side))
        if label is not None:
            if label not in LABELS:
                raise UnknownLabel(f"the action label {label[:LABEL_MAX]!r} is not one of: {', '.join(LABELS)}")
            return label
    raise UnknownLabel(
        f"the event carries no data-action label, on target or on srcElement; expected one of: {', '.join(LABELS)}"
    )


def _label(element: Any) -> str | None:
    if not isinstance(element, Mapping):
        return None
    for found in (_attribute(element.get("attributes")), element.get("data-action"), _dataset(element.get("dataset"))):
        if isinstance(found, str) and found.strip():
            return found.strip()
    return None


def _attribute(attributes: Any) -> Any:
    if isinstance(attributes, Mapping):
        return attributes.get("data-action")
    if isinstance(attributes, Sequence) and not isinstance(attributes, str):
        for pair in attributes:
            if isinstance(pair, Mapping) and pair.get("name") == "data-action":
                return pair.get("value")
            if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 and pair[0] == "data-action":
                return pair[1]
    return None


def _dataset(dataset: Any) -> Any:
    return dataset.get("action") if isinstance(dataset, Mapping) else None
