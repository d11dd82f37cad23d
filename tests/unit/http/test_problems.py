"""The table of problems: whatever is refused anywhere behind HTTP has its name there, with that status."""

import re
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from appointments.http.problems import TABLE, Refusal, problem, told
from domain.errors import CommandRefused, HistoryError, ProviderUnavailable, StoreUnavailable

ROOT = Path(__file__).resolve().parents[3]
HTTP = ROOT / "appointments" / "http"
OWN = re.compile(r'^    problem = "([a-z-]+)"', re.MULTILINE)
NAMED = re.compile(r'(?:Refusal|problem|_refuse)\(\s*"([a-z-]+)"')
ANSWERED = re.compile(r'Answer\((\d+), "([a-z-]+)"')


def test_every_name_in_the_code_is_in_the_table() -> None:
    named = {name for path in HTTP.glob("*.py") for name in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 15
    assert named <= set(TABLE)


def test_refused_commands_and_callbacks_have_the_same_status_here_as_there() -> None:
    kinds = [kind for kind in CommandRefused.__subclasses__() if kind.__module__ == CommandRefused.__module__]
    refused = {(kind.problem, kind.status) for kind in kinds}
    assert len(refused) > 5
    callbacks = (HTTP.parent / "callbacks.py").read_text(encoding="utf-8")
    answered = {(name, int(status)) for status, name in ANSWERED.findall(callbacks)}
    assert len(answered) > 4
    assert {(name, TABLE[name][0]) for name, _ in refused | answered} == refused | answered


def test_every_refusal_of_a_command_anywhere_is_in_the_table() -> None:
    rooms = ("domain", "store", "saga", "projections", "providers", "appointments")
    texts = [path.read_text(encoding="utf-8") for room in rooms for path in (ROOT / room).rglob("*.py")]
    named = {name for text in texts for name in OWN.findall(text)}
    assert {"invalid-fields", "too-many-appointments"} <= named <= set(TABLE)


def test_a_refusal_that_the_table_has_not_is_one_all_the_same() -> None:
    class TooEarly(CommandRefused):
        problem = "too-early"

    answer = told(TooEarly("not before nine"))
    assert (answer.status_code, b":command-refused" in bytes(answer.body)) == (422, True)


@pytest.mark.parametrize("name", TABLE)
def test_each_is_told_in_one_way(name: str) -> None:
    answer = problem(name, "half of a pair: \ud800")
    assert answer.status_code == TABLE[name][0]
    assert answer.media_type == "application/problem+json"
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (Refusal("not-acceptable", "x"), "not-acceptable"),
        (HTTPException(404), "not-found"),
        (HTTPException(400), "malformed"),
        (HTTPException(418), "malformed"),
        (HTTPException(505), "internal-error"),
        (StoreUnavailable("a disk"), "store-unavailable"),
        (ProviderUnavailable("a provider"), "provider-unavailable"),
        (HistoryError("a stream"), "history-unreadable"),
        (ZeroDivisionError("a secret"), "internal-error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_fault_has_its_name(fault: Exception, name: str) -> None:
    answer = told(fault)
    assert f'"urn:appointments:problem:{name}"' in bytes(answer.body).decode()
    assert answer.status_code == TABLE[name][0]


def test_what_went_wrong_on_this_side_stays_here() -> None:
    for fault in (ZeroDivisionError("a secret"), StoreUnavailable("a secret"), HistoryError("a secret")):
        assert b"secret" not in bytes(told(fault).body)
