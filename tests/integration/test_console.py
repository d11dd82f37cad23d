"""The console in a real browser: what an operator sees and does, by pointer and by keyboard, wide and narrow."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from appointments import Orchestrator, Settings
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile, token_file
from appointments.console.app import console
from appointments.views import Appointment
from mocks.server import MockProvider

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4", "R7.4"),
    given="a desk with work that is done, parked and failed, and an operator with a token",
    when="the operator looks, searches, travels in time, replays and acts in Chromium",
    then="an action is an event with name and reason; without a token that may, nothing is shown or done",
    seen_in="the page, the audit trail",
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUICK = {"call_timeout_ms": 150, "backoff_ms": 20, "backoff_max_ms": 50, "settle_ms": 50, "poll_ms": 20}
PAGES = ("/", "/appointments", "/parked")


def wanted(n: int) -> dict[str, Any]:
    return {
        "calendar": "main",
        "start": f"2031-03-{n + 1:02d}T09:00:00Z",
        "end": f"2031-03-{n + 1:02d}T10:00:00Z",
        "time_zone": "Europe/Berlin",
        "summary": f"Check-up <b>{n}</b>",
    }


@dataclass
class House:
    """A desk at work, its console on loopback, and tokens to come in by."""

    desk: Orchestrator
    mock: MockProvider
    tokens: TokenFile
    url: str

    def token(self, role: Role, tenant: str = "default") -> str:
        who = Principal(tenant=tenant, actor=f"{role}-kim", role=role)
        return self.tokens.make(who, "test", "", datetime.now(UTC), None)[0]

    async def parked(self, count: int) -> list[Appointment]:
        """Appointments whose cancel the provider did not take in time."""
        booked = [await self.desk.book(wanted(n), key=f"parked-{n}", wait=10) for n in range(count)]
        self.mock.script("cancel", "timeout", applied=False, times=1_000)
        for one in booked:
            await self.desk.cancel(one.id, key=f"cancel-{one.id}", wait=10)
        self.mock.clear_scripts()
        return [await self.desk.show(one.id) for one in booked]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        store = f"sqlite:///{tmp_path}/desk.db"
        settings = Settings(
            store=store, provider=mock.url, cleanup_ms=400, breaker_failures_max=100, log_level="error", **QUICK
        )
        desk = await stack.enter_async_context(Orchestrator.open(settings))
        tokens = TokenFile(token_file(tmp_path / "desk.db"))
        stack.callback(tokens.close)
        access = Access(tokens, Throttle(None, 1), lambda: datetime.now(UTC))
        app = Starlette(routes=[Mount("/console", console(desk, access, lambda: datetime.now(UTC)))])
        url = await stack.enter_async_context(served(app))
        yield House(desk, mock, tokens, f"{url}/console")


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM is not None, "no Chromium: apt-get install chromium (Debian), or any Chrome on the path"
    async with async_playwright() as tool:
        opened = await tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        await opened.close()


@asynccontextmanager
async def sitting(house: House, browser: Browser, role: Role = Role.OPERATOR, **context: Any) -> AsyncIterator[Page]:
    """Somebody who has signed in. Whatever the page reports to the browser's console is a fault."""
    opened = await browser.new_context(**context)
    page = await opened.new_page()
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda fault: told.append(str(fault)))
    await page.goto(house.url + "/sign-in")
    await page.get_by_label("Access token").fill(house.token(role))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Overview").wait_for()
    yield page
    await opened.close()
    assert told == []


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
        await page.get_by_text("3 of 3, all asked").wait_for()
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
async def test_every_page_is_accessible_and_fits(
    house: House, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    (one, *_) = await house.parked(2)
    width, height = size
    context = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    async with sitting(house, browser, **context) as page:
        for path in (*PAGES, f"/appointments/{one.id}"):
            await page.goto(house.url + path)
            found = await Axe().run(page)
            serious = [
                f"{path}: {rule['id']}: {rule['nodes'][0]['html'][:160]}" for rule in found.response["violations"]
            ]
            assert serious == []
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path


def visitor() -> aiohttp.ClientSession:
    """A client that keeps cookies of a numeric address, too."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


class TestTheDoor:
    """Over plain HTTP, as somebody would who means no good."""

    async def test_without_a_token_every_page_leads_to_the_sign_in(self, house: House) -> None:
        (one,) = await house.parked(1)
        async with visitor() as nobody:
            for path in (*PAGES, f"/appointments/{one.id}", f"/appointments/{one.id}/state?version=1", "/batches/1"):
                async with nobody.get(house.url + path, allow_redirects=False) as answer:
                    assert (answer.status, answer.headers["Location"]) == (303, "/console/sign-in"), path
            async with nobody.post(house.url + "/sign-in", data={"token": "appt_nonsense"}) as answer:
                assert answer.status == 401

    async def test_a_form_of_another_site_does_nothing(self, house: House) -> None:
        (one,) = await house.parked(1)
        form = {"action": "retry", "reason": "x", "sure": "yes", "version": str(one.version)}
        async with visitor() as signed_in:
            await signed_in.post(house.url + "/sign-in", data={"token": house.token(Role.OPERATOR)})
            for secret in ({}, {"form_secret": "guessed"}, {"form_secret": ""}):
                url = f"{house.url}/appointments/{one.id}/act"
                async with signed_in.post(url, data={**form, **secret}) as answer:
                    assert answer.status == 403
        assert (await house.desk.show(one.id)).version == one.version

    @pytest.mark.parametrize("role", [Role.VIEWER, Role.BOOKER, Role.AUDITOR])
    async def test_who_may_not_act_is_shown_no_form_and_can_send_none(self, house: House, role: Role) -> None:
        (one,) = await house.parked(1)
        async with visitor() as signed_in:
            await signed_in.post(house.url + "/sign-in", data={"token": house.token(role)})
            async with signed_in.get(f"{house.url}/appointments/{one.id}") as answer:
                text = await answer.text()
            secret = text.partition('name="form_secret" value="')[2].partition('"')[0]
            assert secret
            assert 'name="action"' not in text
            form = {"action": "retry", "reason": "x", "sure": "yes", "form_secret": secret}
            async with signed_in.post(f"{house.url}/appointments/{one.id}/act", data=form) as answer:
                assert answer.status == 403
        assert (await house.desk.show(one.id)).version == one.version

    async def test_another_tenant_s_appointment_is_not_there(self, house: House) -> None:
        (one,) = await house.parked(1)
        async with visitor() as signed_in:
            await signed_in.post(house.url + "/sign-in", data={"token": house.token(Role.ADMIN, "other")})
            for path in ("", "/state?version=1"):
                async with signed_in.get(f"{house.url}/appointments/{one.id}{path}") as answer:
                    assert answer.status == 404
            async with signed_in.get(f"{house.url}/parked") as answer:
                assert "Check-up" not in await answer.text()

    async def test_a_filter_that_is_none_is_told_and_shows_nothing(self, house: House) -> None:
        await house.parked(1)
        async with visitor() as signed_in:
            await signed_in.post(house.url + "/sign-in", data={"token": house.token(Role.VIEWER)})
            for query in ("from=yesterday", "state=nonsense", "cursor=x", "q=" + "x" * 300):
                async with signed_in.get(f"{house.url}/appointments?{query}") as answer:
                    told = await answer.text()
                    assert (answer.status, 'role="alert"' in told, "Check-up" in told) == (422, True, False), query

    async def test_a_revoked_token_ends_the_sitting(self, house: House) -> None:
        async with visitor() as signed_in:
            token = house.token(Role.OPERATOR)
            async with signed_in.post(house.url + "/sign-in", data={"token": token}) as answer:
                assert answer.status == 200
            house.tokens.revoke(token[5:17], "test", "", datetime.now(UTC))
            async with signed_in.get(house.url + "/", allow_redirects=False) as answer:
                assert answer.status == 303

    async def test_every_answer_forbids_what_is_not_ours(self, house: House) -> None:
        async with visitor() as nobody:
            for path in ("/sign-in", "/", "/static/console.css", "/nowhere"):
                async with nobody.get(house.url + path, allow_redirects=False) as answer:
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                    assert "unsafe" not in answer.headers["Content-Security-Policy"]
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize("path", ["/appointments/nonsense", "/appointments/00000000-0000-0000-0000-000000000000"])
    async def test_what_there_is_not_is_told_without_a_trace(self, house: House, path: str) -> None:
        async with visitor() as signed_in:
            await signed_in.post(house.url + "/sign-in", data={"token": house.token(Role.OPERATOR)})
            async with signed_in.get(house.url + path) as answer:
                assert answer.status == 404
                assert "Traceback" not in await answer.text()
