"""What a process keeps of its own is bounded for each tenant: one that makes much pushes out nothing of another's."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from appointments.http import dead_letters, follower
from appointments.http.dead_letters import LetterBox
from appointments.http.follower import Follower
from appointments.http.problems import Refusal
from appointments.http.reports import REPORTS_MAX, Reports
from projections.reconciliation.model import Kind, Report
from store.memory import MemoryStore
from store.port import Append, RecordedEvent

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
MANY = 5


def report(tenant: str, n: int) -> Report:
    return Report(
        calendar="main",
        provider="main",
        tenant=tenant,
        began=NOON + timedelta(seconds=n),
        ended=NOON,
        mode="full",
        listed=0,
        checked_again=0,
        in_progress=0,
        counts=dict.fromkeys(Kind, 0),
        findings=(),
    )


def test_many_reports_push_out_their_own_tenant_s_alone() -> None:
    reports = Reports()
    quiet = reports.keep(report("quiet", 0)).id
    busy = [reports.keep(report("busy", n)).id for n in range(REPORTS_MAX + 1)]
    assert reports.of("quiet", quiet).id == quiet
    assert reports.of("busy", busy[1]).id == busy[1]
    for tenant, id in (("busy", busy[0]), ("busy", quiet), ("nobody", quiet)):
        with pytest.raises(Refusal, match="there is no report"):
            reports.of(tenant, id)


async def test_many_dead_letters_push_out_their_own_tenant_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "SHOWN_MAX", 2)
    store, settings = MemoryStore(), Settings(store="memory:", provider="local:", log_level="error")
    for n, tenant in enumerate(["quiet", *["busy"] * MANY]):
        body = f'{{"tenant": "{tenant}"}}'.encode()
        event = RecordedEvent(UUID(int=n + 1), 1, "from-the-future.v9", body, at=NOON)
        await store.append(Append(event.stream_id, 0, (event,), touches_work=False))
    async with Orchestrator.open(settings, store=store, listen=False) as desk:
        letters = LetterBox(desk)
        shown = {
            tenant: [one.appointment for one in (await letters.of(tenant)).undecodable_events]
            for tenant in ("quiet", "busy", "default")
        }
    assert shown == {"quiet": [UUID(int=1)], "busy": [UUID(int=MANY), UUID(int=MANY + 1)], "default": []}


async def test_many_watchers_take_the_places_of_no_other_tenant_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "WATCHERS_OF_TENANT_MAX", MANY)
    store = MemoryStore()
    followed = Follower(store)
    async with followed.running(), AsyncExitStack() as stack:
        for _ in range(MANY):
            await stack.enter_async_context(followed.watching("busy", None))
        with pytest.raises(Refusal, match="watch already"):
            await stack.enter_async_context(followed.watching("busy", None))
        await stack.enter_async_context(followed.watching("quiet", None))
        await stack.aclose()
        async with followed.watching("busy", None):
            assert followed.watched_by == 1
    await store.close()
