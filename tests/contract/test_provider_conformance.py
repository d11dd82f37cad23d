"""Every adapter keeps the promises of the provider port: in memory, and against real servers on loopback."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from appointments.radicale import HOST, free_port
from domain.provider import Missing, Provider
from mocks import MockProvider
from providers.api_v2 import ApiV2Provider
from providers.caldav import CalDavProvider
from providers.conformance import Conformance, run
from providers.local import LocalProvider
from tests.contract import servers

NOW = datetime(2027, 1, 5, 12, tzinfo=UTC)
RUNS = itertools.count()


@dataclass
class Adapter:
    """A provider under test, and how to make another one like it against another address."""

    provider: Provider
    at: Callable[[str], Provider] | None = None
    name: str = ""


async def local(stack: AsyncExitStack, folder: Path) -> Adapter:
    return Adapter(LocalProvider())


def api_v2(url: str) -> ApiV2Provider:
    return ApiV2Provider("mock", url)


async def on_the_mock(stack: AsyncExitStack, folder: Path) -> Adapter:
    mock = await stack.enter_async_context(MockProvider())
    provider = api_v2(mock.url)
    stack.push_async_callback(provider.close)
    return Adapter(provider, api_v2)


def caldav(url: str, sync: bool = True) -> CalDavProvider:
    return CalDavProvider("caldav", url, servers.USER, servers.PASSWORD, now=lambda: NOW, sync=sync)


async def on_radicale(stack: AsyncExitStack, folder: Path) -> Adapter:
    return await _with_calendar(stack, caldav(await stack.enter_async_context(servers.radicale(folder))))


async def on_radicale_without_sync(stack: AsyncExitStack, folder: Path) -> Adapter:
    return await _with_calendar(stack, caldav(await stack.enter_async_context(servers.radicale(folder)), sync=False))


async def on_xandikos(stack: AsyncExitStack, folder: Path) -> Adapter:
    return await _with_calendar(stack, caldav(await stack.enter_async_context(servers.xandikos(folder))))


async def _with_calendar(stack: AsyncExitStack, provider: CalDavProvider) -> Adapter:
    stack.push_async_callback(provider.close)
    await provider.ensure_calendar("main")
    await provider.ensure_calendar("main")
    return Adapter(provider, caldav)


ADAPTERS = {f.__name__: f for f in (local, on_the_mock, on_radicale, on_radicale_without_sync, on_xandikos)}
NOT_PROMISED = {
    ("local", "silence_is_unknown"),
    ("local", "refused_connection_is_retryable"),
    ("on_radicale_without_sync", "listing_goes_on_from_its_token"),
    ("on_radicale_without_sync", "unknown_token_is_expired"),
}
"""A provider in memory has no wire to cut; one without tokens lists without them. Nothing else may be left out."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.evidence(
        target="provider contract",
        answers=("R5.1", "G2"),
        given="each adapter against a real server (/api/v2, Radicale, Xandikos) or in memory",
        when="the conformance checks are run",
        then="it keeps every promise of the provider port",
        seen_in="ledger, calendar",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(ADAPTERS))
async def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Adapter]:
    async with AsyncExitStack() as stack:
        made = await ADAPTERS[request.param](stack, tmp_path_factory.mktemp(request.param))
        yield replace(made, name=request.param)


@pytest.mark.parametrize("name", Conformance.names)
async def test_keeps_the_promise(adapter: Adapter, name: str) -> None:
    async with servers.silent_port() as silent:
        suite = Conformance(
            adapter.provider,
            "main",
            run_id=f"r{next(RUNS)}",
            unreachable=adapter.at(f"http://{HOST}:{free_port()}/") if adapter.at else None,
            silent=adapter.at(f"{silent}/") if adapter.at else None,
        )
        result = await suite.check(name)
    expected = "skipped" if (adapter.name, name) in NOT_PROMISED else "passed"
    assert result.state == expected, result.detail


class Forgetful(LocalProvider):
    """A provider that breaks its promises: it books every repeat anew."""

    async def create(self, call, details):  # type: ignore[no-untyped-def]
        return await super().create(call.model_copy(update={"client_ref": f"{call.client_ref}-{next(RUNS)}"}), details)


async def test_a_provider_that_forgets_is_found_out() -> None:
    results = {result.name: result for result in await run(Forgetful(), "main")}
    assert results["repeat_books_once"].state == "failed"
    assert results["create_then_find"].state == "failed"
    assert "another booking" in results["repeat_books_once"].detail


class Raising(LocalProvider):
    """A provider that lets its errors out."""

    async def cancel(self, call, calendar, provider_ref):  # type: ignore[no-untyped-def]
        raise ConnectionResetError("gone")


async def test_an_error_that_leaves_the_adapter_is_a_failure() -> None:
    results = {result.name: result for result in await run(Raising(), "main")}
    assert "an exception left the adapter" in results["cancel_twice"].detail
    assert str(results["silence_is_unknown"]).startswith("skipped")


class Blind(LocalProvider):
    """A provider that cannot read back what it booked, answers where it should be silent, and notes its end."""

    closed = False

    async def get(self, call, calendar, provider_ref):  # type: ignore[no-untyped-def]
        return Missing()

    async def close(self) -> None:
        self.closed = True


async def test_a_check_that_fails_leaves_nothing_live_and_nothing_open() -> None:
    provider, silent = Blind(), Blind()
    suite = Conformance(provider, "main", silent=silent)
    assert (await suite.check("create_then_find")).state == "failed"
    assert provider.live("main") == ()
    assert (await suite.check("silence_is_unknown")).state == "failed"
    assert silent.closed
