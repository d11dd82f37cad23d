"""The documents say what is so: generated parts, links, tests and commands that they name, programs that they show."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from appointments.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"\b(tests/[A-Za-z0-9_/]+\.py)(?:::([A-Za-z0-9_:]+))?")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?appointments ((?:.*\\\n)*.+)", re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    return [body for found, body in FENCED.findall(path.read_text(encoding="utf-8")) if found == language]


def anchors(text: str) -> set[str]:
    """The names under which a document's headings can be linked to."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> list[str]:
    dead = []
    for target in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8"))):
            dead.append(target)
    return dead


def missing_tests(text: str) -> list[str]:
    """Tests that the text names and that do not exist: a file, or a class or function in it."""
    missing = []
    for file, names in TEST.findall(text):
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
        scope: list[ast.stmt] = tree.body if tree else []
        for name in filter(None, names.split("::")):
            found = next((node for node in scope if getattr(node, "name", None) == name), None)
            tree, scope = (tree, found.body) if isinstance(found, ast.ClassDef) else (tree if found else None, [])
        if tree is None:
            missing.append(f"{file}::{names}".removesuffix("::"))
    return missing


def run(program: str, folder: Path) -> str:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert dead_links(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(path: Path) -> None:
    assert missing_tests(path.read_text(encoding="utf-8")) == []


def test_control_what_is_not_there_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](none.md) `tests/none.py` [d](https://example.org)\n", "utf-8")
    assert dead_links(page) == ["#two", "none.md"]
    here = "tests/unit/test_docs.py"
    named = f"tests/none.py {here} {here}::run {here}::no_such_test"
    assert missing_tests(named) == ["tests/none.py", f"{here}::no_such_test"]


@pytest.mark.evidence(
    target="documents",
    answers=("R6.6",),
    given="the documents, with parts that are drawn from the code, the data and the tests",
    when="these parts are drawn again",
    then="each is as it stands in its document",
    seen_in="output of docs/generate.py --check",
)
def test_generated_parts_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, f"run docs/generate.py:\n{checked.stdout}{checked.stderr}"


def test_every_document_is_listed() -> None:
    listed = {
        (index.parent / target).resolve()
        for index in DOCUMENTS
        if index.name == "README.md"
        for target in LINK.findall(index.read_text(encoding="utf-8"))
    }
    assert [path for path in DOCUMENTS if path not in listed and path.parent != ROOT and path.name != "README.md"] == []


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_commands_that_are_shown_can_be_given(path: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for block in blocks(path, "console"):
        for line in COMMAND.findall(block):
            name, *arguments = shlex.split(line.replace("\\\n", " "))
            assert name in commands, f"there is no command {name!r}"
            commands[name].make_context(name, list(arguments))


def test_the_third_step_of_the_sagas_page_prints_what_the_page_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "sagas.md"
    (program,) = blocks(page, "python")
    printed = "\n".join(line.rstrip() for line in run(program, tmp_path).splitlines()) + "\n"
    assert printed in blocks(page, "text")


def test_the_program_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    assert run(program, tmp_path).splitlines() == ["confirmed 1", "cancelled 0"]


def test_documents_name_no_machine() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert not re.search(r"/(root|tmp|home/\w+|Users/\w+)/|index-url", text)
