"""People who edit the calendar itself, past the desk, and the one who sees it and reports. Drawn from the seed."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from uuid import UUID

from domain.appointment import Appointment
from domain.commands import Repair, ReportBooking, Request
from domain.identity import appointment_id
from domain.lifecycle import ENDED, SETTLED, State
from domain.provider import LIVE, ProviderBooking
from domain.seen import stands_as_booked
from simulation.ledger import Ledger
from simulation.script import TENANT, Ask
from simulation.weather import FAULTS_END_S

KINDS = ("move", "move", "cancel", "delete", "revive")
CONFIRMED_REPAIRS = (Repair.ADOPT, Repair.ADOPT, Repair.RESTORE, Repair.RESTORE, Repair.RESTORE, Repair.PARK)
LOOKS_EVERY_S = (0.7, 3.0)


@dataclass(frozen=True)
class Edit:
    """One hand at one booking; it is made as soon as the appointment rests, if it fits then."""

    at_s: float
    appointment: UUID
    kind: str
    days: int


def drawn(rng: Random, appointments: int) -> tuple[Edit, ...]:
    """The edits of one simulation; none in half of them."""
    if rng.random() < 0.5:
        return ()
    return tuple(
        Edit(
            rng.uniform(3, FAULTS_END_S),
            appointment_id(TENANT, f"book-{rng.randrange(appointments)}"),
            rng.choice(KINDS),
            rng.randrange(10, 20),
        )
        for _ in range(rng.choice((1, 2, 4, 6)))
    )


def edit(ledger: Ledger, state: Appointment, wanted: Edit) -> bool:
    """Make an edit; False where there is nothing that it could be made to."""
    live = ledger.live(str(state.id))
    if state.state in ENDED:
        dead = ledger.by_ref.get(str(state.id), [])
        if wanted.kind != "revive" or live or not dead:
            return False
        ledger.revive(dead[-1])
        return True
    if state.state is not State.CONFIRMED or not live or wanted.kind == "revive":
        return False
    record = live[0]
    match wanted.kind:
        case "move":
            by = timedelta(days=wanted.days)
            ledger.move(record, record.start + by, record.end + by)
        case "cancel":
            ledger.cancel_by_hand(record)
        case _:
            ledger.delete(record)
    return True


def report(rng: Random, ledger: Ledger, state: Appointment, at_s: float, last: bool) -> Ask | None:
    """What the observer says of an appointment: a report, or None where nothing is to be said."""
    if state.state not in SETTLED:
        return None
    there = ledger.live(str(state.id)) or ledger.by_ref.get(str(state.id), [])
    seen = there[-1].booking() if there else None
    live = seen is not None and seen.status in LIVE
    if state.state in ENDED:
        repair = Repair.REMOVE if live else None
    elif state.booking is None or agrees(state, seen) or (state.parked and not last and rng.random() < 0.8):
        repair = None
    else:
        repair = rng.choice(CONFIRMED_REPAIRS)
    if repair is None or (state.parked and repair is Repair.PARK):
        return None
    command = ReportBooking(seen=seen, repair=repair, reason="seen from outside")
    key = f"report-{repair}-{state.version}-{seen.version if seen else ''}"
    request = Request(tenant=TENANT, actor="observer", key=key, expected_version=state.version)
    return Ask(at_s, state.id, command, request, rng.choice((1, 3, 20)))


def agrees(state: Appointment, seen: ProviderBooking | None) -> bool:
    """Whether the confirmed appointment stands there as it should."""
    assert state.details is not None
    return seen is not None and seen.status in LIVE and stands_as_booked(state.details, seen)
