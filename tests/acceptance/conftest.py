"""What every acceptance test is given: a provider over loopback HTTP, a store file, and the public faces alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mocks import MockProvider
from tests.acceptance.office import SECRET, Office


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty database; None where the store is to be a file."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


@pytest.fixture
async def office(tmp_path: Path, database: str | None) -> AsyncIterator[Office]:
    """A provider that runs, and a store that is not there yet."""
    async with MockProvider(secret=SECRET) as provider:
        yield Office(provider, tmp_path, database)
