"""Tokens: only their hash is kept, one that is not valid opens nothing, and a revocation holds at once."""

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appointments.access.access import Access, Unauthenticated
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile, token_file
from domain.errors import InvalidFields, StoreRefused, StoreUnavailable

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DANA = Principal(tenant="acme", actor="dana", role=Role.OPERATOR)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return token_file(tmp_path / "log.db")


@pytest.fixture
def tokens(path: Path) -> Iterator[TokenFile]:
    made = TokenFile(path)
    yield made
    made.close()


def make(tokens: TokenFile, life: timedelta | None = None, principal: Principal = DANA) -> tuple[str, str]:
    text, token = tokens.make(principal, "root", "first desk", NOON, life)
    return text, token.id


def test_a_token_tells_whose_it_is(tokens: TokenFile) -> None:
    text, _ = make(tokens)
    assert tokens.find(text, NOON) == DANA


def test_nothing_at_rest_opens_the_door(tokens: TokenFile, path: Path) -> None:
    text, _ = make(tokens)
    _, _, secret, _ = text.split("_", 3) if text.count("_") == 3 else (*text.split("_", 2), "")
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert text.encode() not in content
        assert secret.encode() not in content
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def _other_secret(text: str) -> str:
    return text[:30] + ("a" if text[30] != "a" else "b") + text[31:]


@pytest.mark.parametrize(
    "spoil",
    [
        _other_secret,
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: "",
        lambda text: "appt_",
        lambda text: "appt_" + "0" * 12 + text[17:],
        lambda text: text * 1_000,
        lambda text: "' OR 1=1 --",
        lambda text: "\x00" + text,
        lambda text: "\ud800",
    ],
)
def test_what_is_not_exactly_a_token_opens_nothing(tokens: TokenFile, spoil) -> None:
    text, _ = make(tokens)
    assert tokens.find(spoil(text), NOON) is None


def test_it_is_valid_until_it_expires_and_not_a_moment_longer(tokens: TokenFile) -> None:
    text, _ = make(tokens, DAY)
    assert tokens.find(text, NOON + DAY - timedelta(microseconds=1)) == DANA
    assert tokens.find(text, NOON + DAY) is None


def test_a_revocation_by_another_process_holds_with_the_next_request(tokens: TokenFile, path: Path) -> None:
    text, id = make(tokens)
    assert tokens.find(text, NOON) == DANA
    TokenFile(path).revoke(id, "root", "laptop lost", NOON)
    assert tokens.find(text, NOON) is None


def test_a_token_made_by_another_process_is_known_at_once(tokens: TokenFile, path: Path) -> None:
    assert tokens.find("appt_" + "0" * 12 + "_x", NOON) is None  # there is no file yet
    text, _ = make(TokenFile(path))
    assert tokens.find(text, NOON) == DANA


def test_a_file_that_was_replaced_is_read_anew(tokens: TokenFile, path: Path, tmp_path: Path) -> None:
    old, _ = make(tokens)
    assert tokens.find(old, NOON) == DANA
    other = TokenFile(tmp_path / "other")
    new, _ = make(other, principal=DANA.model_copy(update={"tenant": "other"}))
    os.replace(tmp_path / "other", path)
    assert tokens.find(old, NOON) is None
    assert tokens.find(new, NOON).tenant == "other"


def test_who_made_and_revoked_a_token_and_why_stays(tokens: TokenFile, path: Path) -> None:
    _, id = make(tokens)
    tokens.revoke(id, "lee", "laptop lost", NOON + DAY)
    tokens.revoke(id, "kim", "again", NOON + 2 * DAY)  # nothing more was done
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT what, token, by, reason FROM record ORDER BY number").fetchall()
    connection.close()
    assert rows == [("made", id, "root", "first desk"), ("revoked", id, "lee", "laptop lost")]


def test_the_list_shows_no_hash(tokens: TokenFile) -> None:
    _, first = make(tokens)
    listed = tokens.all()
    assert [one.id for one in listed] == [first]
    assert "digest" not in listed[0].model_dump()


def test_an_unknown_id_cannot_be_revoked(tokens: TokenFile) -> None:
    make(tokens)
    with pytest.raises(InvalidFields, match="token list"):
        tokens.revoke("000000000000", "root", "", NOON)


@pytest.mark.parametrize("life", [timedelta(), -DAY, timedelta(days=10_000)])
def test_a_life_out_of_range_is_refused(tokens: TokenFile, life: timedelta) -> None:
    with pytest.raises(InvalidFields):
        make(tokens, life)


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tokens (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match="something else"):
        make(TokenFile(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("column", "value"), [("role", "root"), ("tenant", "a b"), ("digest", "x"), ("made_at", "soon")]
)
def test_a_row_that_nobody_here_can_have_written_lets_nobody_in(
    tokens: TokenFile, path: Path, column: str, value: str
) -> None:
    text, _ = make(tokens)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE tokens SET {column} = ?", (value,))
    connection.close()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        tokens.find(text, NOON)


def test_without_a_token_nobody_comes_in_unless_everybody_may(tokens: TokenFile) -> None:
    text, _ = make(tokens)
    closed = Access(tokens, Throttle(None, 1), lambda: NOON)
    assert closed.authenticate(text) == DANA
    for none in (None, "", "nonsense"):
        with pytest.raises(Unauthenticated):
            closed.authenticate(none)
    everybody = Principal(tenant="default", actor="dev", role=Role.ADMIN)
    opened = Access(tokens, Throttle(None, 1), lambda: NOON, everybody)
    assert opened.authenticate(None) == everybody
    with pytest.raises(Unauthenticated):
        opened.authenticate("nonsense")
