"""What is served from the package is what it says to be."""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATIC = ROOT / "appointments" / "console" / "static"
TEMPLATES = ROOT / "appointments" / "console" / "templates"


def test_htmx_is_the_file_that_the_document_names() -> None:
    (file,) = STATIC.glob("htmx-*.min.js")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest in (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    assert (STATIC / "htmx-LICENSE.txt").read_text(encoding="utf-8").startswith("Zero-Clause BSD")


def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline() -> None:
    for template in TEMPLATES.iterdir():
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"https?://|<style|\bstyle=|\bon[a-z]+=|hx-on|hx-vals|javascript:", text), template.name
        assert re.findall(r"<script(?! src=\"\{\{ root \}\}/static/)", text) == [], template.name
        assert "| safe" not in text, template.name
