"""Judges what A did in a case: by what must come of the case, and by what A is expected to do. Pure."""

from appointments.cases import Case, Expected
from domain.lifecycle import State
from Shared.harness.models import Call, LegacyExpected, Wanted


def wanted(case: Case, expected: Expected) -> list[Wanted]:
    """What the user must be told at each command; the refused commands of a case are its last ones."""
    accepted = len(case.commands) - len(expected.refusals)
    told: list[Wanted] = []
    for number, send in enumerate(case.commands):
        if number >= accepted or expected.state is State.FAILED:
            told.append("error")
        elif send.command == "cancel":
            told.append("cancelled")
        elif send.command == "reschedule":
            told.append("rescheduled")
        else:
            told.append("booked")
    return told


def early(call: Call) -> bool:
    """Told "booked" while the provider had not decided."""
    return call.told == "booked" and call.status == 202


def end_right(case: Case, expected: Expected, calls: list[Call], live: int) -> bool:
    """Whether the last thing told, and what is at the provider, are right."""
    return calls[-1].told == wanted(case, expected)[-1] and live == expected.live_bookings


def differences(case: Case, expected: Expected, calls: list[Call], live: int) -> list[str]:
    """Where A differs from what must come of the case, for the user and at the provider."""
    found = [
        f"{call.command} {number}: {want} wanted, {call.told} told"
        for number, (want, call) in enumerate(zip(wanted(case, expected), calls, strict=True), 1)
        if want != call.told
    ]
    if any(early(call) for call in calls):
        found.append("booked told while the provider's answer was pending (202)")
    if live != expected.live_bookings:
        found.append(f"live bookings: {expected.live_bookings} wanted, {live} found")
    return found


def surprises(expected: LegacyExpected, calls: list[Call], live: int) -> list[str]:
    """Where A differs from what it is expected to do."""
    told = [call.told for call in calls]
    found = [] if told == expected.told else [f"told: expected {expected.told}, found {told}"]
    if live != expected.live_bookings:
        found.append(f"live bookings: expected {expected.live_bookings}, found {live}")
    return found
