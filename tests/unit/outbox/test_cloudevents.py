"""An event as CloudEvents 1.0 has it (section 3 of the specification): names, types and forms of its attributes."""

import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pydantic import ValidationError

from appointments import Settings
from appointments.outbox.cloudevents import CloudEvent
from tests.unit.outbox.world import event_of

ONE = UUID(int=1)
TRACEPARENT = f"00-{1:032x}-{2:016x}-01"


def told(event: CloudEvent) -> dict[str, Any]:
    """As it leaves."""
    found: dict[str, Any] = json.loads(event.model_dump_json())
    return found


@pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
def test_its_attributes_have_the_names_and_forms_that_the_specification_asks_for(traceparent: str | None) -> None:
    event = told(event_of(ONE, 7).model_copy(update={"traceparent": traceparent}))
    assert {"specversion", "id", "source", "type"} <= event.keys()
    attributes = {name: value for name, value in event.items() if name != "data"}
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
    assert all(isinstance(value, str) and value for value in attributes.values()), "none is empty, none is null"
    assert event["specversion"] == "1.0"
    assert datetime.fromisoformat(event["time"]).utcoffset() is not None, "RFC 3339"
    assert urlsplit(event["source"]).scheme == "urn"
    assert ("traceparent" in event) is (traceparent is not None)


def test_its_id_is_one_of_its_source_and_its_bytes_are_the_same_each_time() -> None:
    events = [event_of(id, version) for id in (ONE, UUID(int=2)) for version in (1, 2, 11)]
    assert len({event.id for event in events}) == len(events)
    assert [event.sequence for event in events[:3]] == sorted(event.sequence for event in events[:3])
    assert event_of(ONE, 7).model_dump_json() == event_of(ONE, 7).model_dump_json()


def test_it_is_read_back_as_it_was() -> None:
    event = event_of(ONE, 7)
    assert CloudEvent.model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize("source", ["", "two words", "x" * 201])
def test_a_source_that_is_none_is_refused_by_the_settings(source: str) -> None:
    with pytest.raises(ValidationError):
        Settings(events_source=source)
