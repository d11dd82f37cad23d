"""The analysis pages: what they say of tests is read from the tests, and every crash point names one that exists."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "analysis").glob("*.md"))
CRASHES = ROOT / "docs" / "analysis" / "05-life-cycle-and-crash-points.md"
ROW = re.compile(r"^\| ([KN]\d+) \|(.*)\|$", re.MULTILINE)
NODE = re.compile(r"`(boundaries\[[^`]+\]|tests/[^`]+::[^`]+)`")
BOUNDARIES = (
    "tests/faults/test_crash_boundaries.py::test_a_crash_at_any_boundary_changes_neither_the_end_nor_the_operations"
)
LINES_MAX = 250


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that reads the markers, imported as the generator does."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from generating import evidence as module

    return module


def nodes(text: str) -> dict[str, list[str]]:
    """For each numbered point the node ids that it names."""
    return {
        number: [node.replace("boundaries[", f"{BOUNDARIES}[") for node in NODE.findall(cells.rpartition(" | ")[2])]
        for number, cells in ROW.findall(text)
    }


def collected(ids: set[str]) -> str:
    """What pytest says when it is asked for exactly these: nothing, where all are there."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", *sorted(ids)]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return "" if asked.returncode == 0 else asked.stdout + asked.stderr


@pytest.mark.evidence(
    target="documents",
    answers=("R6.6",),
    given="every crash point of 5.3",
    when="the tests that it names are collected",
    then="each is there",
    seen_in="what pytest does not find",
)
def test_every_crash_point_names_a_test_that_is_collected() -> None:
    found = nodes(CRASHES.read_text(encoding="utf-8"))
    assert [number for number in found if number[0] == "K"] == [f"K{n}" for n in range(1, 40)]
    assert [number for number, named in found.items() if not named] == []
    assert collected({node for named in found.values() for node in named}) == ""


def test_control_a_crash_point_without_a_test_is_noticed() -> None:
    assert nodes("| K1 | a | b | c | none |\n| K2 | a | b | c | `boundaries[x]` |") == {
        "K1": [],
        "K2": [f"{BOUNDARIES}[x]"],
    }
    assert "not found" in collected({f"{BOUNDARIES}[no such scene]"})


def test_every_scene_of_the_crash_test_stands_behind_some_crash_point() -> None:
    """Those of each beginning with each end are named by their beginning."""
    text = CRASHES.read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "tests" / "faults" / "test_crash_boundaries.py").read_text(encoding="utf-8"))
    scenes = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "Scene"
        and isinstance(call.args[0], ast.Constant)
    }
    assert len(scenes) > 15
    assert {scene for scene in scenes if f"`boundaries[{scene}]`" not in text} == set()


def test_points_that_do_not_exist_say_why() -> None:
    rows = dict(ROW.findall(CRASHES.read_text(encoding="utf-8")))
    reasons = {number: cells.split(" | ")[1] for number, cells in rows.items() if number[0] == "N"}
    assert reasons
    assert all(len(reason.split()) > 3 for reason in reasons.values())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


def test_every_acceptance_test_is_a_criterion(evidence: ModuleType) -> None:
    """Nothing is accepted that the page does not say; controls are no criteria."""
    told = {one.node for one in evidence.collected(ROOT / "tests" / "acceptance")}
    for path in sorted((ROOT / "tests" / "acceptance").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = getattr(node, "name", "")
            if name.startswith("test_") and not name.startswith("test_control_"):
                assert f"tests/acceptance/{path.name}::{name}" in told


def test_what_a_test_answers_exists(evidence: ModuleType) -> None:
    from generating.requirements import REQUIREMENTS

    known = {one.number for one in REQUIREMENTS} | {f"G{n}" for n in range(1, 8)}
    assert {answer for one in evidence.collected() for answer in one.answers} <= known


def test_what_is_said_to_be_built_is_there_and_has_evidence(evidence: ModuleType) -> None:
    from generating.requirements import REQUIREMENTS

    assert [path for one in REQUIREMENTS for path in one.built if not (ROOT / path).exists()] == []
    answered = {answer for one in evidence.collected() for answer in one.answers}
    assert [one.number for one in REQUIREMENTS if one.built and not one.shown and one.number not in answered] == []


def test_an_incomplete_marker_is_refused_with_what_it_lacks(evidence: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "@pytest.mark.evidence(target='a', answers=(), seen_in='b')\n"
        "def test_one():\n    '''\n    Given c\n    When d\n    '''\n",
        encoding="utf-8",
    )
    with pytest.raises(evidence.Incomplete, match="test_one: the evidence lacks then"):
        evidence.collected(tmp_path)


def test_a_story_in_a_docstring_is_read(evidence: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "@pytest.mark.evidence(target='a', answers=('G1',), seen_in='b')\n"
        "async def test_one():\n    '''\n    Given c, and d\n    When e\n    Then f\n    '''\n",
        encoding="utf-8",
    )
    (one,) = evidence.collected(tmp_path)
    assert (one.given, one.when, one.then, one.node) == ("c, and d", "e", "f", "test_some.py::test_one")
