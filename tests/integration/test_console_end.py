"""An outage, from one end to the other, on the console of a real `serve --dev`: seen coming, seen parked, mended."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import expect

from tests.integration.console_house import chromium, looking, wanted
from tests.integration.test_serve import Served, served

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4", "R7.4", "R8.6"),
    given="`serve --dev` as a process of its own, its console open in Chromium, its provider a real server",
    when="the provider breaks while an appointment is cancelled, is healed, and an operator has it tried again",
    then="the open pages show each turn by themselves; the trail tells who mended it and why, and replays",
    seen_in="the page",
)

PATIENCE = "APPOINTMENTS_CLEANUP_MS=1500\nAPPOINTMENTS_BREAKER_OPEN_MS=700\nAPPOINTMENTS_BACKOFF_MS=100\n"


class Control:
    """The provider's control plane, by the very commands that `serve --dev` prints; and the API."""

    def __init__(self, serving: Served, session: aiohttp.ClientSession) -> None:
        scripts = re.search(r"curl -X POST (\S+/scripts) --json '(.+?)'", serving.said, re.DOTALL)
        assert scripts is not None, serving.said
        self.scripts, self.outage = scripts[1], json.loads(scripts[2])
        self.api, self._session = f"{serving.url}/v1/appointments", session

    async def script(self, script: dict[str, Any]) -> None:
        async with self._session.post(self.scripts, json=script) as answer:
            assert answer.status == 201, await answer.text()

    async def heal(self) -> None:
        async with self._session.delete(self.scripts) as answer:
            assert answer.status < 300

    async def post(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(self.api + path, json=body, headers={"Idempotency-Key": key}) as answer:
            assert answer.status == 202, await answer.text()
            return dict(await answer.json())


async def test_an_outage_is_seen_and_mended(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(PATIENCE, encoding="utf-8")
    async with served(tmp_path, "--dev") as serving, aiohttp.ClientSession() as session, chromium() as browser:
        provider, console = Control(serving, session), f"{serving.url}/console"
        async with looking(browser) as page, looking(browser) as overview:
            await overview.goto(f"{console}/")  # nobody is asked for a token here
            await overview.get_by_text("All is well").wait_for()

            pending = {"mode": "pending", "settle_ms": 2_500, "via": "callback"}
            await provider.script({"match": {"op": "create"}, "behavior": pending})
            one = await provider.post("", "e2e", wanted(1))
            await page.goto(f"{console}/appointments/{one['id']}")
            standing = page.get_by_role("status")
            assert "confirmed" not in await standing.inner_text()
            await standing.get_by_text("confirmed", exact=True).wait_for()

            await provider.script(provider.outage)
            await provider.post(f"/{one['id']}/cancel", "e2e-cancel", {"reason": "patient is ill"})
            await overview.locator("tr", has_text="main").get_by_text("open").first.wait_for()
            await standing.get_by_text("parked", exact=True).wait_for()
            await expect(overview.locator("a.tile", has_text="parked")).to_have_text("1parked")
            await overview.get_by_role("status").get_by_text("1 parked: an operator has to decide").wait_for()

            await provider.heal()
            await page.goto(f"{console}/parked")
            await page.get_by_text("Act on it").click()
            await page.get_by_label("retry").check()
            await page.get_by_label("Reason").fill("the provider is up again")
            await page.get_by_label("This is what I want to do").check()
            await page.get_by_role("button", name="Do it").click()
            await page.get_by_text("1 of 1 asked; that was all").wait_for()
            await page.get_by_text("now cancelled").wait_for()
            await overview.get_by_text("All is well").wait_for()

            await page.get_by_role("link", name=one["id"]).click()
            acted = page.locator("table.events tr", has_text="operator-acted")
            assert "dev" in await acted.inner_text()
            await acted.locator("summary").click()
            await acted.get_by_text('"reason": "the provider is up again"').wait_for()
            await page.get_by_role("button", name="Replay").click()
            await page.get_by_text("decisions come out as recorded").wait_for()
