"""Dead letters and reconciliation in a browser: what is shown, and what an operator has done about it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from appointments.access.roles import Role
from appointments.outbox.dead_letters import dead_letters
from domain.events import RedeliveryRequested
from store.mapper import decode
from store.port import whole_log
from tests.integration.console_house import House, chromium, open_house, sitting, visitor, wanted

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4", "R3.3", "R8.5"),
    given="events that a subscriber did not take, callbacks of nobody, and a calendar that somebody has edited",
    when="an operator has them told again, compares the calendar, sees the dry run and applies the healing",
    then="each is an event with the operator's name and a reason; a second time and another tenant change nothing",
    seen_in="the page, the audit trail, the calendar",
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


async def asked_again(house: House) -> list[tuple[str, str, int]]:
    events = [decode(one) async for one in whole_log(house.desk.runtime.store) if "redelivery" in one.type]
    return [(one.actor, one.reason, one.version) for one in events if isinstance(one, RedeliveryRequested)]


async def test_what_a_subscriber_did_not_take_is_delivered_again_on_an_operator_s_word(
    house: House, browser: Browser
) -> None:
    first, second = await house.dead_letters("crm", 2)
    async with sitting(house, browser) as page:
        await page.get_by_role("link", name="Dead letters").click()
        await page.get_by_role("heading", name="Not taken by crm").wait_for()
        await page.get_by_text("Deliver again", exact=True).first.click()
        await page.get_by_label("Which").select_option(second)
        await page.get_by_label("Reason").fill("mended there")
        await page.get_by_label("This is what I want to do").check()
        await page.get_by_role("button", name="Deliver again").click()
        await page.get_by_role("status").get_by_text("1 to be told again to crm").wait_for()
        await page.get_by_role("link", name="Back").click()
        assert await page.locator("tr", has_text=first).get_by_text("dead", exact=True).count() == 1
        assert await page.locator("tr", has_text=second).get_by_text("to be told again").count() == 1
    assert await asked_again(house) == [("operator-kim", "mended there", 2)]


async def test_nothing_is_delivered_again_without_a_reason_or_twice(house: House) -> None:
    await house.dead_letters("crm", 2)
    asked = {"sink": "crm", "letter": "", "reason": "again", "sure": "yes"}
    async with visitor(house, Role.OPERATOR) as came:
        for missing in ("reason", "sure", "sink"):
            form = {name: value for name, value in asked.items() if name != missing}
            assert (await came.post("/dead-letters/deliver", **form))[0] == 422, missing
        assert await asked_again(house) == []
        assert (await came.post("/dead-letters/deliver", **asked))[0] == 200
        assert (await came.post("/dead-letters/deliver", **asked))[0] == 422
    assert [version for _, _, version in await asked_again(house)] == [1, 2]
    async with visitor(house, Role.OPERATOR, "other") as stranger:
        assert "crm" not in (await stranger.get("/dead-letters"))[1]
        assert (await stranger.post("/dead-letters/deliver", **asked))[0] == 422
    assert {one.stands for one in await dead_letters(house.desk.runtime.store, "default")} == {"to be told again"}


async def test_what_nobody_takes_up_is_shown_as_over_the_api(house: House, browser: Browser) -> None:
    await house.strangers()
    await house.parked(1)
    async with sitting(house, browser, Role.AUDITOR) as page:
        await page.goto(house.url + "/dead-letters")
        await page.get_by_text("bk_of_somebody_else").wait_for()
        await page.get_by_text("of-the-future.v9").wait_for()
        await page.get_by_role("link", name="1 parked").click()
        await page.get_by_role("heading", name="Parked work").wait_for()


async def test_a_calendar_is_compared_the_healing_seen_and_then_applied(house: House, browser: Browser) -> None:
    moved, gone = await house.edited()
    before = [(await house.desk.show(one.id)).version for one in (moved, gone)]
    async with sitting(house, browser) as page:
        await page.get_by_role("link", name="Reconciliation").click()
        await page.get_by_label("propose to").select_option("restore")
        await page.get_by_role("button", name="Compare").click()
        await page.get_by_role("status").get_by_text("2 differences").wait_for()
        for one, kind in ((moved, "drifted"), (gone, "missing")):
            row = page.locator("tr", has_text=str(one.id))
            assert [await row.get_by_text(text, exact=True).count() for text in (kind, "restore")] == [1, 1]
        await page.get_by_role("link", name="Dry run of the healing").click()
        await page.get_by_text("Nothing was done yet.").wait_for()
        assert [(await house.desk.show(one.id)).version for one in (moved, gone)] == before
        await page.get_by_label("This is what I want to do").check()
        await page.get_by_role("button", name="Apply").click()
        await page.get_by_text("2 of 2 healing; that was all").wait_for()
        # One is mended. This provider makes nothing live again that was cancelled, and that is told, too.
        for one, word, came_to in (
            (moved, "given", "restore: confirmed"),
            (gone, "failed", "restore: failed: rejected"),
        ):
            row = page.locator("tr", has_text=str(one.id))
            assert [await row.get_by_text(text).count() for text in (word, came_to)] >= [1, 1]
    for one in (moved, gone):
        observed = [event for event in await house.desk.events(one.id) if event.type.startswith("booking-observed")]
        assert [event.actor for event in observed] == ["operator-kim"]
        assert "reconciliation: " in str(observed[0].data["reason"])
    assert (await house.desk.reconcile("main")).agrees


async def test_a_window_leaves_out_what_lies_outside_and_nonsense_is_told(house: House) -> None:
    await house.edited()  # on the 23rd and 24th
    async with visitor(house, Role.AUDITOR) as came:
        report = {"calendar": "main", "policy": "park", "from": "2031-03-24", "to": "2031-03-25"}
        _, _, headers = await came.begun("/reconciliation/compare", **report)
        text = (await came.get(headers["Location"].removeprefix("/console")))[1]
        assert ("missing" in text.partition("<tbody>")[2], "drifted" in text.partition("<tbody>")[2]) == (True, False)
        assert "Dry run" not in text
        for wrong in ({"calendar": "../x"}, {"from": "yesterday"}, {"to": "2031-03-24"}, {"policy": "guess"}):
            assert (await came.post("/reconciliation/compare", **{**report, **wrong}))[0] == 422, wrong


async def test_a_provider_that_does_not_answer_is_told_on_the_page(house: House, browser: Browser) -> None:
    await house.desk.book(wanted(1), key="k", wait=10)
    house.mock.script("list", "fail_then_succeed", failures=1_000_000, status=500, times=-1)
    async with sitting(house, browser) as page:
        await page.goto(house.url + "/reconciliation")
        await page.get_by_role("button", name="Compare").click()
        await page.get_by_role("alert").get_by_text("It did not work").wait_for()


async def test_a_check_tells_each_tenant_what_is_its_own(house: House, browser: Browser) -> None:
    (parked,) = await house.parked(1)
    await house.strangers()
    async with sitting(house, browser, Role.AUDITOR) as page:
        await page.get_by_role("button", name="Check everything").click()
        await page.get_by_text("2 of 2 findings; that was all").wait_for()
        assert "the time for cleaning up is spent" in await page.locator("tr", has_text=str(parked.id)).inner_text()
        assert "nobody can tell whose it is" in await page.locator("tr", has_text="undecodable").inner_text()
    async with visitor(house, Role.AUDITOR, "other") as stranger:
        _, text, _ = await stranger.begun("/check")
        assert "findings: nothing" in text
        assert str(parked.id) not in text
