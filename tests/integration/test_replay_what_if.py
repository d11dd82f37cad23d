"""`what-if` on the store of a real process: what it reads, what it says, and what it refuses."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appointments import Orchestrator, Settings
from appointments.cli.app import app
from domain.commands import BookAppointment
from domain.provider import BookingDetails, Call, Retryable, WriteOutcome
from providers.local import LocalProvider

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
FAILING = {"bad-1": 2, "bad-2": 1}
"""Calls that are refused, by summary."""


class Refusing(LocalProvider):
    """Takes a moment for each call, and refuses the first ones of some."""

    def __init__(self) -> None:
        super().__init__("main")
        self.left = dict(FAILING)

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        await asyncio.sleep(0.002)
        if self.left.get(details.summary, 0):
            self.left[details.summary] -= 1
            return Retryable(reason="connection refused")
        return await super().create(call, details)


def said(folder: Path, *words: str, as_json: bool = True) -> tuple[int, Any]:
    """What a command answered, and how it ended."""
    end = ["--json"] if as_json else []
    ended = CliRunner().invoke(app, ["what-if", *words, *end, "--store", f"sqlite:///{folder}/store.db"])
    assert "Traceback" not in ended.output
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, json.loads(ended.stdout) if as_json else ended.stdout


async def booked(folder: Path, *summaries: str) -> Path:
    """A store in which these were booked, one after the other, with two attempts each."""
    settings = Settings.model_validate({"store": f"sqlite:///{folder}/store.db", "backoff_ms": 5, "attempts_max": 2})
    async with Orchestrator.open(settings, providers=(Refusing(),)) as desk:
        for place, summary in enumerate(summaries):
            calendar = "main" if summary != "elsewhere" else "other"
            start = START + timedelta(days=place)
            end = start + timedelta(hours=1)
            book = BookAppointment(calendar=calendar, start=start, end=end, time_zone="UTC", summary=summary)
            await desk.book(book, key=f"key-{place}", wait=5)
    return folder


@pytest.fixture
async def written(tmp_path: Path) -> Path:
    """The first failed after two attempts. No other was refused: which is nearest in time does not matter."""
    return await booked(tmp_path, "bad-1", "good", "fine", "elsewhere")


@pytest.fixture
async def repeated(tmp_path: Path) -> Path:
    """One was booked by its second attempt."""
    return await booked(tmp_path, "bad-1", "good", "bad-2", "elsewhere")


def test_more_attempts_would_have_booked_what_failed(written: Path) -> None:
    code, found = said(written, "--retry", "attempts=4", "--retry", "jitter=0")
    assert code == 0
    assert found["changes"] == {"retry": {"attempts": 4, "jitter": 0.0}}
    assert found["control"] == {"compared": 4, "equal": 4}
    assert found["by_kind"] == {"failed (retry_exhausted) -> confirmed": 1}
    assert found["answers"]["neighbours"] > 0
    assert found["calls"]["calendar action"]["recorded"] == 5
    assert found["calls"]["calendar action"]["what_if"] == 6


def test_fewer_attempts_would_have_failed_what_was_booked_and_the_table_says_so(repeated: Path) -> None:
    code, table = said(repeated, "--retry", "attempts=1", as_json=False)
    assert code == 0
    assert "4 of 4 recorded ends come out again" in table
    assert "confirmed -> failed (retry_exhausted)" in table
    assert "calls: calendar action" in table


def test_what_the_control_takes_from_the_settings_is_said(repeated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_RATE", "7.5")
    monkeypatch.setenv("APPOINTMENTS_BREAKER_FAILURES_MAX", "9")
    _, found = said(repeated, "--breaker", "failures=2")
    limits = found["settings_in_force"]
    assert (limits["rate"], limits["breaker"]["failures_max"], limits["concurrency"]) == (7.5, 9, 64)
    _, table = said(repeated, "--breaker", "failures=2", as_json=False)
    words = " ".join(table.split())
    assert "settings in force, as the log holds none" in words
    assert "breaker 9 failures, 5000 ms; 64 calls at once, 64 of a tenant; 7.5 a second" in words


def test_only_those_of_a_calendar_or_since_a_time(written: Path) -> None:
    assert said(written, "--timeout", "10s", "--calendar", "other")[1]["appointments"] == 1
    assert said(written, "--timeout", "10s", "--since", "2040-01-01T00:00:00Z")[1]["appointments"] == 0
    assert said(written, "--timeout", "10s", "--tenant", "nobody")[1]["appointments"] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--retry", "tries=5"), "attempts, backoff_ms, backoff_max_ms, jitter"),
        (("--retry", "attempts"), "name=value"),
        (("--retry", "attempts=0"), "/retry/attempts"),
        (("--retry", "attempts=many"), "/retry/attempts"),
        (("--retry", "attempts=2", "--retry", "attempts=5"), "attempts is given twice"),
        (("--breaker", "failures=2,failures=2"), "failures is given twice"),
        (("--breaker", "failures=2,half=1"), "failures, open_ms"),
        (("--capability", "resend=perhaps"), "/capability/resend"),
        (("--timeout", "10"), "500ms, 10s, 5m or 1h"),
        (("--timeout", "999999999h"), "/timeout_ms"),
        (("--deadline", "1ms"), "/deadline_ms"),
        (("--since", "yesterday", "--timeout", "1s"), "--since"),
        ((), "--retry, --timeout, --deadline, --breaker or --capability"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(tmp_path: Path, words: tuple[str, ...], named: str) -> None:
    code, found = said(tmp_path, *words)
    assert code == 2
    assert named in json.dumps(found)
