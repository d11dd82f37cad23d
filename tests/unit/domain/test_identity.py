"""Ids are made of their cause; a fingerprint is of the content, not of the order it came in."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.commands import BookAppointment, CancelAppointment
from domain.events import Operation
from domain.identity import (
    appointment_id,
    client_ref,
    definition_stream,
    fingerprint,
    operation_id,
    orphan_stream,
    spread,
)

FIELDS = {
    "calendar": "main",
    "start": "2026-03-03T10:00:00Z",
    "end": "2026-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "metadata": {"a": "1", "b": "2", "c": "3"},
}


def test_ids_are_frozen_for_ever() -> None:
    one = appointment_id("default", "order-4711")
    assert one == UUID("3cfaf99d-28cb-5cbb-bca4-fe1070d18e32")
    assert client_ref(one) == str(one)
    assert operation_id(one, "calendar", Operation.ACTION) == "f1a153ec-6336-59c0-9cf0-36b2d3d86aa3"
    assert orphan_stream("main", "wh-1") == UUID("32cee776-81cd-5bc7-b7a8-df73e7b13a7b")
    assert definition_stream("booking/1@0") == UUID("29e17841-2445-5310-94a5-9ac0e95d9627")
    content = {name: value for name, value in FIELDS.items() if name != "metadata"}
    assert fingerprint(BookAppointment.model_validate(content)) == "b50b91a1f4ed81fe364ee64c9cad6179"


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_tenants_and_keys_do_not_run_into_each_other(t1: str, k1: str, t2: str, k2: str) -> None:
    if "\0" in t1 + k1 + t2 + k2:
        return  # the border refuses it
    assert (appointment_id(t1, k1) == appointment_id(t2, k2)) == ((t1, k1) == (t2, k2))


def test_an_operation_has_one_id_over_all_attempts_and_another_in_the_next_round() -> None:
    one = appointment_id("default", "k")
    ids = {operation_id(one, step, operation, n) for step in ("a", "b") for operation in Operation for n in (0, 1)}
    assert len(ids) == 2 * len(Operation) * 2
    assert operation_id(one, "a", Operation.ACTION) == operation_id(one, "a", Operation.ACTION, 0)


def test_streams_of_other_things_are_apart() -> None:
    streams = {appointment_id("t", "k"), definition_stream("t"), orphan_stream("t", "k"), orphan_stream("k", "t")}
    assert len(streams) == 4


@given(st.permutations(list(FIELDS.items())), st.permutations(list(FIELDS["metadata"].items())))
def test_a_fingerprint_does_not_depend_on_the_order_of_fields(fields: list, metadata: list) -> None:
    shuffled = BookAppointment.model_validate({**dict(fields), "metadata": dict(metadata)})
    assert fingerprint(shuffled) == fingerprint(BookAppointment.model_validate(FIELDS))


def test_a_default_spelt_out_and_another_offset_are_the_same_content() -> None:
    spelt = {**FIELDS, "location": None, "all_day": False, "start": "2026-03-03T11:00:00+01:00"}
    assert fingerprint(BookAppointment.model_validate(spelt)) == fingerprint(BookAppointment.model_validate(FIELDS))


def test_every_other_content_has_another_fingerprint() -> None:
    changes = [
        {"summary": "other"},
        {"end": "2026-03-03T11:00:00.000001Z"},
        {"metadata": {"a": "1"}},
        {"deadline_ms": 500},
        {"attendees": [{"email": "a@b.c"}]},
        {"policy": {"attempts_max": 1}},
    ]
    prints = {fingerprint(BookAppointment.model_validate({**FIELDS, **change})) for change in ({}, *changes)}
    assert len(prints) == len(changes) + 1
    assert fingerprint(CancelAppointment()) not in prints


@given(st.text())
def test_spread_lies_between_0_and_1_and_is_the_same_again(seed: str) -> None:
    assert 0 <= spread(seed) < 1
    assert spread(seed) == spread(seed)
