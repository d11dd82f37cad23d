"""What a subscriber did not take stands among the dead letters of its tenant, as it stands now, read on from before."""

from collections.abc import AsyncIterator

import pytest

from appointments import Orchestrator
from appointments.http import dead_letters as module
from appointments.http.dead_letters import LetterBox
from appointments.outbox.dead_letters import abandon, ask_again, consumer, dead_letters
from domain.events import DeliveryAbandoned
from domain.personal import ERASED
from tests.unit.outbox.world import BOOKING, T0, desk_on

MANY = 5
WHO = "zaphod@example.org"


@pytest.fixture
async def desk() -> AsyncIterator[Orchestrator]:
    async with desk_on() as opened:
        yield opened


async def given_up(desk: Orchestrator, *versions: int, tenant: str = "default") -> None:
    """Dead letters of one appointment."""
    booked = await desk.book({**BOOKING, "attendees": [{"email": WHO}]}, key="order-1", tenant=tenant, wait=10)
    fields = {"at": T0, "sink": "crm", "tenant": tenant, "appointment": booked.id, "attempts": 8, "reason": "no Zaphod"}
    for version in versions:
        await abandon(desk.runtime.store, DeliveryAbandoned.model_validate({**fields, "version": version}))


async def shown(box: LetterBox, tenant: str = "default") -> list[tuple[int, str, str]]:
    return [(one.version, one.stands, one.reason) for one in (await box.of(tenant)).undelivered]


async def test_they_are_those_of_the_tenant_and_stand_as_the_log_says_now(desk: Orchestrator) -> None:
    box, store = LetterBox(desk), desk.runtime.store
    assert await shown(box) == []
    await given_up(desk, 2, 3)
    assert await shown(box) == [(2, "dead", "no Zaphod"), (3, "dead", "no Zaphod")]
    assert await shown(box, "other") == []
    (letter, _) = await dead_letters(store, "default")
    await ask_again(store, letter, "default", "op", "mended", T0)
    assert [stands for _, stands, _ in await shown(box)] == ["to be told again", "dead"]
    await store.keep_checkpoint(consumer("crm"), await store.position())
    assert [stands for _, stands, _ in await shown(box)] == ["told again", "dead"]
    assert (await box.of("default")).undelivered == tuple(await dead_letters(store, "default"))
    await given_up(desk, 2)
    assert [(version, stands) for version, stands, _ in await shown(box)] == [(3, "dead"), (2, "dead")]


async def test_what_was_erased_is_not_shown_though_it_was_looked_at_before(desk: Orchestrator) -> None:
    box = LetterBox(desk)
    await given_up(desk, 2)
    assert await shown(box) == [(2, "dead", "no Zaphod")]
    await desk.erase(email=WHO, reference="request-1", dry_run=False)
    assert await shown(box) == [(2, "dead", ERASED)]


async def test_many_push_out_their_own_tenant_s_alone(desk: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN_MAX", 2)
    await given_up(desk, 1, tenant="quiet")
    await given_up(desk, *range(1, MANY + 1), tenant="busy")
    box = LetterBox(desk)
    assert [version for version, _, _ in await shown(box, "busy")] == [MANY - 1, MANY]
    assert [version for version, _, _ in await shown(box, "quiet")] == [1]


async def test_a_look_reads_no_more_of_the_log_than_is_new(desk: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    await given_up(desk, 2)
    box, store = LetterBox(desk), desk.runtime.store
    asked: list[int] = []
    log = store.log

    async def counted(after: int = 0, limit: int = 1_000) -> object:
        asked.append(after)
        return await log(after, limit)

    monkeypatch.setattr(store, "log", counted)
    await box.of("default")
    first, asked[:] = list(asked), ()
    await box.of("default")
    assert (first[0], set(asked)) == (0, {await store.position()})
