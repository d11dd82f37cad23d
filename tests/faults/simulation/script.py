"""What the people of one simulation do, drawn from the seed: book, book twice, cancel, move, act, hang up."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from uuid import UUID

from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    Command,
    OperatorAction,
    PolicyOverride,
    Request,
    RescheduleAppointment,
)
from domain.identity import appointment_id
from saga.virtual_time import EPOCH

TENANT = "default"
PARK_THEN = (OperatorAction.RESUME, OperatorAction.RESUME, OperatorAction.COMPENSATE, OperatorAction.RETRY)


@dataclass(frozen=True)
class Ask:
    """One command by one client at one time."""

    at_s: float
    appointment: UUID
    command: Command
    request: Request
    tries_max: int
    hangs_up_after_s: float | None = None
    after_end: bool = False
    """Waits for the appointment's end first."""


def booking(rng: Random, number: int) -> BookAppointment:
    """An appointment far off, or, rarely, one that starts in seconds."""
    start = EPOCH + (timedelta(seconds=rng.uniform(8, 25)) if rng.random() < 0.1 else timedelta(days=1, hours=number))
    return BookAppointment(
        calendar="main",
        start=start,
        end=start + timedelta(hours=1),
        time_zone="Europe/Berlin",
        summary=f"appointment {number}",
        deadline_ms=rng.choice((None, None, None, 3_000, 8_000)),
        policy=PolicyOverride(attempts_max=rng.choice((1, 5))) if rng.random() < 0.15 else None,
    )


def drawn(rng: Random, appointments: int) -> list[Ask]:
    """Everything that is asked for in one simulation."""
    asks: list[Ask] = []
    for number in range(appointments):
        asks += _story(rng, number)
    return asks


def _story(rng: Random, number: int) -> list[Ask]:
    key = f"book-{number}"
    appointment = appointment_id(TENANT, key)
    book = booking(rng, number)
    at_s = rng.uniform(0, 15)

    def ask(after_s: float, command: Command, key: str, after_end: bool = False) -> Ask:
        hangs_up = rng.uniform(0, 0.01) if rng.random() < 0.1 else None
        request = Request(tenant=TENANT, actor="sim", key=key)
        return Ask(at_s + after_s, appointment, command, request, rng.choice((1, 3, 20)), hangs_up, after_end)

    asks = [ask(0, book, key)]
    match rng.choice(("once", "once", "raced", "again", "other")):
        case "raced":
            asks += [ask(rng.choice((0.0, 0.001)), book, key) for _ in range(rng.choice((1, 3)))]
        case "again":
            asks.append(ask(rng.uniform(0, 20), book, key))
        case "other":
            asks.append(ask(rng.choice((0.0, 0.001, 5.0)), book.model_copy(update={"summary": "other"}), key))
    if rng.random() < 0.3:
        cancel = ask(rng.choice((0.001, 0.5, 5.0)) * rng.random(), CancelAppointment(reason="sim"), f"cancel-{number}")
        asks += [cancel] * rng.choice((1, 1, 2))
    if rng.random() < 0.4:
        for turn in range(rng.choice((1, 1, 2))):
            start = EPOCH + timedelta(days=2 + turn, hours=number)
            move = RescheduleAppointment(start=start, end=start + timedelta(hours=1))
            asks.append(ask(rng.uniform(0, 6), move, f"move-{number}-{turn}", after_end=True))
    if rng.random() < 0.15:
        asks.append(ask(rng.uniform(1, 8), CancelAppointment(), f"late-cancel-{number}", after_end=True))
    if rng.random() < 0.25:
        asks += _operator(rng, number, ask)
    return asks


def _operator(rng: Random, number: int, ask: "object") -> list[Ask]:
    assert callable(ask)
    action = rng.choice((*OperatorAction, OperatorAction.PARK, OperatorAction.PARK, OperatorAction.RETRY))
    after_s = rng.uniform(0, 10)
    asks = [ask(after_s, Act(action=action, reason="sim"), f"act-{number}")]
    if action is OperatorAction.PARK and rng.random() < 0.8:
        then = rng.choice(PARK_THEN)
        asks.append(ask(after_s + rng.uniform(0, 10), Act(action=then, reason="sim"), f"act-{number}-then"))
    return asks
