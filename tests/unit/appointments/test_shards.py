"""Several databases: which of them keeps a tenant, and what the settings make of that."""

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from appointments import Settings
from appointments.bootstrap import tokens_of
from appointments.cli.session import read_settings
from appointments.sharding import shard_of
from domain.errors import InvalidFields
from tests.unit.appointments.command_line import appointments

NAMES = ("north", "south", "west")
SHARDS = {name: f"postgresql://appointments:secret-{name}@{name}.internal/appointments" for name in NAMES}
TENANTS = [f"tenant-{n}" for n in range(3_000)]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_tenant_is_kept_where_it_always_was() -> None:
    assert [shard_of(tenant, NAMES) for tenant in ("acme", "globex", "Straße")] == ["south", "north", "south"]
    assert all(shard_of(tenant, NAMES) == shard_of(tenant, reversed(NAMES)) for tenant in TENANTS)


def test_every_shard_keeps_about_as_many_tenants() -> None:
    kept = Counter(shard_of(tenant, NAMES) for tenant in TENANTS)
    assert all(900 < kept[name] < 1_100 for name in NAMES), kept


def test_of_one_name_more_only_its_own_tenants_would_move() -> None:
    moved = [tenant for tenant in TENANTS if shard_of(tenant, (*NAMES, "east")) != shard_of(tenant, NAMES)]
    assert 0 < len(moved) < len(TENANTS) // 3
    assert {shard_of(tenant, (*NAMES, "east")) for tenant in moved} == {"east"}


def test_the_store_is_that_of_the_tenant_or_the_one_that_is_named() -> None:
    assert Settings(shards=SHARDS, tenant="acme").store == SHARDS["south"]
    named = Settings(shards=SHARDS, tenant="acme", store="west")
    assert (named.store, named.shard) == (SHARDS["west"], "west")
    assert (Settings().shard, Settings().each_shard()) == (None, {None: Settings()})


def test_each_shard_has_the_same_settings_on_its_own_database() -> None:
    each = Settings(shards=SHARDS, tenant="acme").each_shard()
    assert {name: settings.store for name, settings in each.items()} == SHARDS
    assert {settings.shard for settings in each.values()} == set(NAMES)
    assert len({tokens_of(settings) for settings in each.values()}) == 1


def test_a_store_of_its_own_is_no_shard() -> None:
    aside = Settings(shards=SHARDS, tenant="acme").model_copy(update={"store": "sqlite:///aside.db"})
    assert (aside.shard, aside.each_shard()) == (None, {None: aside})
    aside.check_kept_here("globex")


def test_a_tenant_of_another_shard_is_refused() -> None:
    settings = Settings(shards=SHARDS, store="west")
    with pytest.raises(InvalidFields, match="tenant acme is kept by shard south, and this is west"):
        settings.check_kept_here("acme")
    settings.model_copy(update={"store": SHARDS["south"]}).check_kept_here("acme")
    Settings().check_kept_here("acme")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"store": "sqlite:///x.db"}, "store names none of the shards, which are north, south, west"),
        ({"shards": {"a": SHARDS["north"], "b": SHARDS["north"]}}, "two of the shards have one address"),
        ({"shards": {"a": "sqlite:///x.db"}}, "/shards/a: a shard is a PostgreSQL database"),
        ({"shards": {"No Name": SHARDS["north"]}}, "pattern"),
    ],
)
def test_shards_that_are_none_are_refused_with_what_is_wrong(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        read_settings({"shards": SHARDS, **given})
    assert said in str(refused.value)
    assert "secret-north" not in str(refused.value)


def test_they_are_read_from_the_environment_and_shown_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPOINTMENTS_SHARDS", json.dumps(SHARDS))
    said = appointments("settings", "--json", "--tenant", "acme")
    shown = said.json
    assert shown["shards"]["south"] == shown["store"] == "postgresql://appointments:***@south.internal/appointments"
    assert "secret-" not in said.out


def test_settings_of_settings_are_the_same() -> None:
    once = Settings(shards=SHARDS, tenant="acme")
    assert Settings(**once.model_dump()).store == once.store
    with pytest.raises(ValidationError):
        Settings(shards=SHARDS, store="nowhere")
