"""The Python face on a real file: what was said is read at once, and nobody sees what is not theirs."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appointments import AppointmentFilter, BookAppointment, Orchestrator, Settings, Step, StepCall
from appointments.bootstrap import open_store
from domain.errors import (
    IllegalTransition,
    InvalidFields,
    KeyReused,
    StaleVersion,
    StoreLocked,
    UnknownAppointment,
    UnknownLabel,
)
from domain.identity import appointment_id
from domain.provider import BookingStatus, Confirmed, Pending, ProviderBooking, Rejected, WriteOutcome
from projections.health import health
from providers.local import LocalProvider

FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
OTHER_TIME = {"start": "2031-03-04T10:00:00Z", "end": "2031-03-04T11:00:00Z"}
UNKNOWN = "00000000-0000-5000-8000-000000000000"


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(store=f"sqlite:///{folder}/desk.db", provider="local:", **changes)


@pytest.fixture
def calendar() -> LocalProvider:
    return LocalProvider("main")


@pytest.fixture
async def desk(tmp_path: Path, calendar: LocalProvider) -> AsyncIterator[Orchestrator]:
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as opened:
        yield opened


def pending(key: str = "key-1") -> Pending:
    """The provider takes it and does not settle it."""
    reference = str(appointment_id("default", key))
    seen = ProviderBooking(provider_ref=f"local-{reference}", client_ref=reference, status=BookingStatus.PENDING)
    return Pending(booking=seen, poll_after_ms=60_000)


class TestBooking:
    async def test_with_a_wait_it_comes_back_at_the_end(self, desk: Orchestrator, calendar: LocalProvider) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        assert (one.phase, one.state, one.attempts, one.retries) == ("completed", "confirmed", 1, 0)
        assert one.next_action_at is None
        (live,) = calendar.live("main")
        assert one.provider_ref == live.provider_ref

    async def test_without_a_wait_it_comes_back_when_it_is_durable_and_is_read_at_once(
        self, desk: Orchestrator
    ) -> None:
        one = await desk.book(FIELDS, key="key-1")
        assert one.phase == "in_progress"
        assert one.next_action_at is not None
        assert (await desk.show(one.id)).version >= one.version
        assert [found.id for found in await desk.list()] == [one.id]
        assert (await desk.show(one.id, wait=5)).state == "confirmed"

    async def test_a_wait_that_is_over_gives_the_state_as_it_is(
        self, desk: Orchestrator, calendar: LocalProvider
    ) -> None:
        calendar.answer_next("create", pending(), applied=True)
        one = await desk.book(FIELDS, key="key-1", wait=0.05)
        assert one.state == "pending"
        assert one.next_action_at is not None
        assert [found.next_action_at for found in await desk.list()] == [one.next_action_at]

    async def test_a_model_is_as_good_as_fields(self, desk: Orchestrator) -> None:
        command = BookAppointment.model_validate(FIELDS)
        assert (await desk.book(command, key="key-1", wait=5)).start == command.start

    @pytest.mark.parametrize("changes", [{"summary": ""}, {"end": FIELDS["start"]}, {"time_zone": "Mars/Olympus"}])
    async def test_what_is_wrong_is_refused_and_costs_nothing(
        self, desk: Orchestrator, calendar: LocalProvider, changes: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidFields):
            await desk.book({**FIELDS, **changes}, key="key-1")
        assert not (await desk.list()).items
        assert calendar.calls == 0

    async def test_a_calendar_whose_provider_is_not_registered_is_refused(
        self, tmp_path: Path, calendar: LocalProvider
    ) -> None:
        kept = settings(tmp_path, calendars={"other": "nobody"})
        async with Orchestrator.open(kept, providers=(calendar,)) as desk:
            with pytest.raises(InvalidFields, match="not registered"):
                await desk.book({**FIELDS, "calendar": "other"}, key="key-1")

    async def test_each_calendar_goes_to_its_provider(self, tmp_path: Path, calendar: LocalProvider) -> None:
        other = LocalProvider("other")
        kept = settings(tmp_path, calendars={"room": "other"})
        async with Orchestrator.open(kept, providers=(calendar, other)) as desk:
            await desk.book(FIELDS, key="key-1", wait=5)
            await desk.book({**FIELDS, "calendar": "room"}, key="key-2", wait=5)
        assert len(calendar.live("main")) == len(other.live("room")) == 1


class TestReplays:
    async def test_the_same_key_and_payload_is_the_same_appointment(
        self, desk: Orchestrator, calendar: LocalProvider
    ) -> None:
        first = await desk.book(FIELDS, key="key-1", wait=5)
        calls = calendar.calls
        again = await desk.book(FIELDS, key="key-1", wait=5)
        assert again.replayed
        assert not first.replayed
        assert (again.id, again.version, again.state) == (first.id, first.version, "confirmed")
        assert calendar.calls == calls

    async def test_the_same_key_with_another_payload_is_refused_and_nothing_is_recorded(
        self, desk: Orchestrator
    ) -> None:
        first = await desk.book(FIELDS, key="key-1", wait=5)
        with pytest.raises(KeyReused):
            await desk.book({**FIELDS, "summary": "Another"}, key="key-1")
        assert await desk.show(first.id) == first

    async def test_a_key_of_an_ended_one_says_so_and_how_to_book_anew(
        self, desk: Orchestrator, calendar: LocalProvider
    ) -> None:
        calendar.answer_next("create", Rejected(reason="full"))
        failed = await desk.book(FIELDS, key="key-1", wait=5)
        assert (failed.state, failed.reason, failed.notice) == ("failed", "rejected", None)
        again = await desk.book(FIELDS, key="key-1", wait=5)
        assert again.notice is not None
        assert "use a new key" in again.notice
        assert (await desk.book(FIELDS, key="key-2", wait=5)).state == "confirmed"

    async def test_one_key_may_book_and_cancel(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        assert (await desk.cancel(one.id, key="key-1", wait=5)).state == "cancelled"
        assert (await desk.cancel(one.id, key="key-1", wait=5)).replayed


class TestTenants:
    async def test_the_same_key_of_another_tenant_is_another_appointment(self, desk: Orchestrator) -> None:
        mine = await desk.book(FIELDS, key="key-1", tenant="a", wait=5)
        yours = await desk.book({**FIELDS, "summary": "Other"}, key="key-1", tenant="b", wait=5)
        assert mine.id != yours.id

    async def test_another_tenants_id_is_unknown_to_every_call(self, desk: Orchestrator) -> None:
        yours = await desk.book(FIELDS, key="key-1", tenant="b", wait=5)
        mine: dict[str, Any] = {"tenant": "a"}
        for call in (
            desk.show(yours.id, **mine),
            desk.events(yours.id, **mine),
            desk.state_at(yours.id, version=1, **mine),
            desk.cancel(yours.id, key="c", **mine),
            desk.reschedule(yours.id, key="r", **OTHER_TIME, **mine),
            desk.act(yours.id, "park", actor="x", reason="y", **mine),
            desk.act(yours.id, "park", actor="x", reason="y", key="k", **mine),
            desk.ui_event(
                {"target": {"data-action": "cancel"}, "payload": {"appointment_id": str(yours.id)}}, key="u", **mine
            ),
        ):
            with pytest.raises(UnknownAppointment) as refused:
                await call
            assert str(refused.value) == f"there is no appointment {yours.id}"
        assert not (await desk.list(AppointmentFilter(tenant="a"))).items
        assert (await desk.show(yours.id, tenant="b")).version == yours.version

    @pytest.mark.parametrize("id", [UNKNOWN, "no-uuid", "", "x" * 1_000])
    async def test_an_id_that_nobody_has_is_unknown(self, desk: Orchestrator, id: str) -> None:
        with pytest.raises(UnknownAppointment):
            await desk.show(id)
        with pytest.raises(UnknownAppointment):
            await desk.cancel(id, key="c")


class TestChanges:
    async def test_a_cancel_is_final(self, desk: Orchestrator, calendar: LocalProvider) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        gone = await desk.cancel(one.id, key="c-1", reason="ill", wait=5)
        assert (gone.state, gone.reason) == ("cancelled", "cancelled_by_request")
        assert calendar.live("main") == ()
        with pytest.raises(IllegalTransition, match="not legal in state cancelled"):
            await desk.cancel(one.id, key="c-2")

    async def test_a_move_keeps_the_id_and_shows_the_new_time(
        self, desk: Orchestrator, calendar: LocalProvider
    ) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        moved = await desk.reschedule(one.id, key="m-1", **OTHER_TIME, wait=5)
        assert (moved.id, moved.state) == (one.id, "confirmed")
        assert moved.start == datetime(2031, 3, 4, 10, tzinfo=UTC)
        (live,) = calendar.live("main")
        assert live.start == moved.start

    async def test_a_stale_version_is_refused_and_the_one_of_now_taken(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        with pytest.raises(StaleVersion, match=f"at version {one.version}, not at {one.version - 1}"):
            await desk.cancel(one.id, key="c-1", expected_version=one.version - 1)
        assert (await desk.cancel(one.id, key="c-1", expected_version=one.version, wait=5)).state == "cancelled"

    async def test_an_operator_parks_and_resumes_and_the_trail_says_who_and_why(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        parked = await desk.act(one.id, "park", actor="dana", reason="call back first")
        assert (parked.parked, parked.parked_reason) == (True, "call back first")
        assert parked.notice is not None
        resumed = await desk.act(one.id, "resume", actor="eve", reason="called back")
        assert not resumed.parked
        acted = [event for event in await desk.events(one.id) if event.type == "operator-acted.v1"]
        assert [(event.actor, event.data["reason"]) for event in acted] == [
            ("dana", "call back first"),
            ("eve", "called back"),
        ]

    async def test_an_action_without_a_reason_is_refused(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        with pytest.raises(InvalidFields):
            await desk.act(one.id, "park", actor="dana", reason="")


class TestUiEvents:
    async def test_src_element_alone_books(self, desk: Orchestrator) -> None:
        event = {"type": "click", "srcElement": {"data-action": "book-appointment"}, "payload": FIELDS}
        one = await desk.ui_event(event, key="key-1", wait=5)
        assert one.state == "confirmed"
        (first, *_) = await desk.events(one.id)
        assert first.data["action_label"] == "book-appointment"

    async def test_labels_for_the_other_commands(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        move = {"target": {"data-action": "reschedule"}, "payload": {"appointment_id": str(one.id), **OTHER_TIME}}
        assert (await desk.ui_event(move, key="m", wait=5)).start.day == 4
        drop = {"target": {"dataset": {"action": "cancel"}}, "payload": {"appointment_id": str(one.id)}}
        assert (await desk.ui_event(drop, key="c", wait=5)).state == "cancelled"

    @pytest.mark.parametrize("event", [None, [], "book-appointment"])
    async def test_an_event_that_is_no_object_is_refused(self, desk: Orchestrator, event: Any) -> None:
        with pytest.raises(InvalidFields, match="no object"):
            await desk.ui_event(event, key="key-1")

    async def test_an_unknown_label_records_nothing(self, desk: Orchestrator) -> None:
        with pytest.raises(UnknownLabel):
            await desk.ui_event({"target": {"data-action": "explode"}, "payload": FIELDS}, key="key-1")
        assert not (await desk.list()).items

    @pytest.mark.parametrize("payload", [None, "x", [], {}])
    async def test_a_payload_that_is_none_is_refused(self, desk: Orchestrator, payload: Any) -> None:
        for label in ("book", "cancel", "reschedule"):
            with pytest.raises(InvalidFields):
                await desk.ui_event({"target": {"data-action": label}, "payload": payload}, key="key-1")


class TestTheTrail:
    async def test_every_event_has_who_when_why_and_its_cause(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", actor="ann", correlation_id="conv-7", wait=5)
        trail = await desk.events(one.id)
        assert [event.version for event in trail] == list(range(1, one.version + 1))
        assert [event.type.removesuffix(".v1") for event in trail] == [
            "appointment-requested",
            "step-started",
            "step-succeeded",
            "step-started",
            "step-succeeded",
            "appointment-confirmed",
        ]
        assert [event.cause for event in trail] == [None, 1, None, 3, None, 5]
        assert trail[0].actor == "ann"
        assert {event.correlation_id for event in trail} == {"conv-7"}
        assert all(one.created_at <= event.recorded_at <= one.updated_at for event in trail)
        positions = [event.position for event in trail]
        assert positions == sorted(positions)

    async def test_the_state_at_every_version_and_instant_is_the_state_then(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        states = [(await desk.state_at(one.id, version=n)).state for n in range(1, one.version + 1)]
        assert states == ["requested", "booking", "booking", "booking", "booking", "confirmed"]
        assert (await desk.state_at(one.id, at=one.updated_at)).state == "confirmed"
        assert (await desk.state_at(one.id, version=one.version + 100)).version == one.version
        with pytest.raises(IllegalTransition):
            await desk.state_at(one.id, at=one.created_at - timedelta(microseconds=1))
        with pytest.raises(IllegalTransition):
            await desk.state_at(one.id, version=0)

    async def test_an_instant_without_an_offset_is_refused(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        with pytest.raises(InvalidFields):
            await desk.state_at(one.id, at=datetime(2031, 1, 1))  # noqa: DTZ001 -- that is what is refused

    async def test_an_instant_may_be_a_text_and_what_is_none_is_refused(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        assert await desk.state_at(one.id, at=one.updated_at.isoformat()) == await desk.state_at(
            one.id, at=one.updated_at
        )
        for odd in ("text", "2031-01-01T00:00", ""):
            with pytest.raises(InvalidFields) as refused:
                await desk.state_at(one.id, at=odd)
            assert refused.value.errors[0][0] == "/at"
        with pytest.raises(InvalidFields):
            await desk.state_at(one.id, version="two")  # type: ignore[arg-type]


class TestLists:
    async def test_filters(self, desk: Orchestrator, calendar: LocalProvider) -> None:
        first = await desk.book(FIELDS, key="key-1", wait=5)
        calendar.answer_next("create", Rejected(reason="full"))
        second = await desk.book({**FIELDS, "summary": "Dentist"}, key="key-2", wait=5)
        third = await desk.book({**FIELDS, "calendar": "room", "location": "Hall 7"}, key="key-3", wait=5)
        await desk.act(third.id, "park", actor="a", reason="b")

        async def found(**wanted: Any) -> list[str]:
            return [str(one.id) for one in await desk.list(AppointmentFilter(**wanted))]

        ids = [str(one.id) for one in (first, second, third)]
        assert await found() == ids[::-1]
        assert await found(state="failed") == await found(phase="failed") == [ids[1]]
        assert await found(calendar="room") == await found(parked=True) == await found(q="hall") == [ids[2]]
        assert await found(parked=False) == [ids[1], ids[0]]
        assert await found(q="DENTIST") == await found(q=ids[1]) == [ids[1]]
        assert await found(limit=1) == [ids[2]]
        assert await found(state="cancelled") == []

    async def test_the_tenant_of_the_settings_is_the_one_that_is_listed(
        self, tmp_path: Path, calendar: LocalProvider
    ) -> None:
        async with Orchestrator.open(settings(tmp_path, tenant="acme"), providers=(calendar,)) as desk:
            one = await desk.book(FIELDS, key="key-1", wait=5)
            assert [found.id for found in await desk.list()] == [one.id]


class TestTheFile:
    async def test_what_was_done_is_there_at_the_next_opening(self, tmp_path: Path, calendar: LocalProvider) -> None:
        async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
            one = await desk.book(FIELDS, key="key-1", wait=5)
        calls = calendar.calls
        async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
            assert await desk.show(one.id) == one
            assert (await desk.book(FIELDS, key="key-1")).replayed
            with pytest.raises(KeyReused):
                await desk.book({**FIELDS, "summary": "Another"}, key="key-1")
        assert calendar.calls == calls

    async def test_what_was_left_unfinished_is_finished_at_the_next_opening(
        self, tmp_path: Path, calendar: LocalProvider
    ) -> None:
        began = asyncio.Event()

        async def hangs(_asked: StepCall) -> WriteOutcome:
            began.set()
            await asyncio.sleep(60)
            return Confirmed()

        async def works(_asked: StepCall) -> WriteOutcome:
            return Confirmed()

        async with Orchestrator.open(settings(tmp_path), providers=(calendar,), steps=(Step("room", hangs),)) as desk:
            one = await desk.book(FIELDS, key="key-1")
            await began.wait()
        async with Orchestrator.open(settings(tmp_path), providers=(calendar,), steps=(Step("room", works),)) as desk:
            done = await desk.show(one.id, wait=5)
            assert done.state == "confirmed"
            assert "call-interrupted.v1" in {event.type for event in await desk.events(one.id)}
        assert len(calendar.live("main")) == 1

    async def test_a_second_process_is_kept_out(self, tmp_path: Path, desk: Orchestrator) -> None:
        with pytest.raises(StoreLocked):
            async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)):
                pass

    async def test_a_provider_that_fails_to_close_does_not_keep_the_file(self, tmp_path: Path) -> None:
        class Clings(LocalProvider):
            async def close(self) -> None:
                raise RuntimeError("it clings")

        for _ in range(2):
            with pytest.raises(RuntimeError, match="it clings"):
                async with Orchestrator.open(settings(tmp_path), providers=(Clings("main"),)):
                    pass

    @pytest.mark.parametrize("changes", [{"store": "postgres://x"}, {"store": "sqlite:///"}, {"provider": "ftp://x"}])
    async def test_settings_that_name_nothing_usable_are_refused(self, tmp_path: Path, changes: dict[str, str]) -> None:
        with pytest.raises(InvalidFields):
            async with Orchestrator.open(settings(tmp_path).model_copy(update=changes)):
                pass


class TestHealth:
    async def test_an_empty_store_and_a_working_one_are_well(self, desk: Orchestrator) -> None:
        assert (await desk.health()).ok
        await desk.book(FIELDS, key="key-1", wait=5)
        found = await desk.health()
        assert (found.ok, found.appointments, found.unfinished, found.findings) == (True, 1, 0, ())

    async def test_a_parked_one_is_listed_and_no_fault(self, desk: Orchestrator) -> None:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        await desk.act(one.id, "park", actor="dana", reason="why")
        found = await desk.health()
        assert found.ok
        assert found.parked == 1
        assert [(finding.kind, finding.subject) for finding in found.findings] == [("parked", str(one.id))]

    async def test_one_bound_to_a_definition_that_nobody_runs_is_found(
        self, tmp_path: Path, calendar: LocalProvider
    ) -> None:
        calendar.answer_next("create", pending())
        async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
            await desk.book(FIELDS, key="key-1", wait=0.05)
        async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("another"),)) as desk:
            found = await desk.health()
        assert not found.ok
        assert [finding.kind for finding in found.findings] == ["nobody_runs"]

    @pytest.mark.parametrize(
        ("damage", "kind"),
        [
            ("update events set body = 'x' where version = 2", "undecodable"),
            ("update events set type = 'from-the-future.v9' where version = 2", "undecodable"),
            ("delete from events where version = 2", "gap"),
            ("delete from open_work", "unowned"),
            ("update open_work set due_at = 1", "overdue"),
        ],
    )
    async def test_damage_is_found(self, tmp_path: Path, calendar: LocalProvider, damage: str, kind: str) -> None:
        calendar.answer_next("create", pending())
        async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
            await desk.book(FIELDS, key="key-1", wait=0.05)
        with sqlite3.connect(tmp_path / "desk.db") as connection:
            connection.execute(damage)
        connection.close()
        store = await open_store(settings(tmp_path), read_only=True)
        found = await health(store, datetime.now(UTC), {("booking", 1, calendar.name)})
        await store.close()
        assert not found.ok
        assert kind in {finding.kind for finding in found.findings}
