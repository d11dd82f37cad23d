"""Trace contexts: which headers are heeded, and which ids follow from the log."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from appointments.telemetry.context import HERE, Context, course, is_kept, same_course, traceparent
from domain import events as e
from domain.appointment import Appointment
from domain.commands import BookAppointment, Request, parse
from domain.decide import decide
from domain.errors import InvalidFields
from domain.evolve import evolve
from domain.identity import appointment_id
from providers.local import LocalProvider
from saga.definition import CalendarStep, Saga
from store.mapper import decode, encode

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ID = appointment_id("default", "k-1")
COMMAND = BookAppointment.model_validate(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "UTC",
        "summary": "Check-up",
    }
)
PLAN = Saga("booking", 1, (CalendarStep(),)).plan(LocalProvider("main"))


def requested(told: str | None) -> e.Event:
    (event,) = decide(Appointment(ID), COMMAND, Request(key="k-1", traceparent=told), NOW, PLAN).events
    return event


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
def test_a_context_is_read_and_written(flags: str) -> None:
    context = Context.read(f"00-{TRACE}-{SPAN}-{flags}")
    assert context is not None
    assert str(context) == f"00-{TRACE}-{SPAN}-{int(flags, 16) & 1:02d}"


def test_one_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert Context.read(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == Context(int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "told",
    [
        None,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_context_is_ignored(told: str | None) -> None:
    assert Context.read(told) is None


@pytest.mark.parametrize("told", ["", "nonsense", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-x", "x" * 10_000])
def test_what_a_program_gives_is_checked(told: str) -> None:
    with pytest.raises(InvalidFields, match="/traceparent"):
        parse(Request, {"key": "k", "traceparent": told})


def test_without_a_context_what_is_stored_is_what_always_was() -> None:
    stored = encode(ID, 1, requested(None)).body
    assert b"trace" not in stored
    assert "traceparent" not in decode(encode(ID, 1, requested(None))).model_dump()


def test_a_context_is_stored_and_read_again() -> None:
    told = f"00-{TRACE}-{SPAN}-01"
    state = evolve(Appointment(ID), decode(encode(ID, 1, requested(told))))
    assert state.traceparent == told
    assert state.asked_at == NOW


def test_nothing_that_is_decided_depends_on_it() -> None:
    with_it, without = requested(f"00-{TRACE}-{SPAN}-01"), requested(None)
    assert with_it.model_copy(update={"traceparent": None}) == without


def test_all_processes_come_to_the_same_ids() -> None:
    one, other = (evolve(Appointment(ID), requested(f"00-{TRACE}-{SPAN}-01")) for _ in range(2))
    (here, asked), again = course(one, 1), course(other, 0.5)
    assert (here, asked) == again
    assert here.trace_id == int(TRACE, 16)
    assert asked is not None
    assert here.span_id != asked.span_id
    assert here.span("op", 1) == here.span("op", 1) != here.span("op", 2)


def test_another_command_is_another_course() -> None:
    booked = evolve(Appointment(ID), requested(None))
    moved = replace(booked, keys=(*booked.keys, ("cancel", "k", "f")))
    assert same_course(booked, replace(booked, version=9))
    assert not same_course(booked, moved)
    assert course(booked, 1)[0] != course(moved, 1)[0]


def test_a_later_command_without_a_context_goes_on_in_the_trace_that_is_known() -> None:
    booked = evolve(Appointment(ID), requested(f"00-{TRACE}-{SPAN}-01"))
    cancelled = e.CancellationRequested(at=NOW, key="c", fingerprint="f", cleanup_until=NOW)
    assert evolve(booked, cancelled).traceparent == booked.traceparent


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_of_the_traces_that_ids_of_appointments_begin_the_share_is_kept(ratio: float) -> None:
    ids = [appointment_id("default", f"key-{n}") for n in range(2_000)]
    kept = sum(is_kept(id.int, ratio) for id in ids)
    assert abs(kept / len(ids) - ratio) < 0.04


def test_the_context_of_the_request_in_hand_is_what_commands_are_recorded_with() -> None:
    assert traceparent() is None
    token = HERE.set(Context(UUID(int=1).int, 2, True))
    assert traceparent() == f"00-{1:032x}-{2:016x}-01"
    HERE.reset(token)
