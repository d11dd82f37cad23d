"""Logs: one JSON line for each fact, found by its ids, and nothing personal in any of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from appointments.logs import MASK, mask, masked_key
from domain.provider import Confirmed, Rejected, Retryable, WriteOutcome
from providers.local import LocalProvider
from saga.definition import CalendarStep, RetryPolicy, Saga, Step, StepCall

pytestmark = pytest.mark.evidence(
    target="logs",
    answers=("R6.1",),
    given="turns of every kind",
    when="they are logged",
    then="one JSON line a fact, personal fields masked",
    seen_in="log lines",
)

PERSONAL = (
    "Ada-Lovelace-1",
    "Ada Lovelace",
    "ada@example.org",
    "Room of secrets",
    "+49 30 1234",
    "her knee",
    "she called",
)
FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Ada Lovelace: her knee",
    "location": "Room of secrets",
    "attendees": [{"email": "ada@example.org", "name": "Ada Lovelace"}],
    "metadata": {"phone": "+49 30 1234"},
}
RETRY = RetryPolicy(attempts_max=2, backoff_ms=1, jitter=0)
UUID_KEY = "6f0c8a52-3b0e-5c8f-9a57-0d6d5c1f7e11"


async def logged(folder: Path, *outcomes: WriteOutcome, notice: WriteOutcome | None = None) -> list[dict[str, Any]]:
    """Book, book again and cancel, and read what was logged."""

    async def notify(_asked: StepCall) -> WriteOutcome:
        return notice or Confirmed()

    calendar = LocalProvider("main")
    calendar.answer_next("create", *outcomes)
    saga = Saga("booking", 1, (CalendarStep(retry=RETRY), Step("notify", notify, retry=RETRY)))
    settings = Settings(store=f"sqlite:///{folder}/desk.db", provider="local:", log_file=folder / "log.txt")
    async with Orchestrator.open(settings, providers=(calendar,), sagas=(saga,)) as desk:
        one = await desk.book(
            FIELDS, key="Ada-Lovelace-1", correlation_id="conv-7", action_label="book-appointment", wait=5
        )
        await desk.book(FIELDS, key="Ada-Lovelace-1")
        if one.state == "confirmed":
            await desk.act(one.id, "park", actor="dana", reason="she called: Ada Lovelace")
            await desk.act(one.id, "resume", actor="dana", reason="she called back")
            await desk.cancel(one.id, key="c-1", reason="her knee", wait=5)
    return [json.loads(line) for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines()]


def names(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


async def test_every_line_about_an_appointment_carries_its_ids(tmp_path: Path) -> None:
    lines = await logged(tmp_path)
    assert names(lines)[:3] == ["appointment_requested", "step_started", "step_succeeded"]
    for line in lines:
        assert re.fullmatch(r"[0-9a-f-]{36}", line["appointment_id"])
        assert line["correlation_id"] == "conv-7"
        assert line["action_label"] == "book-appointment"
        assert line["idempotency_key"].startswith("hash:")
        assert {"attempt", "state", "version", "timestamp", "level"} <= set(line)


@pytest.mark.parametrize("notice", [None, Rejected(reason="Ada Lovelace is unknown")])
async def test_nothing_personal_is_logged(tmp_path: Path, notice: WriteOutcome | None) -> None:
    lines = await logged(tmp_path, Retryable(reason="ada@example.org is busy"), notice=notice)
    text = json.dumps(lines, ensure_ascii=False)
    assert not [word for word in PERSONAL if word in text]
    assert MASK in text


async def test_named_facts_are_there(tmp_path: Path) -> None:
    lines = await logged(tmp_path, Retryable(reason="503"))
    assert {"retry_scheduled", "idempotent_hit", "compensation", "appointment_cancelled"} <= set(names(lines))
    assert max(line["attempt"] for line in lines) == 2


async def test_exhausted_retries_are_a_fact_of_their_own(tmp_path: Path) -> None:
    lines = await logged(tmp_path, Retryable(reason="503"), Retryable(reason="503"))
    assert "retry_exhausted" in names(lines)
    assert names(lines)[-1] == "idempotent_hit"


def test_a_key_that_is_a_uuid_or_a_ulid_is_shown_and_any_other_hashed() -> None:
    assert masked_key(UUID_KEY, "s") == UUID_KEY
    assert masked_key("01ARZ3NDEKTSV4RRFFQ69G5FAV", "s") == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for key in ("order-4711", UUID_KEY + "x", UUID_KEY + "\n", "ada@example.org"):
        assert masked_key(key, "s").startswith("hash:")
        assert masked_key(key, "s") == masked_key(key, "s") != masked_key(key, "other")


def test_what_is_not_on_the_list_is_masked_whatever_it_is() -> None:
    line = mask(
        None, "info", {"event": "x", "attempt": 1, "summary": "Ada", "new_field": {"email": "a"}, "detail": None}
    )
    assert line == {"event": "x", "attempt": 1, "summary": MASK, "new_field": MASK, "detail": None}


async def test_a_log_that_takes_no_lines_stops_no_booking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is durable stays so, whatever its log line comes to; it is said once."""
    settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider="local:", log_file=Path("/dev/full"))
    async with Orchestrator.open(settings) as desk:
        assert (await desk.book(FIELDS, key="key-1", wait=5)).state == "confirmed"
    assert capsys.readouterr().err.count("the log takes no lines") == 1


async def test_a_log_that_cannot_be_opened_leaves_the_store_free(tmp_path: Path) -> None:
    settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider="local:")
    with pytest.raises(OSError, match="/proc/none"):
        async with Orchestrator.open(settings.model_copy(update={"log_file": Path("/proc/none/log.txt")})):
            pass
    async with Orchestrator.open(settings) as desk:
        assert not (await desk.list()).items
