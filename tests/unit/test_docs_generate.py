"""The generator of the documents' parts: it says what it cannot place, and takes nothing away that is not its own."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "generate.py"
PAGE = """# Page
<!-- generated: one -->
old
<!-- /generated -->
By hand.
<!-- generated: two -->
old
<!-- /generated -->
"""


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a page and two parts of its own."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PARTS", {"one": lambda: "new 1", "two": lambda: "new 2"})
    monkeypatch.setattr(module, "documents", lambda: [tmp_path / "page.md"])
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    return module


def page(generate: ModuleType) -> str:
    return (generate.ROOT / "page.md").read_text(encoding="utf-8")


def test_a_check_tells_and_changes_nothing_and_a_run_writes(generate: ModuleType) -> None:
    assert generate.main(["--check"]) == 1
    assert page(generate) == PAGE
    assert generate.main([]) == 0
    assert page(generate) == PAGE.replace("old", "new 1", 1).replace("old", "new 2", 1)
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("marker", "mistyped", "lost"),
    [
        ("<!-- generated: one -->", "<!-- generated:one -->", "one"),
        ("<!-- /generated -->", "<!-- generated end -->", "one"),
    ],
    ids=["first marker", "last marker"],
)
def test_a_part_whose_marker_is_mistyped_is_named_and_the_text_around_it_stays(
    generate: ModuleType, capsys: pytest.CaptureFixture[str], marker: str, mistyped: str, lost: str
) -> None:
    (generate.ROOT / "page.md").write_text(PAGE.replace(marker, mistyped, 1), encoding="utf-8")
    assert generate.main([]) == 1
    assert f"between no two markers of any document: {lost}" in capsys.readouterr().out
    assert "By hand." in page(generate)
    assert generate.main(["--check"]) == 1


def test_an_option_that_is_mistyped_writes_nothing(generate: ModuleType) -> None:
    with pytest.raises(SystemExit):
        generate.main(["--chek"])
    assert page(generate) == PAGE
