"""The process dies before and after every commit and every outbound call; what was begun comes to the same end."""

from dataclasses import replace
from datetime import timedelta

import pytest
from simulation.checks import Evidence, violations
from simulation.simulate import Run, history, log_bytes
from simulation.stage import Scene, Stage, play, points

from domain.commands import CancelAppointment, Repair, ReportBooking, RescheduleAppointment
from domain.provider import Capabilities
from saga.virtual_time import EPOCH

CANCEL = (0.0, CancelAppointment(), True)
CANCEL_EARLY = (0.007, CancelAppointment(), False)
MOVE = (
    0.0,
    RescheduleAppointment(start=EPOCH + timedelta(days=9), end=EPOCH + timedelta(days=9, hours=1)),
    True,
)
ADOPT, RESTORE, REMOVE = (
    (0.0, ReportBooking(seen=None, repair=repair), True) for repair in (Repair.ADOPT, Repair.RESTORE, Repair.REMOVE)
)
NOTIFY_FAILS = {"tell": "rejected"}
CALLS_BACK = Capabilities(settle_ms=1_000, callbacks=True)
NO_RESEND = Capabilities(settle_ms=1_000, resend=False)
SEARCHES_EXTRA_MAX = 4
"""One a second for as long as a call that was cut off may still take effect."""

BEGINNINGS: dict[str, Scene] = {
    "happy": Scene("happy"),
    "retry": Scene("retry", answers={"create": ["refused", "refused"]}),
    "lost response": Scene("lost response", answers={"create": ["lost"]}),
    "lost response, no resend": Scene("lost", answers={"create": ["lost"]}, capabilities=NO_RESEND),
    "unknown, nothing there, no resend": Scene("unknown", answers={"create": ["503"]}, capabilities=NO_RESEND),
    "pending": Scene("pending", pending=True),
    "pending, called back": Scene("pending, called back", pending=True, capabilities=CALLS_BACK),
}


def scenes() -> list[tuple[Scene, str]]:
    """Each beginning with each of the three ends; and scenes that have but one end."""
    found: list[tuple[Scene, str]] = []
    for name, begun in BEGINNINGS.items():
        also = {"pending": begun.pending, "capabilities": begun.capabilities}
        found.append((begun, "confirmed"))
        found.append((Scene(f"{name}, downstream fails", (), begun.answers, NOTIFY_FAILS, **also), "failed"))
        found.append((Scene(f"{name}, cancelled", (CANCEL,), begun.answers, **also), "cancelled"))
        found.append((Scene(f"{name}, cancelled at work", (CANCEL_EARLY,), begun.answers, **also), "cancelled"))
    lost_undo = {"cancel": ["lost", "503"]}
    found += [
        (Scene("retries exhausted", always={"create": "503"}), "failed"),
        (Scene("rejected", always={"create": "rejected"}), "failed"),
        (Scene("compensation in doubt", (), lost_undo, NOTIFY_FAILS), "failed"),
        (Scene("cancel in doubt", (CANCEL,), lost_undo), "cancelled"),
        (Scene("move", (MOVE,)), "confirmed"),
        (Scene("move in doubt", (MOVE,), {"reschedule": ["lost"]}), "confirmed"),
        (Scene("move that fails", (MOVE,), always={"reschedule": "503"}), "confirmed"),
        (Scene("move, cancelled", (MOVE, (0.5, CancelAppointment(), True))), "cancelled"),
        (Scene("moved by hand, adopted", (ADOPT,), by_hand="move"), "confirmed"),
        (Scene("moved by hand, taken back", (RESTORE,), {"reschedule": ["lost"]}, by_hand="move"), "confirmed"),
        (Scene("cancelled by hand, adopted", (ADOPT,), by_hand="cancel"), "cancelled"),
        (Scene("cancelled by hand, booked again", (RESTORE,), by_hand="cancel"), "confirmed"),
        (
            Scene("deleted, booked again in doubt", (RESTORE,), {"create": ["fine", "lost"]}, by_hand="delete"),
            "confirmed",
        ),
        (Scene("revived by hand, removed", (CANCEL, REMOVE), by_hand="revive"), "cancelled"),
        (Scene("move, cancelled at work", (MOVE, (0.007, CancelAppointment(), False))), "cancelled"),
    ]
    return found


def _end(stage: Stage) -> str:
    return str(Evidence.of(stage).states[stage.appointment].state)


def _most(scene: Scene) -> Stage:
    """The scene when every command waits for the end of what was before: a crash may delay a command as long."""
    return play(replace(scene, then=tuple((at_s, command, True) for at_s, command, _ in scene.then)))


def _wrong(stage: Stage, calm: Stage, most: Stage, end: str) -> list[str]:
    wrong = violations(stage)
    if _end(stage) != end:
        wrong.append(f"ended {_end(stage)}, not {end}")
    if not set(stage.writes) <= set(calm.writes + most.writes):
        wrong.append(f"other operations: {set(stage.writes) - set(calm.writes)}")
    if len(stage.writes) > max(len(calm.writes), len(most.writes)) + 1:
        wrong.append(
            f"writes {[name for name, _ in stage.writes]}, without a crash {[name for name, _ in calm.writes]}"
        )
    if stage.searches > calm.searches + SEARCHES_EXTRA_MAX:
        wrong.append(f"{stage.searches} look-ups, without a crash {calm.searches}")
    if stage.point is not None and stage.generation != 2:
        wrong.append(f"{stage.generation - 1} crashes instead of one")
    return wrong


@pytest.mark.evidence(
    target="crash points",
    answers=("R7.1", "G1", "G2", "G5", "G6"),
    given="a scene with its end, played once undisturbed",
    when="the process dies before and after each commit and each call in turn, and the next one starts",
    then="the same end, all guarantees, no other operation ids, at most one write more",
    seen_in="printed counts of boundaries, history of a failed scene",
)
@pytest.mark.parametrize(("scene", "end"), [pytest.param(*scene, id=scene[0].name) for scene in scenes()])
def test_a_crash_at_any_boundary_changes_neither_the_end_nor_the_operations(scene: Scene, end: str) -> None:
    calm, most = play(scene), _most(scene)
    assert _wrong(calm, calm, most, end) == []
    for point in points(calm):
        stage = play(scene, point)
        wrong = _wrong(stage, calm, most, end)
        if wrong:
            told = history(Run(0, tuple(wrong), log_bytes(stage), stage), stage.ref)
            pytest.fail(f"{scene.name}, {point}\n{told}", pytrace=False)
    print(f"{len(points(calm))} points: {calm.counts} boundaries, each before and after")
