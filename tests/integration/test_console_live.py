"""Pages that are open move by themselves, and leave alone what somebody is doing on them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from appointments.access.roles import Role
from appointments.console import looks
from tests.integration.console_house import House, chromium, looking, open_house, sitting, visitor, wanted


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


async def test_an_open_appointment_is_seen_to_end(house: House, browser: Browser) -> None:
    house.mock.script("create", "timeout", applied=False, times=1_000)
    one = await house.desk.book({**wanted(1), "policy": {"attempts_max": 100}}, key="k")
    async with sitting(house, browser) as page:
        await page.goto(f"{house.url}/appointments/{one.id}")
        await page.evaluate("window.loaded = 'once'")
        await page.get_by_label("Reason").fill("half typed")
        await page.get_by_label("retry").check()
        events = page.locator("table.events tbody tr")
        await events.first.locator("summary").click()
        seen = await events.count()
        await expect(events).not_to_have_count(seen)  # it tries again and again
        # What was typed, ticked and opened stays while it goes on in the same state.
        assert await page.get_by_label("Reason").input_value() == "half typed"
        assert await page.get_by_label("retry").is_checked()
        assert await events.first.locator("details").get_attribute("open") is not None
        house.mock.clear_scripts()
        await page.get_by_role("status").get_by_text("confirmed", exact=True).wait_for()
        await page.locator("#state").get_by_text("confirmed", exact=True).wait_for()
        # Another state is another question.
        assert await page.get_by_label("Reason").input_value() == ""
        assert await page.evaluate("window.loaded") == "once"


async def test_the_slider_stays_where_it_was_left(house: House, browser: Browser) -> None:
    one = await house.desk.book(wanted(1), key="k", wait=10)
    async with sitting(house, browser) as page:
        await page.goto(f"{house.url}/appointments/{one.id}")
        slider = page.get_by_label("Version, from 1")
        await slider.focus()
        await page.keyboard.press("Home")
        await page.locator("#state").get_by_text("requested", exact=True).wait_for()
        one = await house.desk.cancel(one.id, key="c", wait=10)
        await page.get_by_text(f"Version, from 1 to {one.version}").wait_for()
        assert (await slider.input_value(), await slider.get_attribute("max")) == ("1", str(one.version))
        assert await page.locator("#state").get_by_text("requested", exact=True).count() == 1


async def test_open_parked_work_comes_and_goes(house: House, browser: Browser) -> None:
    async with sitting(house, browser) as page:
        await page.goto(f"{house.url}/parked")
        await page.get_by_text("Nothing is parked.").wait_for()
        (one,) = await house.parked(1)
        await page.get_by_text("Act on it").click()
        await page.get_by_label("Reason").fill("half typed")
        (two,) = await house.parked(1, begin=5)
        await page.get_by_text("Act on all 2 of them").wait_for()
        assert await page.get_by_label("Reason").input_value() == "half typed"
        for parked in (one, two):
            await house.desk.act(parked.id, "retry", actor="kim", reason="again", wait=10)
        await page.get_by_text("Nothing is parked.").wait_for()


async def test_the_overview_moves_and_a_keyboard_stays_where_it_was(house: House, browser: Browser) -> None:
    await house.desk.book(wanted(1), key="k", wait=10)
    async with sitting(house, browser) as page:
        await page.get_by_role("link", name=re.compile("failed")).focus()
        await page.get_by_text("All is well").wait_for()
        await house.parked(1, begin=2)
        await page.get_by_role("status").get_by_text("1 parked: an operator has to decide").wait_for()
        await page.get_by_role("link", name="Check-up <b>2</b>").wait_for()
        assert (await page.evaluate("document.activeElement.textContent")).strip() == "0failed"


async def test_a_page_that_may_not_ask_any_more_keeps_what_it_shows_or_leads_to_the_sign_in(
    house: House, browser: Browser
) -> None:
    async with looking(browser, allowed="status of 401") as page:
        await page.goto(house.url + "/appointments?state=failed")
        await page.get_by_label("Access token").fill(house.token(Role.OPERATOR))
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/console/appointments?state=failed")
        await page.goto(house.url + "/")
        for token in house.tokens.all():
            house.tokens.revoke(token.id, "test", "", house.door.now())
        await page.get_by_label("Access token").wait_for()


async def test_an_open_page_is_told_nothing_where_there_is_nothing_new(house: House) -> None:
    (one,) = await house.parked(1)
    part = {"HX-Request": "true"}
    async with visitor(house, Role.OPERATOR) as came:
        here = f"/appointments/{one.id}"
        assert (await came.get(f"{here}?known={one.version}", headers=part))[0] == 204
        assert (await came.get(f"{here}?known={one.version - 1}", headers=part))[0] == 200
        _, text, _ = await came.get("/parked")
        known = text.partition('name="known" value="')[2].partition('"')[0]
        assert (await came.get(f"/parked?known={known}", headers=part))[0] == 204
        await house.desk.act(one.id, "retry", actor="kim", reason="again", wait=10)
        assert (await came.get(f"/parked?known={known}", headers=part))[0] == 200


async def test_a_page_without_an_answer_keeps_what_it_shows_says_so_and_goes_on(
    house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(_: object) -> None:
        raise RuntimeError("no figures")

    async with sitting(house, browser, allowed="Failed to load resource|Failed to fetch") as page:
        await page.get_by_text("All is well").wait_for()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        with monkeypatch.context() as broken:
            broken.setattr(looks, "_pulse", stumbles)
            await page.get_by_role("alert").get_by_text("No answer").wait_for()
            assert await page.get_by_text("All is well").is_visible()
        await page.get_by_role("alert").wait_for(state="hidden")
        await page.context.set_offline(True)
        await page.get_by_role("alert").get_by_text("No answer").wait_for()
        await page.context.set_offline(False)
        await page.get_by_role("alert").wait_for(state="hidden")
        await house.parked(1)
        await page.get_by_role("status").get_by_text("1 parked").wait_for()
