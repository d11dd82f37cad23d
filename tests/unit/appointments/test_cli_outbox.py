"""`outbox`: who is told, how far they are, what was not taken, and to have it told again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import appointments, booked

from appointments.outbox.dead_letters import abandon, consumer
from domain.events import DeliveryAbandoned
from domain.identity import appointment_id
from store.sqlite import SqliteStore
from tests.unit.outbox.world import SECRET, T0

ID = appointment_id("default", "order-1")


@pytest.fixture
def log(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log with one appointment, and a subscription."""
    named = {"crm": {"url": "https://crm.example.org/events", "secret": SECRET}}
    monkeypatch.setenv("APPOINTMENTS_SUBSCRIPTIONS", json.dumps(named))
    booked()
    return own_folder / "desk.db"


def in_store(log: Path, position: int | None = None, *lost: int, tenant: str = "default") -> int:
    """Keep a checkpoint and dead letters, as a relay does; the position of the log's last event."""

    async def keep() -> int:
        store = SqliteStore.open(log, owner="relay")
        try:
            for version in lost:
                gone = {"sink": "crm", "tenant": tenant, "appointment": ID, "version": version, "attempts": 8}
                await abandon(store, DeliveryAbandoned.model_validate({**gone, "at": T0, "reason": "answered 422"}))
            if position is not None:
                await store.keep_checkpoint(consumer("crm"), position)
            return await store.position()
        finally:
            await store.close()

    return asyncio.run(keep())


def letters(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = appointments("outbox", "dead-letters", "--json", *words).json
    return found


def test_a_subscription_that_has_not_begun_and_one_that_is_behind(log: Path) -> None:
    (one,) = appointments("outbox", "list", "--json").json["sinks"]
    assert (one["sink"], one["checkpoint"], one["lag"], one["dead_letters"]) == ("crm", None, None, 0)
    assert "not begun" in appointments("outbox", "list").out
    end = in_store(log, 2)
    (one,) = appointments("outbox", "list", "--json").json["sinks"]
    assert (one["checkpoint"], one["lag"]) == (2, end - 2)
    assert SECRET not in appointments("outbox", "list").out + appointments("settings").out


def test_another_tenant_sees_neither_the_subscription_nor_its_dead_letters(log: Path) -> None:
    in_store(log, 2, 3)
    said = appointments("outbox", "list", "--json", "--tenant", "other").json
    assert said["sinks"] == []
    assert letters("--tenant", "other") == []
    assert "docs/outbox.md" in appointments("outbox", "list", "--tenant", "other").out


def test_a_dead_letter_is_shown_asked_for_and_told_again(log: Path) -> None:
    in_store(log, 2, 3, 5)
    assert [one["id"] for one in letters()] == [f"{ID}-3", f"{ID}-5"]
    for words in (("dead-letters",), ("redeliver", "--all")):
        nobody = appointments("outbox", *words, "--sink", "other")
        assert (nobody.code, nobody.err.strip()) == (2, "other is no subscription; these are: crm")
    unknown = appointments("outbox", "redeliver", f"{ID}-4")
    assert (unknown.code, "no dead letter" in unknown.err) == (2, True)
    said = appointments("outbox", "redeliver", f"{ID}-3", "--sink", "crm", "--reason", "mended there", "--json")
    assert (said.code, said.json) == (0, [{"id": f"{ID}-3", "sink": "crm"}])
    shown = appointments("outbox", "dead-letters").out
    assert "to be told again" in shown
    again = appointments("outbox", "redeliver", f"{ID}-3")
    assert (again.code, again.err.strip()) == (2, f"{ID}-3: to be told again already")
    in_store(log, in_store(log))
    assert [one["id"] for one in letters()] == [f"{ID}-5"]
    assert [one["stands"] for one in letters("--all")] == ["told again", "dead"]
    assert appointments("outbox", "redeliver", "--all", "--json").json == [{"id": f"{ID}-5", "sink": "crm"}]


def test_which_ones_has_to_be_said(log: Path) -> None:
    for words in ((), (f"{ID}-3", "--all")):
        said = appointments("outbox", "redeliver", *words)
        assert (said.code, "name events, or give --all" in said.err) == (2, True)
    assert appointments("outbox", "redeliver", "--all").out.startswith("0 to be told again")


def test_what_is_to_be_told_by_a_subscriber_that_is_not_in_the_settings_is_said_so(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_store(log, 2, 3)
    monkeypatch.setenv("APPOINTMENTS_SUBSCRIPTIONS", "{}")
    said = appointments("outbox", "redeliver", "--all", "--sink", "crm")
    assert (said.code, said.out.split(",")[0]) == (0, "1 to be told again")
    assert "crm is no subscription of these settings" in said.err


def test_a_secret_in_the_address_is_not_shown(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"crm": {"url": "https://crm.example.org/events?token=hush", "secret": SECRET}}
    monkeypatch.setenv("APPOINTMENTS_SUBSCRIPTIONS", json.dumps(named))
    for words in (("list",), ("list", "--json")):
        said = appointments("outbox", *words).out
        assert "crm.example.org/events" in said
        assert "hush" not in said


def test_the_log_is_as_sound_with_dead_letters_as_without(log: Path) -> None:
    in_store(log, 2, 3)
    appointments("outbox", "redeliver", "--all")
    assert appointments("check").code == 0
    assert appointments("replay", "--all").code == 0
    assert [one["id"] for one in appointments("list", "--json").json["items"]] == [str(ID)]
