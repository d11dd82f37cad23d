"""The heart of a reconciliation: given intended, attempted, there; then this class, these fields, this repair."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.events import Operation
from domain.lifecycle import State
from domain.personal import ERASED
from domain.provider import BookingStatus, ProviderBooking
from projections.health import OVERDUE_AFTER
from projections.reconciliation.classify import Rules, classify
from projections.reconciliation.intended import Intended, text_hash
from projections.reconciliation.model import Attempted, Difference, Finding, Kind, Origin, Policy, Proposal

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
START = NOW + timedelta(days=1)
END = START + timedelta(hours=1)
ID = UUID(int=7)
ORIGIN = Origin(6, "appointment-confirmed.v1", NOW - timedelta(hours=1))
ONCE = Attempted(1, Operation.ACTION, 2, "succeeded")
SUMMARY = "Check-up,  Ms Pat"


def intended(**changes: Any) -> Intended:
    fields: dict[str, Any] = {
        "id": ID,
        "version": 6,
        "state": State.CONFIRMED,
        "start": START,
        "end": END,
        "summary": text_hash(SUMMARY),
        "provider_ref": "ref-1",
        "etag": '"1"',
        "status": BookingStatus.ACCEPTED,
        "changed_at": ORIGIN.at,
        "origin": ORIGIN,
    }
    return Intended(**{**fields, **changes})


def there(**changes: Any) -> ProviderBooking:
    fields: dict[str, Any] = {
        "provider_ref": "ref-1",
        "client_ref": str(ID),
        "status": BookingStatus.ACCEPTED,
        "etag": '"2"',
        "start": START,
        "end": END,
        "summary": SUMMARY,
    }
    return ProviderBooking(**{**fields, **changes})


def found(wanted: Intended | None, *bookings: ProviderBooking, rules: Rules | None = None) -> Finding:
    findings = classify(wanted, ONCE, bookings, NOW, rules or Rules())
    assert len(findings) == 1, findings
    return findings[0]


def under(policy: Policy) -> Rules:
    return Rules(policy=policy)


GONE = there(status=BookingStatus.CANCELLED)
UNFINISHED = {"state": State.BOOKING, "provider_ref": None, "work": True, "due_at": NOW + timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("wanted", "bookings", "kind"),
    [
        (intended(), (there(),), Kind.MATCHED),
        (intended(), (GONE, there(provider_ref="ref-2")), Kind.DRIFTED),
        (intended(provider_ref="ref-2"), (GONE, there(provider_ref="ref-2")), Kind.MATCHED),
        (intended(), (), Kind.MISSING),
        (intended(), (GONE,), Kind.MISSING),
        (intended(), (there(status=BookingStatus.REJECTED),), Kind.MISSING),
        (intended(), (there(start=START + timedelta(minutes=1)),), Kind.DRIFTED),
        (intended(), (there(status=BookingStatus.PENDING),), Kind.DRIFTED),
        (intended(), (there(), there(provider_ref="ref-2")), Kind.DUPLICATED),
        (intended(parked=True), (), Kind.PARKED),
        (intended(parked=True), (there(start=END),), Kind.PARKED),
        (intended(state=State.CANCELLED), (), Kind.MATCHED),
        (intended(state=State.CANCELLED), (GONE,), Kind.MATCHED),
        (intended(state=State.CANCELLED), (there(),), Kind.ORPHANED),
        (intended(state=State.FAILED), (there(status=BookingStatus.PENDING),), Kind.ORPHANED),
        (intended(**{**UNFINISHED, "work": False}), (), Kind.STUCK),
        (intended(**{**UNFINISHED, "due_at": None}), (), Kind.STUCK),
        (intended(**{**UNFINISHED, "due_at": NOW - OVERDUE_AFTER - timedelta(seconds=1)}), (), Kind.STUCK),
        (intended(**UNFINISHED, doubt=True), (), Kind.IN_DOUBT),
        (intended(**{**UNFINISHED, "work": False}, doubt=True), (there(),), Kind.IN_DOUBT),
        (intended(**UNFINISHED, doubt=True, parked=True), (), Kind.PARKED),
        (intended(**UNFINISHED), (there(), there(provider_ref="ref-2")), Kind.DUPLICATED),
        (None, (there(client_ref="theirs"),), Kind.ORPHANED),
    ],
)
def test_each_case_has_its_class(wanted: Intended | None, bookings: tuple[ProviderBooking, ...], kind: Kind) -> None:
    assert found(wanted, *bookings).kind is kind


@pytest.mark.parametrize("bookings", [(), (there(),), (there(start=END),), (GONE,)])
@pytest.mark.parametrize("state", [State.REQUESTED, State.PENDING, State.RESCHEDULING, State.COMPENSATING])
def test_what_is_under_way_and_due_in_time_is_no_finding(state: State, bookings: tuple[ProviderBooking, ...]) -> None:
    assert classify(intended(**{**UNFINISHED, "state": state}), ONCE, bookings, NOW) == ()


def test_a_stranger_that_is_over_is_no_finding() -> None:
    assert classify(None, Attempted(), (GONE,), NOW) == ()


def test_every_field_that_differs_is_named_and_a_summary_is_never_shown() -> None:
    edited = there(start=START + timedelta(hours=1), end=END + timedelta(hours=1), summary="Lunch with Kim")
    finding = found(intended(), edited)
    assert [str(field) for field in finding.fields] == [
        "start: 2026-03-03T12:00:00Z -> 2026-03-03T13:00:00Z",
        "end: 2026-03-03T13:00:00Z -> 2026-03-03T14:00:00Z",
        "summary: differs",
    ]
    told = finding.model_dump_json() + repr(finding)
    assert "Kim" not in told
    assert "Pat" not in told
    assert finding.event == ORIGIN


@pytest.mark.parametrize(
    "same",
    [
        there(summary=f" {SUMMARY.replace('  ', ' ')} "),
        there(summary=None),
        there(start=None, end=None),
        there(start=START.replace(microsecond=5)),
    ],
)
def test_what_a_calendar_rounds_or_leaves_out_is_no_drift(same: ProviderBooking) -> None:
    assert found(intended(), same).kind is Kind.MATCHED


def test_a_summary_that_was_erased_is_not_compared() -> None:
    assert found(intended(summary=text_hash(ERASED)), there(summary="whatever")).kind is Kind.MATCHED
    assert found(intended(summary=text_hash("was here")), there(summary=ERASED)).kind is Kind.DRIFTED


def test_a_status_that_the_log_lives_with_is_no_drift() -> None:
    assert found(intended(status=BookingStatus.PENDING), there(status=BookingStatus.PENDING)).kind is Kind.MATCHED


def test_what_bears_the_etag_of_our_own_write_is_no_edit() -> None:
    finding = found(intended(), there(etag='"1"', start=END), rules=under(Policy.ADOPT))
    assert (finding.kind, finding.repair) == (Kind.DRIFTED, Proposal.BY_HAND)
    assert finding.detail.startswith("not edited since it was written")


@pytest.mark.parametrize("policy", list(Policy))
def test_the_policy_is_what_is_proposed_for_an_edit(policy: Policy) -> None:
    for bookings in ((), (GONE,), (there(start=START + timedelta(hours=2)),)):
        assert found(intended(), *bookings, rules=under(policy)).repair == policy


def test_what_cannot_be_restored_is_for_a_person() -> None:
    past = intended(start=NOW - timedelta(hours=1), end=NOW)
    assert found(past, rules=under(Policy.RESTORE)).repair is Proposal.BY_HAND
    assert found(past, rules=under(Policy.ADOPT)).repair is Proposal.ADOPT
    assert found(intended(), there(summary="other"), rules=under(Policy.RESTORE)).repair is Proposal.BY_HAND
    assert found(intended(), there(summary="other"), rules=under(Policy.ADOPT)).repair is Proposal.ADOPT


def test_what_the_provider_has_not_settled_can_only_be_parked() -> None:
    for policy, repair in ((Policy.ADOPT, "by_hand"), (Policy.RESTORE, "by_hand"), (Policy.PARK, "park")):
        assert found(intended(), there(status=BookingStatus.PENDING), rules=under(policy)).repair == repair


@pytest.mark.parametrize("known", ["ref-1", None])
def test_a_booking_under_another_reference_is_told_to_the_log(known: str | None) -> None:
    """A cancel would look for it at the old place, and leave it."""
    for policy in Policy:
        finding = found(intended(provider_ref=known), there(provider_ref="ref-2"), rules=under(policy))
        assert (finding.kind, finding.fields, finding.repair) == (Kind.DRIFTED, (), policy)
        assert "another reference" in finding.detail


def test_each_leftover_of_an_ended_appointment_is_to_be_removed() -> None:
    findings = classify(intended(state=State.FAILED), ONCE, (there(), there(provider_ref="ref-2"), GONE), NOW)
    assert [(f.kind, f.provider_ref, f.repair) for f in findings] == [
        (Kind.ORPHANED, "ref-1", Proposal.REMOVE),
        (Kind.ORPHANED, "ref-2", Proposal.REMOVE),
    ]


@pytest.mark.parametrize(
    ("wanted", "repair"),
    [
        (intended(**{**UNFINISHED, "work": False}), Proposal.RETRY),
        (intended(**UNFINISHED, doubt=True), Proposal.RETRY),
        (intended(parked=True), Proposal.BY_HAND),
        (None, Proposal.BY_HAND),
    ],
)
def test_the_operators_own_classes_have_their_repairs(wanted: Intended | None, repair: Proposal) -> None:
    assert found(wanted, there()).repair is repair


def test_an_absence_right_after_a_write_proves_nothing_but_a_cancelled_booking_does() -> None:
    rules = Rules(settle=timedelta(seconds=2))
    young = intended(changed_at=NOW - timedelta(seconds=1))
    assert classify(young, ONCE, (), NOW, rules) == ()
    assert found(young, GONE, rules=rules).kind is Kind.MISSING
    assert found(intended(changed_at=NOW - timedelta(seconds=2)), rules=rules).kind is Kind.MISSING


def test_what_was_completed_by_hand_without_a_booking_is_not_missing() -> None:
    assert found(intended(provider_ref=None)).kind is Kind.MATCHED


def test_a_parked_one_tells_what_differs_and_who_parked_it() -> None:
    finding = found(intended(parked=True, stopped=True), there(start=START - timedelta(hours=1)))
    assert "by the process" in finding.detail
    assert finding.fields == (Difference(field="start", intended="2026-03-03T12:00:00Z", there="2026-03-03T11:00:00Z"),)
    assert "by an operator" in found(intended(parked=True)).detail
