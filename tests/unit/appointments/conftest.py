"""Where the command line is tested: nothing of the machine's own settings reaches it."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty, with a store in it and a provider inside the process."""
    for name in [name for name in os.environ if name.startswith("APPOINTMENTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APPOINTMENTS_STORE", "sqlite:///desk.db")
    monkeypatch.setenv("APPOINTMENTS_PROVIDER", "local:")
    return tmp_path
