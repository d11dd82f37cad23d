"""What leaves the house: states and times, and no word that somebody typed, before an erasure and after it."""

import json
import re
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments import Orchestrator
from appointments.outbox import relay as relay_module
from appointments.outbox.dead_letters import abandon, ask_again, dead_letters
from domain.events import DeliveryAbandoned
from domain.identity import appointment_id, dead_letter_stream
from domain.personal import ERASED
from store.port import Store, whole_log
from tests.unit.outbox.world import BOOKING, T0, Received, caught_up, desk_on, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8",),
    given="appointments with a person's name in every field where somebody could write one",
    when="subscribers are told, the person is erased, and others are told everything only then",
    then="nothing that leaves holds any of it; the erasure is told; who comes later is told the same",
    seen_in="bodies and headers that were received",
)

WHO = "Zaphod.Beeblebrox@example.org"
PLANTED = ("zaphod", "beeblebrox", "heartofgold")
FULL: dict[str, Any] = {
    **BOOKING,
    "summary": "Zaphod's second head",
    "location": "On the Heartofgold",
    "organizer": {"email": WHO, "name": "Zaphod"},
    "attendees": [{"email": WHO, "name": "Zaphod Beeblebrox"}],
    "metadata": {"note": "ask Beeblebrox"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory tells of no commit: it is looked at more often."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.05)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0.05)


async def live(desk: Orchestrator) -> None:
    """Booked, moved, parked and taken up, cancelled: a name wherever one can be written."""
    booked = await desk.book(FULL, key="zaphod-1", wait=10, actor=WHO)
    moved = {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T09:30:00Z"}
    await desk.reschedule(booked.id, key="beeblebrox", wait=10, **moved)
    await desk.cancel(booked.id, key="cancel-zaphod", reason="Zaphod is ill", wait=10)


def words(received: Received) -> str:
    """All that came, in small letters."""
    return json.dumps([received.events, received.headers]).lower()


async def test_no_word_that_somebody_typed_leaves_and_an_erasure_is_told() -> None:
    async with receiver() as early, receiver() as late, AsyncExitStack() as stack:
        settings = told_at(early, late)
        kept_back = {"subscriptions": {"a": settings["subscriptions"]["a"]}}
        desk = await stack.enter_async_context(desk_on(**{**settings, **kept_back}))
        store = desk.runtime.store
        async with desk.outbox():
            await live(desk)
            await until(lambda: caught_up(store, "a"))
            await desk.erase(email=WHO, reference="request-2031-118", dry_run=False)
            await until(lambda: caught_up(store, "a"))
        again = await stack.enter_async_context(desk_on(store, **settings))
        async with again.outbox():
            await until(lambda: caught_up(store, "b"))
        stream = await store.events(appointment_id("default", "zaphod-1"))
        there = {str(stream[0].stream_id): [event.version for event in stream]}
        assert early.versions() == late.versions() == there
    assert early.events[-1]["type"] == "personal-data-erased.v1"
    assert sorted(early.ids) == sorted(late.ids)
    assert {one["id"]: one for one in early.events} == {one["id"]: one for one in late.events}
    assert not [word for word in PLANTED if word in words(early) + words(late)]


async def test_an_erasure_that_was_not_taken_can_be_told_again() -> None:
    down = True

    async def answer(event: dict[str, Any]) -> int:
        return 422 if down and event["type"] == "personal-data-erased.v1" else 204

    async with receiver(answer) as received, AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_on(**told_at(received, retry={"attempts_max": 1})))
        store = desk.runtime.store
        await stack.enter_async_context(desk.outbox())
        await live(desk)
        await desk.erase(email=WHO, reference="request-2031-118", dry_run=False)
        await until(lambda: caught_up(store, "a"))
        (letter,) = await dead_letters(store, "default")
        down = False
        await ask_again(store, letter, "default", "op", "mended", T0)
        await until(lambda: caught_up(store, "a"))
        assert [one.stands for one in await dead_letters(store, "default")] == ["told again"]
    assert received.events[-1]["type"] == "personal-data-erased.v1"


async def letter_about(desk: Orchestrator, appointment: UUID) -> None:
    """A dead letter whose reasons name the person, asked for again by somebody who typed the name too."""
    store = desk.runtime.store
    gone = {"at": T0, "sink": "crm", "tenant": "default", "appointment": appointment, "version": 1, "attempts": 1}
    await abandon(store, DeliveryAbandoned.model_validate({**gone, "reason": "no Zaphod here"}))
    (letter,) = await dead_letters(store, "default")
    await ask_again(store, letter, "default", "op", "Beeblebrox called", T0)


async def readable(store: Store) -> str:
    """Whatever the log still tells, in small letters."""
    events = [one async for one in whole_log(store)]
    return str([(one.body, [part.body for part in one.private]) for one in events]).lower()


@pytest.mark.parametrize("place", ["memory:", "sqlite:///{}/desk.db"])
@pytest.mark.parametrize("named", [True, False], ids=["a person", "an appointment that names nobody"])
async def test_why_it_was_not_taken_and_why_it_is_told_again_are_erased_with_the_person(
    place: str, named: bool, tmp_path: Path
) -> None:
    async with desk_on(store=place.format(tmp_path)) as desk:
        store = desk.runtime.store
        booked = await desk.book(FULL if named else BOOKING, key="order-1", wait=10)
        await letter_about(desk, booked.id)
        whom: dict[str, Any] = {"email": WHO} if named else {"appointment": booked.id}
        assert [word for word in ("no zaphod", "beeblebrox called") if word not in await readable(store)] == []
        erased = await desk.erase(**whom, reference="request-2031-118", dry_run=False)
        assert (erased.appointments, erased.applied) == ((booked.id,), True)
        assert not re.search("|".join(PLANTED), await readable(store))
        assert [(one.reason, one.stands) for one in await dead_letters(store, "default")] == [
            (ERASED, "to be told again")
        ]
        assert (await desk.health()).findings == ()
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert not re.search("|".join(PLANTED), file.read_bytes().decode("latin-1").lower()), file.name


async def test_a_dead_letter_of_an_erased_person_can_still_be_given_up_and_told_again() -> None:
    async with desk_on() as desk:
        store = desk.runtime.store
        booked = await desk.book(FULL, key="order-1", wait=10)
        await desk.erase(email=WHO, reference="request-2031-118", dry_run=False)
        await letter_about(desk, booked.id)
        assert not (await desk.erase(email=WHO, reference="request-2031-119", dry_run=False)).applied
        again = await desk.erase(appointment=booked.id, reference="request-2031-120", dry_run=False)
        assert (again.appointments, again.applied) == ((), True)
        assert [one.reason for one in await dead_letters(store, "default")] == [ERASED]
        assert (await desk.health()).findings == ()


async def test_control_a_letter_whose_key_is_gone_without_an_erasure_is_found(tmp_path: Path) -> None:
    async with desk_on(store=f"sqlite:///{tmp_path}/desk.db") as desk:
        booked = await desk.book(FULL, key="order-1", wait=10)
        await letter_about(desk, booked.id)
        with sqlite3.connect(tmp_path / "desk.db") as connection:
            connection.execute("DELETE FROM subject_keys")
        connection.close()
        (letter,) = await dead_letters(desk.runtime.store, "default")
        found = (await desk.health()).findings
    stream = str(dead_letter_stream(letter.sink, letter.appointment, letter.version))
    assert {(one.kind, one.subject) for one in found} >= {("key_gone", stream)}


async def test_control_the_log_itself_holds_these_words() -> None:
    async with desk_on() as desk:
        await live(desk)
        (appointment,) = (await desk.list()).items
        trail = str(await desk.events(appointment.id)).lower()
    assert [word for word in PLANTED if word in trail]
