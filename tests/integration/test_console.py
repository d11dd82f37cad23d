"""The console in a real browser: what an operator sees and does, by pointer and by keyboard, wide and narrow."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.integration.console_house import House, chromium, open_house, sitting, wanted

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4", "R7.4"),
    given="a desk with work that is done, parked and failed, and an operator with a token",
    when="the operator looks, searches, travels in time, replays and acts in Chromium",
    then="what is looked for is found; an action is an event with name and reason",
    seen_in="the page, the audit trail",
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


async def test_an_operator_takes_up_what_is_parked_and_the_audit_says_who_and_why(
    house: House, browser: Browser
) -> None:
    (one,) = await house.parked(1)
    assert one.parked
    async with sitting(house, browser) as page:
        await page.get_by_role("navigation").get_by_role("link", name="Parked").click()
        await page.get_by_role("link", name="Check-up <b>0</b>").click()
        await page.get_by_text("Parked:", exact=False).first.wait_for()
        await page.get_by_label("retry").check()
        await page.get_by_label("Reason").fill("the provider is up again")
        await page.get_by_label("This is what I want to do").check()
        await page.get_by_role("button", name="Do it").click()
        await page.get_by_role("status").get_by_text("the appointment is cancelled").wait_for()
    acted = [event for event in await house.desk.events(one.id) if event.type == "operator-acted.v1"]
    assert [(event.actor, event.data["reason"]) for event in acted] == [("operator-kim", "the provider is up again")]
    assert house.mock.live() == 0


async def test_all_of_one_failure_are_acted_on_together(house: House, browser: Browser) -> None:
    parked = await house.parked(3)
    async with sitting(house, browser) as page:
        await page.goto(house.url + "/parked")
        await page.get_by_text("Act on all 3 of them").click()
        await page.get_by_label("retry").check()
        await page.get_by_label("Reason").fill("outage is over")
        await page.get_by_label("This is what I want to do").check()
        await page.get_by_role("button", name="Do it").click()
        await page.get_by_text("3 of 3 asked; that was all").wait_for()
        await page.goto(house.url + "/parked")
        await page.get_by_text("Nothing is parked.").wait_for()
    for one in parked:
        assert (await house.desk.show(one.id)).state == "cancelled"


async def test_the_slider_shows_the_state_at_every_version_by_keyboard(house: House, browser: Browser) -> None:
    one = await house.desk.book(wanted(1), key="k", wait=10)
    one = await house.desk.cancel(one.id, key="c", wait=10)
    async with sitting(house, browser) as page:
        await page.goto(f"{house.url}/appointments/{one.id}")
        slider, state = page.get_by_label("Version, from 1"), page.locator("#state")
        await state.get_by_text("cancelled", exact=True).wait_for()
        await slider.focus()
        await page.keyboard.press("Home")
        await state.get_by_text("requested", exact=True).wait_for()
        for _ in range(5):
            await page.keyboard.press("ArrowRight")
        await state.get_by_text("confirmed", exact=True).wait_for()
        await page.get_by_role("button", name="Replay").click()
        await page.get_by_text("decisions come out as recorded").wait_for()


async def test_the_overview_moves_by_itself(house: House, browser: Browser) -> None:
    async with sitting(house, browser) as page:
        await page.get_by_text("Nothing was booked yet.").wait_for()
        await house.desk.book(wanted(1), key="k", wait=10)
        await page.locator("#pulse").get_by_text("closed").first.wait_for()
        assert await page.locator("a.tile", has_text="confirmed").inner_text() == "1\nconfirmed"


async def test_search_finds_and_says_when_nothing_is_like_that(house: House, browser: Browser) -> None:
    for n in (1, 2):
        await house.desk.book(wanted(n), key=f"k{n}", wait=10)
    async with sitting(house, browser) as page:
        await page.goto(house.url + "/appointments")
        await page.get_by_label("Summary, location or id").fill("<b>2")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="Check-up <b>2</b>").wait_for()
        assert await page.get_by_role("link", name="Check-up <b>1</b>").count() == 0
        await page.goto(house.url + "/appointments?state=failed")
        await page.get_by_text("No appointment is like that.").wait_for()
