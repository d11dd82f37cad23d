"""A desk at work with the whole application in front of it, tokens to come in by, and Chromium to look with."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, Page, async_playwright

from appointments import Orchestrator, Settings
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile, token_file
from appointments.http.app import application
from appointments.http.door import Door
from appointments.http.server import listen, serve, url
from appointments.views import Appointment
from mocks.server import MockProvider

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUICK = {"call_timeout_ms": 150, "backoff_ms": 20, "backoff_max_ms": 50, "settle_ms": 50, "poll_ms": 20}


def now() -> datetime:
    return datetime.now(UTC)


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
    """A desk, its door, its provider, and the address of its console."""

    desk: Orchestrator
    door: Door
    mock: MockProvider
    tokens: TokenFile
    url: str

    def token(self, role: Role, tenant: str = "default") -> str:
        who = Principal(tenant=tenant, actor=f"{role}-kim", role=role)
        return self.tokens.make(who, "test", "", now(), None)[0]

    async def parked(self, count: int, begin: int = 0) -> list[Appointment]:
        """Appointments whose cancel the provider did not take in time."""
        booked = [await self.desk.book(wanted(n), key=f"parked-{n}", wait=10) for n in range(begin, begin + count)]
        self.mock.script("cancel", "timeout", applied=False, times=1_000)
        for one in booked:
            await self.desk.cancel(one.id, key=f"cancel-{one.id}", wait=10)
        self.mock.clear_scripts()
        return [await self.desk.show(one.id) for one in booked]


@asynccontextmanager
async def open_house(folder: Path, rate: float | None = None, **settings: Any) -> AsyncIterator[House]:
    """`rate`: how many requests a second a tenant may make."""
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        patience = {"cleanup_ms": 400, "breaker_failures_max": 100, "log_level": "error", **QUICK, **settings}
        store = f"sqlite:///{folder}/desk.db"
        made = Settings(store=store, provider=mock.url, **patience)
        desk = await stack.enter_async_context(Orchestrator.open(made, listen=False))
        tokens = TokenFile(token_file(folder / "desk.db"))
        stack.callback(tokens.close)
        app = application(desk, Access(tokens, Throttle(rate, 20), now), now)
        opened = stack.enter_context(listen("127.0.0.1", 0))
        up = asyncio.Event()
        serving = asyncio.create_task(serve(app, opened, up.set))
        await up.wait()
        try:
            yield House(desk, app.state.door, mock, tokens, f"{url(opened)}/console")
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Fails where there is none: pages that nobody has seen in a browser are not tested."""
    assert CHROMIUM is not None, "no Chromium: apt-get install chromium (Debian), or any Chrome on the path"
    async with async_playwright() as tool:
        opened = await tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        await opened.close()


@asynccontextmanager
async def looking(browser: Browser, allowed: str | None = None, **context: Any) -> AsyncIterator[Page]:
    """A page. Whatever it reports to the browser's console is a fault, but what contains `allowed`."""
    opened = await browser.new_context(**context)
    page = await opened.new_page()
    page.set_default_timeout(10_000)
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda fault: told.append(str(fault)))
    yield page
    await opened.close()
    assert [text for text in told if allowed is None or allowed not in text] == []


@asynccontextmanager
async def sitting(house: House, browser: Browser, role: Role = Role.OPERATOR, **context: Any) -> AsyncIterator[Page]:
    """Somebody who has signed in."""
    async with looking(browser, **context) as page:
        await page.goto(house.url + "/sign-in")
        await page.get_by_label("Access token").fill(house.token(role))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("heading", name="Overview").wait_for()
        yield page


@dataclass
class Visitor:
    """Somebody who comes over plain HTTP."""

    at: str
    session: aiohttp.ClientSession
    secret: str = ""

    async def get(self, path: str, **more: Any) -> tuple[int, str, Mapping[str, str]]:
        async with self.session.get(self.at + path, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text(), answer.headers

    async def post(self, path: str, **fields: str) -> tuple[int, str, Mapping[str, str]]:
        """A form of this sitting, unless `form_secret` is given."""
        data = {"form_secret": self.secret, **fields}
        async with self.session.post(self.at + path, data=data, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers


@asynccontextmanager
async def visitor(house: House, role: Role | None = None, tenant: str = "default") -> AsyncIterator[Visitor]:
    """`role` None: nobody has signed in. Cookies of a numeric address are kept, too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        came = Visitor(house.url, session)
        if role is not None:
            status, _, _ = await came.post("/sign-in", token=house.token(role, tenant))
            assert status == 303
            came.secret = (await came.get("/"))[1].partition('name="form_secret" value="')[2].partition('"')[0]
            assert came.secret
        yield came
