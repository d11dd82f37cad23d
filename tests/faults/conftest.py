"""Options of the fault tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many seeds the simulation lives through."""
    parser.addoption("--seeds", type=int, default=2_000, help="seeds of the simulation (default 2000)")
