"""`appointments split`: what is in force is shown, set, stopped and resumed, each with a reason."""

from pathlib import Path

import pytest

from tests.unit.appointments.command_line import appointments, booked


@pytest.fixture
def desk(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that holds something, with a legacy system beside it."""
    booked()
    monkeypatch.setenv("APPOINTMENTS_LEGACY", "http://127.0.0.1:9/api/v2")
    return own_folder


def set_(*words: str) -> dict[str, float | bool]:
    said = appointments("split", "set", *words, "--reason", "gate passed", "--json")
    assert said.code == 0, said
    shares: dict[str, float | bool] = said.json["shares"]
    return shares


def test_nothing_is_ours_until_it_is_set(desk: Path) -> None:
    said = appointments("split", "show", "--json")
    assert (said.code, said.json["shares"]) == (0, {"writes": 0.0, "reads": 0.0, "stopped": False})
    assert "the legacy system leads" in appointments("split", "show").out


def test_what_is_left_out_stays(desk: Path) -> None:
    assert set_("--reads", "100") == {"writes": 0.0, "reads": 100.0, "stopped": False}
    assert set_("--writes", "12.5") == {"writes": 12.5, "reads": 100.0, "stopped": False}


def test_the_kill_switch_keeps_the_figures_for_later(desk: Path) -> None:
    set_("--reads", "100", "--writes", "25")
    stopped = appointments("split", "stop", "--reason", "booked twice", "--actor", "dana")
    assert "thrown: nothing new is ours" in stopped.out
    assert "booked twice" in stopped.out
    assert set_("--writes", "50")["stopped"] is True
    resumed = appointments("split", "resume", "--reason", "mended", "--json").json
    assert resumed["shares"] == {"writes": 50.0, "reads": 100.0, "stopped": False}
    assert [one["actor"] for one in resumed["changes"]] == ["operator", "operator", "dana", "operator"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set", "--reason", "x"), "--writes, --reads"),
        (("set", "--writes", "10", "--reason", "x"), "reads go first"),
        (("set", "--reads", "99.001", "--reason", "x"), "two decimals"),
        (("set", "--reads", "100", "--reason", " "), "/reason"),
        (("set", "--reads", "100", "--reason", "x", "--actor", "a b"), "/actor"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(desk: Path, words: tuple[str, ...], told: str) -> None:
    said = appointments("split", *words)
    assert said.code == 2
    assert told in said.err + said.out
    assert not (desk / "desk.db.split.jsonl").exists()


def test_a_torn_line_is_named(desk: Path) -> None:
    set_("--reads", "100")
    with (desk / "desk.db.split.jsonl").open("a") as opened:
        opened.write('{"writes": 9')
    said = appointments("split", "show", "--json")
    assert (said.code, said.json["shares"]["reads"]) == (1, 100.0)
    assert "cannot be read" in said.json["fault"]


def test_without_a_store_or_a_legacy_system_it_says_so(own_folder: Path) -> None:
    assert "there is no store" in appointments("split", "show").err
    booked()
    assert "no legacy system is set" in appointments("split", "show").err


def test_the_help_shows_an_example() -> None:
    assert "Example: appointments split set" in " ".join(appointments("split", "set", "--help").out.split())
