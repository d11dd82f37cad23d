"""What the tests show, read from their own `evidence` markers, without running them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from generating.markdown import one_line, table

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
ACCEPTANCE = "tests/acceptance/"
WORDS = ("given", "when", "then")


@dataclass(frozen=True)
class Evidence:
    """One test, or a whole file of them (`name` empty), and what it shows."""

    path: str
    name: str
    target: str
    answers: tuple[str, ...]
    given: str
    when: str
    then: str
    seen_in: str

    @property
    def node(self) -> str:
        """As pytest names it."""
        return f"{self.path}::{self.name}" if self.name else self.path


class Incomplete(ValueError):
    """A marker, or the docstring of an acceptance test, lacks a field."""


def collected(folder: Path = TESTS) -> list[Evidence]:
    """Everything that is marked below a folder, in order of files and lines. Raises `Incomplete`."""
    return [one for path in sorted(folder.rglob("test_*.py")) for one in _of_file(path)]


def _of_file(path: Path) -> Iterator[Evidence]:
    where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "pytestmark":
            marks = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            yield from (_evidence(where, "", mark, "") for mark in marks if _is_evidence(mark))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            story = ast.get_docstring(node) or ""
            marks = node.decorator_list
            yield from (_evidence(where, node.name, mark, story) for mark in marks if _is_evidence(mark))


def _is_evidence(mark: ast.expr) -> bool:
    return isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "evidence"


def _evidence(where: str, name: str, mark: ast.expr, story: str) -> Evidence:
    assert isinstance(mark, ast.Call)
    told = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
    told = {**_steps(story), **told}
    missing = sorted({"target", "answers", "seen_in", *WORDS} - told.keys())
    if missing:
        raise Incomplete(f"{where}::{name}: the evidence lacks {', '.join(missing)}")
    return Evidence(where, name, **told)


def _steps(story: str) -> dict[str, str]:
    """`Given …`, `When …` and `Then …` of a docstring, each in a line of its own."""
    found = {}
    for line in story.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.lower() in WORDS and rest:
            found[word.lower()] = rest
    return found


def test_table() -> str:
    """Every marked test that is no acceptance test."""
    head = ("target", "preconditions", "steps", "expected", "observability", "answers", "test")
    rows = [
        (one.target, one.given, one.when, one.then, one.seen_in, ", ".join(one.answers), f"`{one.node}`")
        for one in collected()
        if not one.path.startswith(ACCEPTANCE)
    ]
    return table(head, rows)


def controls() -> str:
    """Tests that take a protection out, or plant a fault, and demand that it is noticed."""
    rows = []
    for path in sorted(TESTS.rglob("test_*.py")):
        names = [
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and ("control" in node.name or path.name == "test_planted_bugs.py")
        ]
        if names:
            words = "; ".join(_words(name) for name in sorted(names))
            rows.append((f"`{path.relative_to(ROOT).as_posix()}`", str(len(names)), words))
    return table(("file", "controls", "what must be noticed"), rows)


def _words(name: str) -> str:
    return name.removeprefix("test_").removeprefix("the_").removeprefix("control_").replace("_", " ")


def criteria() -> str:
    """Every acceptance test as Given-When-Then, under the heading of its file."""
    parts, number = [], 0
    for path in sorted((ROOT / ACCEPTANCE).glob("test_*.py")):
        heading = one_line((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0])
        rows = []
        for one in _of_file(path):
            number += 1
            test = f"`{one.name.removeprefix('test_')}`"
            answers = ", ".join(one.answers)
            rows.append((f"AC{number}", one.given, one.when, one.then, one.seen_in, answers, test))
        head = ("no.", "given", "when", "then", "seen in", "answers", "test_…")
        parts.append(f"**`{path.relative_to(ROOT).as_posix()}`**: {heading}\n\n{table(head, rows)}")
    return "\n\n".join(parts)
