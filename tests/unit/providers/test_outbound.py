"""Which addresses are dialled: a table of them, names that resolve to them, and real connections."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import ClientConnectorError, ClientError, web

from domain.errors import InvalidFields
from providers.outbound import Outbound, _system

PRIVATE = (
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "::1", "fc00::1", "fdff::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("::127.0.0.1", "::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1"),
    *("::ffff:0:127.0.0.1",),
)
NEVER = (
    *("0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "100.100.100.200"),
    *("::", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254"),
    *("2001::1", "2001:db8::1", "3fff::1", "100::1", "64:ff9b:1::a00:1", "::ffff:169.254.169.254", "::169.254.169.254"),
    *("2002:a9fe:a9fe::", "64:ff9b::169.254.169.254", "64:ff9b::", "::ffff:0.0.0.0", "name", ""),
)
PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "169.253.0.1"),
    *("2606:4700::1111", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
)
SPELLED = ("127.1", "0x7f.1", "2130706433", "0x7f000001", "017700000001", "0")
"""What the system's resolver takes for an address, and no reader does."""


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_dialled_by_an_explicit_setting_only(address: str) -> None:
    assert Outbound().refusal(address)
    assert Outbound(private=True).refusal(address) is None


@pytest.mark.parametrize("address", NEVER)
def test_no_setting_opens_what_is_no_unicast_address_of_somebody(address: str) -> None:
    assert Outbound().refusal(address)
    assert Outbound(private=True).refusal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_dialled(address: str) -> None:
    assert Outbound().refusal(address) is None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.org/",
            "ftp://example.org/",
            "https:///path",
            "https://user:word@example.org/",
            "https://[::1",
        ),
        *("https://example.org:22/", "https://example.org:99999/", "https://example.org/#part", "https://127.0.0.1/"),
        *("https://[::ffff:10.0.0.1]/", "https://[fe80::1%25eth0]/", "//example.org/"),
    ],
)
def test_an_address_is_refused_before_anything_is_resolved(url: str) -> None:
    with pytest.raises(InvalidFields, match="this address is not called"):
        Outbound().check(url)


def test_a_public_address_passes() -> None:
    Outbound().check("https://example.org/hooks?a=b")


class Answering:
    """A server on loopback that counts, and sends elsewhere whoever asks it to."""

    port = 0

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.hosts.append(request.headers["Host"])
        if request.path == "/away":
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{self.port}/"})
        return web.Response(text="here")


@pytest.fixture
async def answering() -> AsyncIterator[Answering]:
    found = Answering()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


async def get(rules: Outbound, url: str, *answers: Sequence[str]) -> int:
    """Ask once; the resolver gives these answers one after the other, or is that of the system."""
    left = list(answers)

    async def resolve(_host: str) -> Sequence[str]:
        await asyncio.sleep(0)
        return left.pop(0)

    async with (
        rules.session(resolve if answers else _system) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("host", [*SPELLED, "127.0.0.1", "localhost"])
async def test_no_spelling_of_loopback_is_dialled(answering: Answering, host: str) -> None:
    with pytest.raises(ClientError):
        await get(Outbound(ports=frozenset({answering.port})), f"http://{host}:{answering.port}/")
    assert answering.hosts == []


async def test_control_with_the_setting_the_same_server_is_reached(answering: Answering) -> None:
    rules = Outbound(frozenset({answering.port}), private=True)
    assert await get(rules, f"http://127.0.0.1:{answering.port}/") == 200
    assert await get(rules, f"http://hooks.test:{answering.port}/", ["127.0.0.1"]) == 200
    assert answering.hosts == [f"127.0.0.1:{answering.port}", f"hooks.test:{answering.port}"]


async def test_a_name_with_one_private_address_is_refused_whole(answering: Answering) -> None:
    rules = Outbound(frozenset({answering.port}))
    with pytest.raises(ClientConnectorError, match="which is not dialled"):
        await get(rules, f"http://hooks.test:{answering.port}/", ["8.8.8.8", "127.0.0.1"])
    assert answering.hosts == []


async def test_a_name_that_answers_otherwise_the_second_time_is_dialled_where_it_was_checked(
    answering: Answering,
) -> None:
    rules, asked = Outbound(frozenset({answering.port}), private=True), []

    async def resolve(host: str) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    url = f"http://hooks.test:{answering.port}/"
    async with rules.session(resolve) as session:
        async with session.get(url, headers={"Connection": "close"}, allow_redirects=False) as answer:
            assert answer.status == 200
        assert asked == ["hooks.test"]
        with pytest.raises(ClientConnectorError, match="which is not dialled"):
            await session.get(url, allow_redirects=False)
    assert len(answering.hosts) == 1


async def test_a_port_that_is_not_allowed_is_not_dialled(answering: Answering) -> None:
    with pytest.raises(ClientConnectorError):
        await get(Outbound(private=True), f"http://127.0.0.1:{answering.port}/")
    assert answering.hosts == []


async def test_a_redirect_is_an_answer_and_no_way(answering: Answering) -> None:
    rules = Outbound(frozenset({answering.port}), private=True)
    assert await get(rules, f"http://127.0.0.1:{answering.port}/away") == 302
    assert len(answering.hosts) == 1
