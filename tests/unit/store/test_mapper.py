"""Stored events: what was written once is read for ever, and what cannot be read says so."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest

from domain.errors import HistoryError
from domain.events import REGISTRY, AppointmentParked, CancellationRequested
from domain.personal import ERASED, ERASED_EMAIL
from domain.upcasting import UPCASTERS, Upcaster, upcast
from store.mapper import decode, encode
from store.port import Private, RecordedEvent

STREAM = UUID(int=1)
STORED = [
    json.loads(line)
    for line in (Path(__file__).parent / "fixtures" / "events_v1.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Rows as they were written at v1, with what each meant then (defaults spelt out). Add lines; never change one."""

IN_PARTS = [
    json.loads(line)
    for line in (Path(__file__).parent / "fixtures" / "events_v1_parts.jsonl").read_text(encoding="utf-8").splitlines()
]
"""The same with the private parts apart: each under the subjects whom it is about."""
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def row(type_: str, body: bytes | str, version: int = 1) -> RecordedEvent:
    return RecordedEvent(STREAM, version, type_, body if isinstance(body, bytes) else body.encode(), position=9)


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored["type"])
def test_what_was_stored_is_read_as_it_was_meant_and_stored_so_that_it_is_read_again(stored: dict) -> None:
    event = decode(row(stored["type"], stored["body"]))
    assert event.model_dump(mode="json") == stored["means"]
    assert decode(encode(STREAM, 1, event)) == event


@pytest.mark.parametrize("stored", IN_PARTS, ids=lambda stored: stored["type"])
def test_what_was_stored_in_parts_is_read_as_it_was_meant_and_stored_the_same_again(stored: dict) -> None:
    parts = tuple(Private(tuple(names), body.encode()) for names, body in stored["private"])
    at = datetime.fromisoformat(stored["at"])
    recorded = replace(row(stored["type"], stored["open"]), at=at, private=parts)
    event = decode(recorded)
    assert event.model_dump(mode="json") == stored["means"]
    assert replace(encode(STREAM, 1, event, tuple(stored["subjects"])), position=9) == recorded


def test_no_personal_data_is_left_in_the_open_part() -> None:
    for stored in IN_PARTS:
        for planted in ("Dana", "dana@", "dana-1", "Kim", "kim@", "secret"):
            assert planted not in stored["open"]


@pytest.mark.parametrize("stored", IN_PARTS, ids=lambda stored: stored["type"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_event_can_be_read_when_any_of_its_parts_was_erased(stored: dict, which: int) -> None:
    parts = [Private((), body.encode()) for _, body in stored["private"]]
    if parts:
        parts[which % len(parts)] = Private((), None)
    recorded = replace(row(stored["type"], stored["open"]), at=datetime.now(UTC), private=tuple(parts))
    event = decode(recorded)
    whole = decode(replace(recorded, private=tuple(Private((), b.encode()) for _, b in stored["private"])))
    assert event != whole or not parts
    kept = {ERASED, ERASED_EMAIL, None, ""}
    for was, told in _leaves(whole.model_dump(mode="json"), event.model_dump(mode="json")):
        assert told == was or told in kept


def test_an_actor_who_is_a_subject_is_private_too() -> None:
    fact = CancellationRequested(
        at=NOON, actor="Dana@Example.org", key="k", fingerprint="f", reason="ill", cleanup_until=NOON
    )
    assert b"Dana" not in encode(STREAM, 1, fact, ("acme\x00dana@example.org",)).body
    assert b"Dana" in encode(STREAM, 1, fact, ("acme\x00kim@example.org",)).body
    assert decode(encode(STREAM, 1, fact, ("acme\x00dana@example.org",))) == fact


def test_a_damaged_part_is_a_fault_of_the_history() -> None:
    recorded = replace(row("appointment-parked.v1", "{}"), private=(Private((), None, damaged=True),))
    with pytest.raises(HistoryError, match="cannot be opened"):
        decode(recorded)


def _leaves(was: object, told: object) -> Iterator[tuple[object, object]]:
    if isinstance(was, dict) and isinstance(told, dict):
        for name in was.keys() | told.keys():
            yield from _leaves(was.get(name), told.get(name))
    elif isinstance(was, list) and isinstance(told, list) and len(was) == len(told):
        for one, other in zip(was, told, strict=True):
            yield from _leaves(one, other)
    else:
        yield was, told


def test_every_type_has_a_stored_example() -> None:
    assert {stored["type"] for stored in STORED} == set(REGISTRY)


def test_type_names_are_stable_and_carry_a_version() -> None:
    for name, event in REGISTRY.items():
        assert name == event.type
        stem, _, version = name.rpartition(".")
        assert stem == "".join(f"-{c.lower()}" if c.isupper() else c for c in event.__name__).lstrip("-")
        assert version == "v1"


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        "type_", ["", "appointment-parked", "appointment-parked.v2", "os.system", "domain.events:AppointmentParked"]
    )
    def test_an_unknown_type_or_a_version_of_the_future(self, type_: str) -> None:
        with pytest.raises(HistoryError, match="no event type"):
            decode(row(type_, "{}"))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            b'{"at": "2026-03-02T09:00:00Z"}',
            b'{"at": "yesterday", "reason": "x"}',
            b'{"at": "2026-03-02T09:00:00Z", "reason": 1}',
            b'{"at": "2026-03-02T09:00:00Z", "reason": "x", "new_field": 1}',
            b'{"at": "2026-03-02T09:00:00Z", "reason": "\\ud800"}',
            b"[" * 100_000,
        ],
        ids=lambda body: repr(body[:50]),
    )
    def test_a_body_that_does_not_fit(self, body: bytes) -> None:
        with pytest.raises(HistoryError, match=r"stream 00000000-.* version 3 \(position 9\)"):
            decode(row("appointment-parked.v1", body, version=3))


class TestUpcasting:
    """A fake v0 of an event: `why` became `reason`, and a version between them named the time otherwise."""

    upcasters: ClassVar[dict[str, Upcaster]] = {
        "appointment-parked.v0": lambda body: ("appointment-parked.v0b", {"when": body["when"], "reason": body["why"]}),
        "appointment-parked.v0b": lambda body: (
            "appointment-parked.v1",
            {"at": body["when"], "reason": body["reason"]},
        ),
    }

    def test_an_old_version_is_read_through_the_whole_chain(self) -> None:
        event = decode(row("appointment-parked.v0", '{"when": "2026-03-02T09:00:00Z", "why": "look"}'), self.upcasters)
        assert isinstance(event, AppointmentParked)
        assert event.reason == "look"

    def test_the_newest_version_is_left_alone(self) -> None:
        for stored in STORED:
            decoded = decode(row(stored["type"], stored["body"]), self.upcasters)
            assert decoded.model_dump(mode="json") == stored["means"]

    @pytest.mark.parametrize("body", ["{}", "[]", "null", "{", '{"when": "never", "why": "x"}'])
    def test_an_old_body_that_does_not_fit_is_a_fault_of_the_history(self, body: str) -> None:
        with pytest.raises(HistoryError, match=r"appointment-parked\.v0 cannot be read"):
            decode(row("appointment-parked.v0", body), self.upcasters)

    def test_a_chain_without_an_end_is_found(self) -> None:
        circle = {"a": lambda body: ("b", body), "b": lambda body: ("a", body)}
        with pytest.raises(ValueError, match="do not end"):
            upcast("a", {}, circle)
        with pytest.raises(HistoryError):
            decode(row("a", "{}"), circle)

    def test_a_chain_that_leads_nowhere_is_found(self) -> None:
        with pytest.raises(HistoryError):
            decode(row("a", "{}"), {"a": lambda body: ("nothing.v9", body)})

    def test_today_every_type_is_at_its_first_version(self) -> None:
        assert UPCASTERS == {}
