"""The blocking face: the same calls and refusals, from plain code and from many threads at once."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from appointments import AppointmentFilter, Orchestrator, Settings, SyncOrchestrator
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.sink import Handler, Subscriber
from domain.errors import InvalidFields, KeyReused, StoreLocked, UnknownAppointment
from providers.local import LocalProvider

FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


def running() -> int:
    """Loops of desks that are open."""
    return sum(thread.name == "appointments" for thread in threading.enumerate())


def opened(folder: Path, calendar: LocalProvider | None = None) -> SyncOrchestrator:
    settings = Settings(store=f"sqlite:///{folder}/desk.db", provider="local:")
    return SyncOrchestrator.open(settings, providers=(calendar or LocalProvider("main"),))


def test_every_call_works_without_a_loop(tmp_path: Path) -> None:
    with opened(tmp_path) as desk:
        one = desk.book(FIELDS, key="key-1", wait=5)
        assert one.state == "confirmed"
        moved = desk.reschedule(one.id, start="2031-03-04T10:00:00Z", end="2031-03-04T11:00:00Z", key="m-1", wait=5)
        assert moved.start.day == 4
        assert desk.act(one.id, "park", actor="dana", reason="why").parked
        assert desk.act(one.id, "resume", actor="dana", reason="done").state == "confirmed"
        assert desk.cancel(one.id, key="c-1", wait=5).state == "cancelled"
        event = {"srcElement": {"data-action": "book"}, "payload": FIELDS}
        assert desk.ui_event(event, key="key-2", wait=5).state == "confirmed"
        assert desk.show(one.id).state == "cancelled"
        assert len(desk.list(AppointmentFilter(state="cancelled"))) == 1
        assert desk.events(one.id)[0].version == 1
        assert desk.state_at(one.id, version=1).state == "requested"
        assert desk.health().ok


def test_refusals_come_through_as_they_are(tmp_path: Path) -> None:
    with opened(tmp_path) as desk:
        desk.book(FIELDS, key="key-1", wait=5)
        with pytest.raises(KeyReused):
            desk.book({**FIELDS, "summary": "Another"}, key="key-1")
        with pytest.raises(UnknownAppointment):
            desk.show("nobody")
        with pytest.raises(InvalidFields):
            desk.book({}, key="key-2")


def test_many_threads_share_one_desk(tmp_path: Path) -> None:
    calendar = LocalProvider("main")
    with opened(tmp_path, calendar) as desk, ThreadPoolExecutor(16) as threads:
        keys = [f"key-{n % 10}" for n in range(40)]
        booked = list(threads.map(lambda key: desk.book(FIELDS, key=key, wait=5), keys))
    assert {one.state for one in booked} == {"confirmed"}
    assert len({one.id for one in booked}) == len(calendar.live("main")) == 10


def test_after_the_block_its_thread_is_gone_and_the_file_is_free(tmp_path: Path) -> None:
    with opened(tmp_path) as desk:
        desk.book(FIELDS, key="key-1", wait=5)
        assert running() == 1
    assert running() == 0
    with opened(tmp_path) as desk:
        assert desk.book(FIELDS, key="key-1").replayed


def test_an_opening_that_is_refused_leaves_no_thread(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(StoreLocked):
            opened(tmp_path).__enter__()
        assert running() == 1


def test_an_error_inside_the_block_still_closes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), opened(tmp_path):
        raise RuntimeError("mine")
    with opened(tmp_path) as desk:
        assert not desk.list().items


def test_every_call_of_the_async_face_is_there() -> None:
    ours = {name for name in vars(SyncOrchestrator) if not name.startswith("_")}
    theirs = {name for name in vars(Orchestrator) if not name.startswith("_")}
    assert ours == theirs - {"runtime", "provider", "called_back"}


def test_a_desk_that_is_never_entered_leaves_nothing_open() -> None:
    """An event loop that nobody closes would be told as a warning, which is an error here."""
    SyncOrchestrator.open(Settings(store="memory:", provider="local:"))
    gc.collect()


def test_subscribers_are_told_while_the_block_runs(tmp_path: Path) -> None:
    told: list[str] = []

    async def take(event: CloudEvent) -> None:
        told.append(event.type)
        if event.type.endswith("appointment-confirmed.v1"):
            ended.set()

    ended = threading.Event()
    with opened(tmp_path) as desk:
        with desk.outbox(Subscriber("mine", "default", Handler(take))):
            desk.book(FIELDS, key="key-1", wait=5)
            assert ended.wait(5)
        before = len(told)
        desk.book(FIELDS, key="key-2", wait=5)
    assert len(told) == before
