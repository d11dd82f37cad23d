"""What the settings take for a subscription, and what they refuse with which words."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from appointments import Settings
from appointments.outbox.subscription import Subscription
from tests.unit.outbox.world import SECRET

HOOK = {"url": "https://crm.example.org/events", "secret": SECRET}


def settings(**fields: Any) -> Settings:
    return Settings.model_validate({"subscriptions": {"crm": {**HOOK, **fields}}})


def test_the_least_that_it_takes() -> None:
    told = settings().subscriptions["crm"]
    assert (told.tenant, told.types, told.since, told.concurrency, told.timeout_ms) == ("default", (), "now", 8, 10_000)
    assert (told.retry.attempts_max, told.retry.backoff_ms, told.retry.backoff_max_ms) == (8, 1_000, 60_000)
    assert Subscription(url="nats://broker.internal:4222").subject == "appointments"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"secret": None}, "`secret` signs"),
        ({"secret": "whsec_short"}, "`secret` signs"),
        ({"secret": "whsec_" + base64.b64encode(b"x" * 23).decode()}, "`secret` signs"),
        ({"secret": "whsec_" + base64.b64encode(b"x" * 65).decode()}, "`secret` signs"),
        ({"secret": f"{SECRET} not!base64"}, "`secret` signs"),
        ({"secret": " "}, "`secret` signs"),
        ({"url": "ftp://crm.example.org/"}, "url"),
        ({"url": "https://crm.example.org:port/"}, "no address"),
        ({"url": "https://[::1/"}, "no address"),
        ({"url": "https://user:word@crm.example.org/"}, "into `secret`"),
        ({"url": "nats://user:word@broker:4222", "secret": None}, "into `secret`"),
        ({"url": "https://" + "x" * 2_000}, "url"),
        ({"types": ["appointment-done.v1"]}, "no event has this type"),
        ({"types": ["delivery-abandoned.v1"]}, "no event has this type"),
        ({"subject": "a..b"}, "subject"),
        ({"subject": "a.*"}, "subject"),
        ({"subject": "a b"}, "subject"),
        ({"since": "yesterday"}, "since"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 101}, "concurrency"),
        ({"timeout_ms": 60_001}, "timeout_ms"),
        ({"retry": {"attempts_max": 0}}, "attempts_max"),
        ({"tenant": "a b"}, "tenant"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_refused_and_that_no_secret_is_told(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**fields)
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["", "CRM", "c r m", "c" * 41, "crm:1"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"subscriptions": {name: HOOK}})


def test_ports_are_within_their_limits() -> None:
    assert Settings.model_validate({"outbound_ports": [443, 8443]}).outbound_ports == {443, 8443}
    for ports in ([], [0], [65_536], list(range(1, 66))):
        with pytest.raises(ValidationError):
            Settings.model_validate({"outbound_ports": ports})


def test_a_file_names_subscriptions_and_what_is_shown_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("appointments.toml").write_text(
        f'[subscriptions.crm]\nurl = "https://crm.example.org/events"\nsecret = "{SECRET}"\n'
        'types = ["appointment-confirmed.v1"]\nretry = { attempts_max = 3 }\n'
        '[subscriptions.bus]\nurl = "nats://broker.internal:4222"\n'
    )
    found = Settings()
    assert found.subscriptions.keys() == {"crm", "bus"}
    assert found.subscriptions["crm"].retry.attempts_max == 3
    assert SECRET not in str(found.model_dump(mode="json")) + repr(found)
