"""The course of an appointment as a drawing: to scale within a chapter, every call and wait in its lane."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from appointments.console.timeline import WIDTH, Timeline, timeline
from appointments.views import AuditEvent

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)


def trail(*events: tuple[float, str, dict[str, Any]]) -> list[AuditEvent]:
    """Events at so many seconds after noon."""
    return [
        AuditEvent(
            version=version,
            position=version,
            type=f"{name}.v1",
            recorded_at=NOON + timedelta(seconds=after),
            actor=None,
            cause=None,
            correlation_id="c",
            data=data,
        )
        for version, (after, name, data) in enumerate(events, 1)
    ]


def started(attempt: int = 1, step: str = "calendar", **more: Any) -> dict[str, Any]:
    return {"step": step, "attempt": attempt, "timeout_ms": 5_000, **more}


RETRIED = trail(
    (0, "appointment-requested", {}),
    (0, "step-started", started()),
    (1, "step-attempt-failed", {"step": "calendar", "kind": "unknown", "reason": "timeout"}),
    (1, "retry-scheduled", {"step": "calendar", "due_at": "2031-03-03T12:00:03Z"}),
    (3, "step-started", started(2)),
    (4, "step-succeeded", {"step": "calendar"}),
    (4, "appointment-confirmed", {}),
)


def bars(drawn: Timeline) -> list[tuple[str, str, str]]:
    return [(drawn.lanes[bar.lane], bar.kind, bar.label) for bar in drawn.bars]


def test_every_call_is_a_bar_with_its_outcome_and_every_wait_one_in_its_own_lane() -> None:
    assert bars(timeline(RETRIED)) == [
        ("calendar", "unknown", "calendar, attempt 1: unknown: timeout"),
        ("waiting", "wait", "waits to try again"),
        ("calendar", "done", "calendar, attempt 2: done"),
    ]


def test_within_a_chapter_time_is_to_scale() -> None:
    drawn = timeline(RETRIED)
    assert len(drawn.chapters) == 1
    assert [round(bar.x) for bar in drawn.bars] == [0, 250, 750]
    assert [round(bar.width) for bar in drawn.bars] == [250, 500, 250]
    assert max(bar.x + bar.width for bar in drawn.bars) == pytest.approx(WIDTH)


def test_a_long_pause_begins_a_new_chapter_and_is_told_in_words() -> None:
    later = trail(
        (0, "appointment-requested", {}),
        (0.2, "appointment-confirmed", {}),
        (3 * 86_400, "reschedule-requested", {}),
        (3 * 86_400 + 0.4, "appointment-rescheduled", {}),
    )
    first, second = timeline(later).chapters
    assert (first.pause, second.pause) == ("", "3 d")
    assert first.x + first.width < second.x
    places = [mark.x for mark in timeline(later).marks]
    assert places == sorted(places)
    assert places[1] - places[0] > 100  # not pressed into one point by the three days


def test_operations_have_lanes_of_their_own() -> None:
    undone = trail(
        (0, "appointment-requested", {}),
        (0, "step-started", started()),
        (1, "step-succeeded", {"step": "calendar"}),
        (2, "cancellation-requested", {}),
        (2, "step-started", started(operation="compensation")),
        (3, "step-succeeded", {"step": "calendar", "operation": "compensation"}),
        (3, "appointment-cancelled", {}),
    )
    assert timeline(undone).lanes == ("asked", "calendar", "calendar (undo)", "waiting", "decided")


def test_what_is_under_way_ends_where_it_will_end() -> None:
    running = timeline(RETRIED[:2])
    assert [(bar.kind, bar.planned) for bar in running.bars] == [("running", True)]
    waiting = timeline(RETRIED[:4], next_action_at=NOON + timedelta(seconds=9))
    last = waiting.bars[-1]
    assert (last.kind, last.planned) == ("wait", True)
    assert last.x + last.width == pytest.approx(WIDTH)


def test_one_event_alone_can_be_drawn() -> None:
    drawn = timeline(RETRIED[:1])
    assert [(mark.version, mark.name) for mark in drawn.marks] == [(1, "appointment-requested")]
    assert drawn.bars == ()


def test_ticks_never_crowd() -> None:
    for seconds in (0.003, 0.4, 7, 39):
        drawn = timeline(trail((0, "appointment-requested", {}), (seconds, "appointment-confirmed", {})))
        (chapter,) = drawn.chapters
        places = [tick.x for tick in chapter.ticks]
        assert all(b - a >= 70 for a, b in pairwise(places)), seconds
        assert len(places) > 2, seconds
