"""docs/outbox.md: what it shows was captured, and what it advises works."""

import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession, web
from standardwebhooks.webhooks import Webhook as Signature

from appointments import Settings
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.sink import RETRY, TIMEOUT_S, Accepted
from appointments.outbox.subscription import TYPES
from appointments.outbox.webhook import Webhook, judged
from providers.outbound import Outbound
from saga.clock import WallClock
from tests.unit.outbox.world import SECRET, event_of

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "outbox.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_settings_that_it_shows_are_taken() -> None:
    (shown,) = blocks("toml")
    told = Settings.model_validate(tomllib.loads(shown)).subscriptions["crm"]
    assert told.is_webhook
    retry = f"{{ attempts_max = {RETRY.attempts_max}, backoff_ms = {RETRY.backoff_ms}, backoff_max_ms = 60000 }}"
    assert (retry in PAGE, RETRY.backoff_max_ms) == (True, 60_000)
    assert f"`timeout_s` ({TIMEOUT_S:.0f})" in PAGE


def test_the_types_that_it_names_are_types_of_events() -> None:
    named = set(re.findall(r"`([a-z-]+\.v\d+)`", PAGE))
    assert named <= TYPES
    assert named


def test_the_event_that_it_shows_is_whole_and_rightly_signed() -> None:
    (shown,) = blocks("http")
    head, body = shown.rstrip("\n").split("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    event = CloudEvent.model_validate_json(body)
    assert event.model_dump_json() == body
    assert (len(body), headers["webhook-id"]) == (int(headers["Content-Length"]), event.id)
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert Signature(SECRET).sign(event.id, at, body) == headers["webhook-signature"]


async def test_the_receiver_that_it_shows_takes_each_event_once_and_only_what_is_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver, _ = blocks("python")
    defined: dict[str, Any] = {}
    exec(receiver, defined)
    application = web.Application()
    application.router.add_post("/events", defined["events"])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    sink = Webhook(
        f"http://127.0.0.1:{port}/events", SECRET, Outbound(frozenset({port}), private=True), WallClock().now, 2
    )
    for version in (1, 1, 2, 1):
        assert await sink.deliver(event_of(UUID(int=1), version)) == Accepted()
    async with ClientSession() as stranger, stranger.post(f"http://127.0.0.1:{port}/events", data=b"{}") as answer:
        assert answer.status == 401
    await sink.close()
    await runner.cleanup()
    assert capsys.readouterr().out.splitlines() == [f"{UUID(int=1)} confirmed"] * 2


def test_the_program_that_it_shows_prints_what_it_says(tmp_path: Path) -> None:
    _, program = blocks("python")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (ended.returncode, [ended.stdout]) == (0, blocks("text")), ended.stderr


def test_what_answers_mean_is_as_it_says() -> None:
    refused, away = (
        {int(status) for status in re.findall(r"\b[3-5]\d\d\b", line)}
        for line in re.findall(r"^\| (?:400|401), .*$", PAGE, re.MULTILINE)
    )
    assert {type(judged(status, 0)).__name__ for status in refused} == {"Refused"}
    assert {type(judged(status, 0)).__name__ for status in away | {302, 500, 503}} == {"Away"}
