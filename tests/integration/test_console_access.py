"""Every page of the console, with something on it: readable, reachable and not wider than its window.

Pictures of all of them are left in results/console, to be looked at.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page

from appointments.access.roles import Role
from tests.integration.console_house import House, chromium, looking, open_house, sitting, visitor, wanted

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4",),
    given="a desk with work that is done, failed, parked, edited elsewhere, and dead letters of every kind",
    when="every page is looked at in Chromium, wide and narrow, light and dark, and gone through by keyboard",
    then="axe finds nothing, nothing is wider than the window, and the keyboard reaches and does everything",
    seen_in="the page",
)

PICTURES = Path(__file__).resolve().parents[2] / "results" / "console"
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
MISSES = "Failed to load resource"
"""What a browser says of a page with status 4xx."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


async def pages_of(house: House) -> dict[str, str]:
    """Every page by a name, once there is something to show."""
    await house.edited()
    await house.strangers()
    await house.dead_letters()
    long = await house.desk.book({**wanted(10), "summary": "W" * 255, "location": "L" * 255}, key="long", wait=10)
    house.mock.script("create", "reject", times=1)
    failed = await house.desk.book(wanted(9), key="failed", wait=10)
    house.mock.clear_scripts()
    (parked, *_) = await house.parked(3)
    report = house.door.reports.keep(await house.desk.reconcile("main", policy="restore"))
    agreed = house.door.reports.keep(await house.desk.reconcile("nothing-there"))
    async with visitor(house, Role.OPERATOR) as came:
        key = (await came.get("/parked"))[1].partition('name="group" value="')[2].partition('"')[0]
        _, _, headers = await came.post("/parked/act", group=key, action="retry", reason="x", sure="yes")
        await house.parked(3, begin=4)
    return {
        "overview": "/",
        "appointments": "/appointments",
        "none-found": "/appointments?q=nothing",
        "no-filter": "/appointments?from=yesterday",
        "long": f"/appointments/{long.id}",
        "failed": f"/appointments/{failed.id}",
        "parked-one": f"/appointments/{parked.id}?version=3",
        "parked": "/parked",
        "dead-letters": "/dead-letters",
        "compare": "/reconciliation",
        "report": f"/reconciliation/{report.id}",
        "agreed": f"/reconciliation/{agreed.id}",
        "healing": f"/reconciliation/{report.id}/healing",
        "job": headers["Location"].removeprefix("/console"),
        "nowhere": "/nowhere",
        "not-by-get": "/parked/act",
    }


async def width_of(page: Page) -> int:
    return int(await page.evaluate("innerWidth"))


async def faults(page: Page, name: str) -> list[str]:
    found = (await Axe().run(page)).response["violations"]
    told = [f"{name}: {rule['id']}: {rule['nodes'][0]['html'][:160]}" for rule in found]
    if await page.evaluate("document.documentElement.scrollWidth") > await width_of(page):
        told.append(f"{name} is wider than its window")
    return told


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
async def test_every_page_is_accessible_and_fits(house: House, browser: Browser, size: tuple[int, int]) -> None:
    look: dict[str, Any] = {"viewport": {"width": size[0], "height": size[1]}, "reduced_motion": "reduce"}
    pages = await pages_of(house)
    told: list[str] = []
    async with looking(browser, **look) as page:
        await page.goto(house.url + "/sign-in")
        told += await looked_at(page, "sign-in")
    async with sitting(house, browser, allowed=MISSES, **look) as page:
        for name, path in pages.items():
            await page.goto(house.url + path)
            told += await looked_at(page, name)
    async with sitting(house, browser, Role.VIEWER, allowed=MISSES, **look) as page:
        for name in ("overview", "failed", "parked"):
            await page.goto(house.url + pages[name])
            told += await looked_at(page, f"{name}-viewer")
    assert told == []


async def looked_at(page: Page, name: str) -> list[str]:
    """What is wrong with a page with all its details open, in light and in dark."""
    for summary in await page.locator("summary").all():
        await summary.click()
    told: list[str] = []
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        told += await faults(page, f"{name} in {scheme}")
        await page.screenshot(path=PICTURES / f"{name}-{await width_of(page)}-{scheme}.png", full_page=True)
    return told


async def test_control_a_page_that_is_not_accessible_is_noticed(house: House, browser: Browser) -> None:
    async with sitting(house, browser) as page:
        assert await faults(page, "as it is") == []
        await page.evaluate(
            "document.querySelector('h1').insertAdjacentHTML('afterend', '<img src=\"data:,\"><input>')"
        )
        await page.evaluate("document.body.style.width = '3000px'")
        told = await faults(page, "broken")
        assert [fault.split(": ")[-2] for fault in told[:-1]] == ["image-alt", "label"]
        assert told[-1] == "broken is wider than its window"


async def test_a_keyboard_is_enough_to_sign_in_find_parked_work_and_act_on_it(house: House, browser: Browser) -> None:
    (one,) = await house.parked(1)
    async with looking(browser) as page:
        await page.goto(house.url + "/parked")
        await page.keyboard.type(house.token(Role.OPERATOR))  # the field has the focus from the beginning
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Parked work").wait_for()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "To the content"
        await page.keyboard.press("Enter")
        await tab_to(page, "A", "Check-up")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Course").wait_for()
        await tab_to(page, "INPUT", "retry")
        await page.keyboard.press("Space")
        await page.keyboard.press("Tab")
        await page.keyboard.type("the provider is up again")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_role("status").get_by_text("the appointment is cancelled").wait_for()
    assert (await house.desk.show(one.id)).state == "cancelled"


async def tab_to(page: Page, tag: str, word: str) -> None:
    """Go on by Tab until something is reached; its outline must be seen."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        at = await page.evaluate(
            "(() => { const e = document.activeElement; return [e.tagName, e.textContent + ' ' + (e.value ?? ''),"
            " getComputedStyle(e).outlineStyle] })()"
        )
        if at[0] == tag and word in at[1]:
            assert at[2] != "none"
            return
    raise AssertionError(f"no {tag} with {word!r} is reached by Tab")
