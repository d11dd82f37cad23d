"""Dual write: every command is in our log first, one system alone books, and a key stays with whoever began it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings, bootstrap
from appointments.migration.split import Change, Leader, Split, split_file
from domain.definition import RetryPolicy
from domain.errors import InvalidFields
from mocks.server import MockProvider
from saga.definition import Saga
from tests.contract.mock_client import Client

WANTED: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T10:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "organizer": {"email": "desk@example.org"},
    "attendees": [{"email": "ada@example.org"}],
}
LATER = {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T10:00:00Z"}
QUICK = {
    "call_timeout_ms": 200,
    "backoff_ms": 10,
    "settle_ms": 100,
    "poll_ms": 20,
    "log_level": "warning",
    "deadline_ms": 1_000,
    "cleanup_ms": 500,
}
AT = datetime(2031, 3, 1, tzinfo=UTC)


@dataclass
class Office:
    """A desk that serves, a legacy system, one provider, and somebody who sets the split."""

    mock: MockProvider
    split: Split
    open: Callable[[], AbstractAsyncContextManager[Orchestrator]]

    def set(self, writes: float, reads: float = 100, stopped: bool = False) -> None:
        told = {"at": AT, "actor": "dana", "reason": "test"}
        self.split.change(Change(writes=writes, reads=reads, stopped=stopped, **told))

    def led(self) -> list[str]:
        """Who made each create call, in order: ours carry a key."""
        calls = self.mock.requests("create")
        return [Leader.LEGACY if one["idempotency_key"] is None else Leader.OURS for one in calls]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with MockProvider(lenient=True) as mock:
        store = tmp_path / "desk.db"
        settings = Settings(store=f"sqlite:///{store}", provider=mock.url, legacy=mock.url, **QUICK)
        yield Office(mock, Split(split_file(store)), lambda: Orchestrator.open(settings))


class TestOneLeads:
    async def test_the_legacy_system_books_until_the_split_says_otherwise(self, office: Office) -> None:
        async with office.open() as desk:
            first = await desk.book(WANTED, key="order-1", wait=5)
            office.set(100)
            second = await desk.book(WANTED, key="order-2", wait=5)
            office.set(100, stopped=True)
            third = await desk.book(WANTED, key="order-3", wait=5)
            assert [one.state for one in (first, second, third)] == ["confirmed"] * 3
            assert office.led() == [Leader.LEGACY, Leader.OURS, Leader.LEGACY]
            assert (await desk.replay(first.id)).matches
            assert [one.type for one in await desk.events(first.id)][-1] == "appointment-confirmed.v1"

    async def test_a_key_stays_with_whoever_began_it(self, office: Office) -> None:
        async with office.open() as desk:
            first = await desk.book(WANTED, key="order-1", wait=5)
            office.set(100)
            again = await desk.book(WANTED, key="order-1", wait=5)
            assert (again.id, again.replayed, office.led()) == (first.id, True, [Leader.LEGACY])
            second = await desk.book(WANTED, key="order-2", wait=5)
            office.set(0)
            again = await desk.book(WANTED, key="order-2", wait=5)
            assert (again.id, office.led()) == (second.id, [Leader.LEGACY, Leader.OURS])

    async def test_what_has_begun_is_led_to_its_end_after_a_rollback(self, office: Office) -> None:
        office.set(100)
        office.mock.script("create", "delayed", delay_ms=150, times=1)
        async with office.open() as desk:
            begun = await desk.book(WANTED, key="order-1")
            office.set(0)
            assert (await desk.show(begun.id, wait=5)).state == "confirmed"
            assert office.led() == [Leader.OURS]

    async def test_what_it_cannot_do_is_done_by_us(self, office: Office) -> None:
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            moved = await desk.reschedule(booked.id, **LATER, key="move", wait=5)
            assert (moved.state, moved.start.day) == ("confirmed", 4)
            report = await desk.reconcile("main")
            assert (report.agrees, report.counts["matched"], report.strangers) == (True, 1, 0)
            assert (await desk.cancel(booked.id, key="gone", wait=5)).state == "cancelled"
            assert office.mock.live() == 0

    async def test_a_policy_is_refused_where_it_would_have_the_legacy_system_asked_again(self, office: Office) -> None:
        asked = WANTED | {"policy": {"attempts_max": 5}}
        async with office.open() as desk:
            with pytest.raises(InvalidFields, match="leave the policy out"):
                await desk.book(asked, key="order-1")
            assert not (await desk.list()).items
            office.set(100)
            first = await desk.book(asked, key="order-2", wait=5)
            office.set(0)
            assert (await desk.book(asked, key="order-2", wait=5)).id == first.id


class TestAskedOnce:
    """Whatever the legacy system answers, it is asked once for a key."""

    async def test_a_lost_answer_is_found_by_its_content(self, office: Office) -> None:
        office.mock.script("create", "lost_response", how="rst", times=1)
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            assert (booked.state, office.mock.live(), office.led()) == ("confirmed", 1, [Leader.LEGACY])

    async def test_an_error_with_nothing_there_fails(self, office: Office) -> None:
        office.mock.script("create", "fail_then_succeed", status=503, times=1)
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            assert (booked.state, booked.reason, office.led()) == ("failed", "retry_exhausted", [Leader.LEGACY])

    async def test_an_error_although_it_booked_is_found(self, office: Office) -> None:
        office.mock.script("create", "fail_then_succeed", status=503, applied=True, times=1)
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            assert (booked.state, office.mock.live(), office.led()) == ("confirmed", 1, [Leader.LEGACY])

    async def test_silence_with_nothing_there_is_parked(self, office: Office) -> None:
        office.mock.script("create", "timeout", applied=False, times=1)
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=10)
            assert (booked.parked, office.mock.live(), office.led()) == (True, 0, [Leader.LEGACY])

    async def test_two_alike_in_doubt_are_parked_both(self, office: Office) -> None:
        office.mock.script("create", "lost_response", how="rst", times=2)
        async with office.open() as desk:
            two = await asyncio.gather(*(desk.book(WANTED, key=f"order-{n}", wait=10) for n in (1, 2)))
            assert [(one.parked, one.provider_ref) for one in two] == [(True, None)] * 2
            assert (office.mock.live(), office.led()) == (2, [Leader.LEGACY] * 2)

    async def test_one_in_doubt_shuts_no_breaker_on_the_others(self, office: Office) -> None:
        office.mock.script("create", "timeout", applied=False, times=1)
        async with office.open() as desk:
            assert (await desk.book(WANTED, key="order-1", wait=10)).parked
            assert (await desk.book(WANTED | LATER, key="order-2", wait=5)).state == "confirmed"

    async def test_of_two_alike_the_one_in_doubt_takes_what_the_other_does_not_hold(self, office: Office) -> None:
        async with office.open() as desk:
            first = await desk.book(WANTED, key="order-1", wait=5)
            office.mock.script("create", "lost_response", how="rst", times=1)
            second = await desk.book(WANTED, key="order-2", wait=5)
            assert (first.state, second.state) == ("confirmed", "confirmed")
            refs = {one["id"] for one in office.mock.ledger()["bookings"]}
            assert {first.provider_ref, second.provider_ref} == refs
            assert len(refs) == 2

    @pytest.mark.parametrize("applied", [True, False])
    async def test_a_stop_in_the_middle_of_its_call_has_it_asked_once(self, office: Office, applied: bool) -> None:
        office.mock.script("create", "timeout", applied=applied, times=1)
        async with office.open() as desk:
            begun = await desk.book(WANTED, key="order-1")
            while not office.mock.calls().get("create"):
                await asyncio.sleep(0.01)
        async with office.open() as desk:
            ended = await desk.show(begun.id, wait=10)
            assert (ended.state == "confirmed", ended.parked) == (applied, not applied)
            assert (office.mock.live(), office.led()) == (applied, [Leader.LEGACY])

    async def test_control_a_plan_that_repeats_asks_twice(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once = bootstrap.legacy_saga

        def planted(settings: Settings) -> Saga:
            saga = once(settings)
            return replace(saga, steps=(replace(saga.steps[0], retry=RetryPolicy(backoff_ms=0)),))

        monkeypatch.setattr(bootstrap, "legacy_saga", planted)
        office.mock.script("create", "fail_then_succeed", status=503, times=1)
        async with office.open() as desk:
            await desk.book(WANTED, key="order-1", wait=5)
            assert office.led() == [Leader.LEGACY] * 2


class TestParked:
    """What the runbook says to do ends it; what it warns of does not."""

    @pytest.mark.parametrize("action", ["retry", "resume", "compensate"])
    async def test_to_look_again_parks_it_again(self, office: Office, action: str) -> None:
        office.mock.script("create", "timeout", applied=False, times=1)
        async with office.open() as desk:
            parked = await desk.book(WANTED, key="order-1", wait=10)
            again = await desk.act(parked.id, action, actor="dana", reason="look again", wait=10)
            assert (again.parked, office.led()) == (True, [Leader.LEGACY])

    async def test_cancelled_by_hand_and_skipped_it_ends_and_can_be_booked_anew(self, office: Office) -> None:
        office.mock.script("create", "lost_response", how="rst", times=2)
        async with office.open() as desk:
            two = await asyncio.gather(*(desk.book(WANTED, key=f"order-{n}", wait=10) for n in (1, 2)))
            report = await desk.reconcile("main")
            assert (report.strangers, report.counts["parked"] + report.counts["in_doubt"]) == (2, 2)
            async with Client(office.mock.url) as client:
                for there in office.mock.ledger()["bookings"]:
                    await client.send("POST", f"/bookings/{there['id']}/cancel", key=f"by-hand-{there['id']}")
            for one in two:
                ended = await desk.act(one.id, "skip", actor="dana", reason="cancelled by hand", wait=10)
                assert (ended.state, ended.parked) == ("failed", False)
            anew = await desk.book(WANTED, key="order-3", wait=10)
            assert (anew.state, office.mock.live(), office.led()) == ("confirmed", 1, [Leader.LEGACY] * 3)
            report = await desk.reconcile("main")
            assert (report.agrees, report.strangers) == (True, 0)


class TestReads:
    async def test_the_calendar_answers_until_reads_are_ours(self, office: Office) -> None:
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            there = await desk.read(booked.id)
            assert (there.answered_by, there.agrees) == (Leader.LEGACY, True)
            office.set(0, reads=100)
            calls = office.mock.calls()
            ours = await desk.read(booked.id)
            assert (ours.answered_by, ours.agrees, ours.there) == (Leader.OURS, None, None)
            assert office.mock.calls() == calls

    async def test_a_difference_is_seen(self, office: Office) -> None:
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            async with Client(office.mock.url) as client:
                await client.send("POST", f"/bookings/{booked.provider_ref}/cancel", key="by-hand-1")
            assert (await desk.read(booked.id)).agrees is False

    async def test_a_calendar_that_does_not_answer_leaves_it_to_the_log(self, office: Office) -> None:
        async with office.open() as desk:
            booked = await desk.book(WANTED, key="order-1", wait=5)
            office.mock.script("get", "timeout")
            read = await desk.read(booked.id)
            assert (read.answered_by, read.appointment.state) == (Leader.OURS, "confirmed")
