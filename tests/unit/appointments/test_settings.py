"""Settings: arguments before environment before `.env` before TOML; limits; secrets never shown."""

import base64
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from appointments import Settings
from appointments.bootstrap import booking_saga, make_limits, make_notify, make_provider, store_path
from appointments.settings import ignored
from domain.errors import InvalidFields
from domain.provider import Confirmed, WriteOutcome
from providers.caldav import CalDavProvider
from saga.clock import WallClock
from saga.definition import StepCall


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and an empty environment."""
    for name in [name for name in os.environ if name.startswith("APPOINTMENTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings()
    assert (found.attempts_max, found.call_timeout_ms, found.backoff_ms, found.backoff_max_ms) == (
        3,
        5_000,
        500,
        30_000,
    )
    assert (found.deadline_ms, found.settle_ms) == (120_000, 2_000)
    assert (found.breaker_failures_max, found.breaker_open_ms) == (3, 5_000)


def test_arguments_win_over_environment_over_dotenv_over_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("appointments.toml").write_text(
        'tenant = "toml"\nactor = "toml"\nprovider_name = "toml"\nlog_level = "debug"\n'
    )
    Path(".env").write_text(
        "APPOINTMENTS_TENANT=dotenv\nAPPOINTMENTS_ACTOR=dotenv\nAPPOINTMENTS_PROVIDER_NAME=dotenv\n"
    )
    monkeypatch.setenv("APPOINTMENTS_TENANT", "environment")
    monkeypatch.setenv("APPOINTMENTS_ACTOR", "environment")
    found = Settings(tenant="argument")
    assert (found.tenant, found.actor, found.provider_name, found.log_level) == (
        "argument",
        "environment",
        "dotenv",
        "debug",
    )


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_TENANT", "")
    assert Settings().tenant == "default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts_max", "0"),
        ("attempts_max", "many"),
        ("call_timeout_ms", "1"),
        ("jitter", "1.5"),
        ("deadline_ms", "-1"),
        ("rate", "0"),
        ("rate", "nan"),
        ("log_level", "loud"),
        ("provider_name", "a/b"),
        ("concurrency", "0"),
        ("tenant", "two words"),
        ("actor", "x" * 129),
    ],
)
def test_limits_are_checked_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"APPOINTMENTS_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_secrets_are_never_shown() -> None:
    found = Settings(provider_password="swordfish", callback_secret="whsec_swordfish", log_key="swordfish")
    assert "swordfish" not in repr(found) + str(found) + found.model_dump_json()


def test_a_secret_that_is_no_text_is_not_shown_either() -> None:
    Path("appointments.toml").write_text("provider_password = 12345678\n")
    with pytest.raises(ValidationError, match="provider_password") as refused:
        Settings()
    assert "12345678" not in str(refused.value)


@pytest.mark.parametrize(
    ("store", "path"),
    [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db")],
)
def test_a_store_is_a_path(store: str, path: str) -> None:
    assert store_path(Settings(store=store)) == Path(path)


@pytest.mark.parametrize("store", ["", "a.db", "sqlite://a.db", "sqlite:///", "mysql://x"])
def test_another_kind_of_store_is_refused_with_what_to_write(store: str) -> None:
    with pytest.raises(InvalidFields, match="sqlite:///relative"):
        store_path(Settings.model_construct(store=store))


@pytest.mark.parametrize(
    "provider", ["", "local", "http://", "gopher://x", "caldav+http://", "https:///x", "http://[/x", "http://x:99999/"]
)
def test_another_kind_of_provider_is_refused_with_what_to_write(provider: str) -> None:
    with pytest.raises(InvalidFields, match="local:"):
        make_provider(Settings().model_copy(update={"provider": provider}), WallClock())


def test_a_refused_provider_is_named_without_its_password() -> None:
    with pytest.raises(InvalidFields) as refused:
        make_provider(Settings(provider="caldav+ftp://dana:hun/ter@2@cal.example.org/"), WallClock())
    assert "caldav+ftp://dana:***@cal.example.org/" in str(refused.value)


@pytest.mark.parametrize("host", ["cal.example.org", "cal.example.org:5232", "[::1]:5232"])
def test_a_calendar_server_is_signed_in_to_with_what_its_address_holds(host: str) -> None:
    """Percent signs stand for characters (RFC 3986); brackets stay around an IPv6 address."""
    made = make_provider(Settings(provider=f"caldav+http://da%40na:p%3Ass@{host}/dana/"), WallClock())
    assert isinstance(made, CalDavProvider)
    login = base64.b64encode(b"da@na:p:ss").decode()
    assert made._exchange._headers["Authorization"] == f"Basic {login}"
    assert made._home.url("main") == f"http://{host}/dana/main/"


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://x", "http://x:99999"])
def test_a_downstream_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidFields, match="notify_url"):
        make_notify(Settings(provider="local:", notify_url=url))


def test_policies_reach_the_saga_and_the_lanes() -> None:
    async def notify(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    found = Settings(
        provider="local:", attempts_max=7, backoff_ms=9, call_timeout_ms=111, deadline_ms=500, concurrency=5, poll_ms=40
    )
    plan = booking_saga(found, notify).plan(make_provider(found, WallClock()))
    calendar = plan.booking_step
    assert (calendar.retry.attempts_max, calendar.retry.backoff_ms, calendar.timeout_ms) == (7, 9, 111)
    assert (calendar.poll_ms, plan.deadline_ms) == (40, 500)
    assert make_limits(found).concurrency == 5


def test_a_name_that_is_no_setting_is_told_with_the_nearest_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_TENNANT", "swordfish")
    monkeypatch.setenv("APPOINTMENTS_TENANT", "known")
    monkeypatch.setenv("OTHER_TENNANT", "not ours")
    Path(".env").write_text("APPOINTMENTS_DEADLINE=5\nNOT_OURS=1\nAPPOINTMENTS_ACTOR=dana\n")
    Path("appointments.toml").write_text('Store = "memory:"\nzzz = 1\nactor = "dana"\n"a\\nb" = 1\n')
    told = list(ignored())
    assert told == [
        "'APPOINTMENTS_TENNANT' is no setting and changes nothing: did you mean APPOINTMENTS_TENANT?",
        ".env: 'APPOINTMENTS_DEADLINE' is no setting and changes nothing: did you mean APPOINTMENTS_DEADLINE_MS?",
        "appointments.toml: 'Store' is no setting and changes nothing: did you mean store?",
        "appointments.toml: 'zzz' is no setting and changes nothing: `appointments settings` shows the names",
        "appointments.toml: 'a\\nb' is no setting and changes nothing: `appointments settings` shows the names",
    ]
    assert "swordfish" not in "".join(told)


def test_settings_that_are_all_known_are_told_nothing_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"APPOINTMENTS_{name.upper()}", "x")
    assert list(ignored()) == []
