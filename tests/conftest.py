"""What all tests share: the marker from which the documents are made."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that puts a test into docs/analysis/06-tests.md (and 07, if it is an acceptance test)."""
    config.addinivalue_line(
        "markers",
        "evidence(target, answers, given, when, then, seen_in): what a test shows, of what, and where it can be seen; "
        "`answers` names requirements, guarantees and crash points. Literal texts: docs/generate.py reads them unrun.",
    )
