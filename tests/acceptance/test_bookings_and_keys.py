"""Booking, keys, and what is refused: the contract with whoever gives the commands (R1, R2.2, R7.4, R8.7)."""

import asyncio

import pytest

from appointments import AppointmentFilter
from domain.errors import InvalidFields, KeyReused, UnknownAppointment, UnknownLabel
from tests.acceptance.office import CHECK_UP, WAIT_S, Office, types


@pytest.mark.evidence(target="booking", answers=("R1.1", "R4.1", "R7.2", "G2"), seen_in="ledger, audit trail")
async def test_a_booking_is_confirmed_once_and_stands_at_its_times(office: Office) -> None:
    """
    Given a provider that answers at once
    When a booking is asked for
    Then it is confirmed, exactly one booking is live at the provider at those times, and the audit trail says who asked
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", actor="dana", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert (booked.state, booked.phase) == ("confirmed", "completed")
    (live,) = office.live()
    assert (live["id"], live["client_ref"]) == (booked.provider_ref, str(booked.id))
    assert (live["start"], live["end"]) == (CHECK_UP["start"], CHECK_UP["end"])
    assert (trail[0].type, trail[0].actor) == ("appointment-requested.v1", "dana")
    assert types(trail)[-1] == "appointment-confirmed"


@pytest.mark.evidence(target="key", answers=("R2.2", "G5"), seen_in="`replayed` in the answer, calls of the provider")
async def test_the_same_key_again_gives_the_same_appointment_and_calls_nobody(office: Office) -> None:
    """
    Given a confirmed appointment, and the desk opened anew
    When the same command comes again with the same key
    Then the answer is the same appointment, marked as replayed; the provider is not called, nothing is recorded
    """
    async with office.desk() as desk:
        first = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    calls = office.provider.calls()
    async with office.desk() as desk:
        again = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (again.id, again.version, again.replayed) == (first.id, first.version, True)
    assert office.provider.calls() == calls


@pytest.mark.evidence(target="key", answers=("R2.2", "R7.4", "G5"), seen_in="refusal, audit trail, calls")
async def test_the_same_key_with_other_content_is_refused(office: Office) -> None:
    """
    Given an appointment that was booked under a key
    When the same key comes with another time
    Then it is refused with 422, nothing is recorded, and the provider is not called
    """
    async with office.desk() as desk:
        first = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        calls = office.provider.calls()
        with pytest.raises(KeyReused) as refused:
            await desk.book({**CHECK_UP, "start": "2031-03-03T08:00:00Z"}, key="order-1")
        assert (await desk.show(first.id)).version == first.version
        assert len(await desk.list()) == 1
    assert (refused.value.status, refused.value.problem) == (422, "idempotency-key-reused")
    assert office.provider.calls() == calls


@pytest.mark.evidence(target="key", answers=("R2.2", "G5"), seen_in="ledger, list")
async def test_fifty_at_once_with_one_key_are_one_appointment(office: Office) -> None:
    """
    Given a provider that takes 50 ms to answer
    When fifty callers give the same command with one key at once
    Then all are told the same appointment, one booking is live, and the provider has seen one create
    """
    office.provider.script("create", "delayed", delay_ms=50)
    async with office.desk() as desk:
        told = await asyncio.gather(*(desk.book(CHECK_UP, key="order-1", wait=WAIT_S) for _ in range(50)))
        assert len(await desk.list()) == 1
    assert {(one.id, one.state) for one in told} == {(told[0].id, "confirmed")}
    assert sum(not one.replayed for one in told) == 1
    assert (len(office.live()), office.provider.calls()["create"]) == (1, 1)


@pytest.mark.evidence(target="key", answers=("R8.7", "R2.2"), seen_in="`notice` in the answer")
async def test_the_key_of_an_ended_appointment_says_so_and_how_to_book_anew(office: Office) -> None:
    """
    Given an appointment that was cancelled
    When the key under which it was booked is used again
    Then the answer says that it has ended, that nothing was done, and to use a new key; a new key books
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await desk.cancel(booked.id, key="cancel-1", reason="caller asked", wait=WAIT_S)
        again = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        assert (again.state, again.replayed) == ("cancelled", True)
        assert again.notice is not None
        assert "Nothing was done now. To book anew, use a new key." in again.notice
        assert office.live() == []
        assert (await desk.book(CHECK_UP, key="order-2", wait=WAIT_S)).state == "confirmed"
    assert len(office.live()) == 1


@pytest.mark.evidence(target="tenants", answers=("R2.2", "R7.4"), seen_in="answers, list")
async def test_no_tenant_sees_another_s_appointments_or_keys(office: Office) -> None:
    """
    Given two tenants that use the same key
    When both book, and each asks for the other's appointment
    Then there are two appointments, each tenant lists its own alone, and is told that the other's does not exist
    """
    async with office.desk() as desk:
        north = await desk.book(CHECK_UP, key="order-1", tenant="north", wait=WAIT_S)
        south = await desk.book(CHECK_UP, key="order-1", tenant="south", wait=WAIT_S)
        assert north.id != south.id
        with pytest.raises(UnknownAppointment):
            await desk.show(south.id, tenant="north")
        with pytest.raises(UnknownAppointment):
            await desk.cancel(north.id, key="cancel-1", tenant="south")
        listed = await desk.list(AppointmentFilter(tenant="south"))
    assert [one.id for one in listed] == [south.id]
    assert len(office.live()) == 2


@pytest.mark.evidence(target="bad input", answers=("R7.4",), seen_in="refusal, list, calls")
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"end": "2031-03-03T08:00:00Z"}, ""),
        ({"time_zone": "Europe/Nowhere"}, "/time_zone"),
        ({"summary": "x" * 256}, "/summary"),
        ({"start": "2031-03-03T09:00:00"}, "/start"),
        ({"price": 5}, "/price"),
        ({"attendees": [{"email": "nobody"}]}, "/attendees/0/email"),
    ],
    ids=["end before start", "no such zone", "too long", "no offset", "unknown field", "no address"],
)
async def test_bad_input_is_refused_with_its_place_and_costs_nothing(
    office: Office, changes: dict[str, object], pointer: str
) -> None:
    """
    Given a desk without appointments
    When a booking comes with a field that cannot be
    Then it is refused with the place of the fault, nothing is recorded, and the provider is not called
    """
    async with office.desk() as desk:
        with pytest.raises(InvalidFields) as refused:
            await desk.book({**CHECK_UP, **changes}, key="order-1")
        assert len(await desk.list()) == 0
    assert refused.value.errors[0][0].rstrip("/") == pointer
    assert office.provider.calls() == {}


@pytest.mark.evidence(target="legacy UI events", answers=("R1.3",), seen_in="audit trail (`action_label`)")
async def test_an_event_of_the_legacy_front_end_is_a_command(office: Office) -> None:
    """
    Given an event that carries its label on `srcElement` alone, and one where `target` says something else
    When both are handed over
    Then the first books; in the second `target` wins and it cancels what the first booked
    """
    async with office.desk() as desk:
        book = {
            "srcElement": {"attributes": [{"name": "data-action", "value": "book-appointment"}]},
            "payload": CHECK_UP,
        }
        booked = await desk.ui_event(book, key="click-1", wait=WAIT_S)
        assert booked.state == "confirmed"
        cancel = {
            "target": {"dataset": {"action": "cancel-appointment"}},
            "srcElement": {"dataset": {"action": "book-appointment"}},
            "payload": {"appointment_id": str(booked.id), "reason": "clicked"},
        }
        gone = await desk.ui_event(cancel, key="click-2", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert (gone.id, gone.state) == (booked.id, "cancelled")
    assert trail[0].data["action_label"] == "book-appointment"
    assert office.live() == []


@pytest.mark.evidence(target="legacy UI events", answers=("R1.3", "R7.4"), seen_in="refusal, list")
@pytest.mark.parametrize("label", [None, "delete-everything"], ids=["no label", "unknown label"])
async def test_an_unknown_label_is_refused_and_leaves_nothing(office: Office, label: str | None) -> None:
    """
    Given an event whose label is missing or not in the list
    When it is handed over
    Then it is refused as an unknown label, nothing is recorded, and the provider is not called
    """
    element = {"dataset": {"action": label}} if label else {"dataset": {}}
    async with office.desk() as desk:
        with pytest.raises(UnknownLabel):
            await desk.ui_event({"target": element, "payload": CHECK_UP}, key="click-1")
        assert len(await desk.list()) == 0
    assert office.provider.calls() == {}
