"""A desk at work with the whole application in front of it, tokens to come in by, and Chromium to look with."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

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
from appointments.outbox.dead_letters import abandon, dead_letters
from appointments.views import Appointment
from domain.events import AppointmentParked, DeliveryAbandoned
from domain.provider import BookingDetails, Call
from mocks.server import MockProvider
from store.mapper import encode
from store.port import Append

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
NOTHING = r"(?!)"
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


def by_hand(one: Appointment) -> Call:
    """Somebody at the provider's own pages."""
    return Call(operation_id=f"by-hand-{one.id}", client_ref=str(one.id), timeout_ms=5_000)


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

    async def dead_letters(self, sink: str = "crm", count: int = 2) -> list[str]:
        """The ids of events that a subscriber did not take."""
        one = await self.desk.book(wanted(20), key="told", wait=10)
        for version in range(1, count + 1):
            gone = DeliveryAbandoned(
                at=now(),
                sink=sink,
                tenant="default",
                appointment=one.id,
                version=version,
                attempts=9,
                reason="answered 503, at https://crm.example/hooks/appointments/events-of-the-front-desk",
            )
            await abandon(self.desk.runtime.store, gone)
        return [letter.id for letter in await dead_letters(self.desk.runtime.store, "default", sink)]

    async def strangers(self) -> None:
        """A callback for nobody, and an event of a newer program."""
        await self.desk.called_back("main", "wh_1", f"{UUID(int=7)}", "bk_of_somebody_else", "accepted", 1)
        stream = uuid4()
        event = replace(encode(stream, 1, AppointmentParked(at=now(), reason="x")), type="of-the-future.v9")
        await self.desk.runtime.store.append(Append(stream, 0, (event,), touches_work=False))

    async def edited(self) -> tuple[Appointment, Appointment]:
        """Two appointments, of which somebody has moved one and taken the other out of the provider's calendar."""
        moved, gone = [await self.desk.book(wanted(n), key=f"edited-{n}", wait=10) for n in (22, 23)]
        provider = self.desk.provider("main")
        later = {"start": moved.start + timedelta(hours=5), "end": moved.end + timedelta(hours=5)}
        details = BookingDetails(calendar="main", time_zone="Europe/Berlin", summary=moved.summary, **later)
        assert moved.provider_ref
        assert gone.provider_ref
        await provider.reschedule(by_hand(moved), moved.provider_ref, None, details)
        await provider.cancel(by_hand(gone), "main", gone.provider_ref)
        return moved, gone


@asynccontextmanager
async def open_house(folder: Path, rate: float | None = None, **settings: Any) -> AsyncIterator[House]:
    """`rate`: how many requests a second a tenant may make."""
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        patience = {"cleanup_ms": 400, "breaker_failures_max": 100, "log_level": "error", **QUICK, **settings}
        store = f"sqlite:///{folder}/desk.db"
        made = Settings(store=store, provider=mock.url, **patience)
        desk = await stack.enter_async_context(Orchestrator.open(made, listen=False))
        yield await stack.enter_async_context(in_front_of([desk], mock, folder, rate))


@asynccontextmanager
async def in_front_of(
    desks: Sequence[Orchestrator], mock: MockProvider, folder: Path, rate: float | None = None
) -> AsyncIterator[House]:
    """The whole application, of one desk or of those of several shards; tokens are kept in the folder."""
    with closing(TokenFile(token_file(folder / "desk.db"))) as tokens, listen("127.0.0.1", 0) as opened:
        app = application(desks[0], Access(tokens, Throttle(rate, 20), now), now, desks[1:])
        up = asyncio.Event()
        serving = asyncio.create_task(serve(app, opened, up.set))
        await up.wait()
        try:
            yield House(desks[0], app.state.door, mock, tokens, f"{url(opened)}/console")
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
async def looking(browser: Browser, allowed: str = NOTHING, **context: Any) -> AsyncIterator[Page]:
    """A page. Whatever it reports to the browser's console is a fault, but what `allowed` (a pattern) finds."""
    opened = await browser.new_context(**context)
    page = await opened.new_page()
    page.set_default_timeout(10_000)
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda fault: told.append(str(fault)))
    yield page
    await opened.close()
    assert [text for text in told if not re.search(allowed, text)] == []


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

    async def begun(self, path: str, **fields: str) -> tuple[int, str, Mapping[str, str]]:
        """The page of a job that a form begins, once the job has ended."""
        status, _, headers = await self.post(path, **fields)
        assert status == 303
        job = headers["Location"].removeprefix("/console")
        while "HX-Refresh" not in (await self.get(job, headers={"HX-Request": "true"}))[2]:
            await asyncio.sleep(0.02)
        return await self.get(job)

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
