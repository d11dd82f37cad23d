"""What every acceptance test is given: a provider over loopback HTTP, a store file, and the public faces alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mocks import MockProvider
from tests.acceptance.office import SECRET, Office


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """A provider that runs, and a store that is not there yet."""
    async with MockProvider(secret=SECRET) as provider:
        yield Office(provider, tmp_path)
