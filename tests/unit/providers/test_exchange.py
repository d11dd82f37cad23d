"""One HTTP exchange: never sent twice, bounded in time and size, and honest about what may have left."""

import asyncio
import re

import aiohttp
import pytest

from appointments.radicale import free_port
from providers.exchange import Answer, Deadline, Exchange, Failure
from tests.contract.servers import silent_port
from tests.unit.providers.wire import answer, wire

CLASS_NAME = re.compile(r"_[A-Z]|[a-z][A-Z]|Error\b")
METHODS = ("GET", "PUT", "DELETE", "POST", "REPORT")


def drops_the_second(number: int, head: bytes) -> bytes | None:
    return answer(204) if number == 1 else None


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_on_a_dropped_kept_connection_is_not_sent_again(method: str) -> None:
    exchange = Exchange({})
    async with wire(drops_the_second) as seen:
        assert isinstance(await exchange.send(method, f"{seen.url}/", Deadline(2_000), body=b"x"), Answer)
        lost = await exchange.send(method, f"{seen.url}/", Deadline(2_000), body=b"x")
        await exchange.close()
    assert isinstance(lost, Failure)
    assert lost.sent
    assert lost.reason.startswith("the connection ended before the answer: ")
    assert not CLASS_NAME.search(lost.reason)
    assert (len(seen.heads), seen.connections) == (2, 1)


async def test_control_aiohttp_alone_sends_an_idempotent_request_again() -> None:
    async with wire(drops_the_second) as seen, aiohttp.ClientSession() as session:
        (await session.put(f"{seen.url}/", data=b"x")).release()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.put(f"{seen.url}/", data=b"x")
    assert len(seen.heads) == 3


async def test_a_refused_connection_sent_nothing() -> None:
    exchange = Exchange({})
    failure = await exchange.send("PUT", f"http://127.0.0.1:{free_port()}/", Deadline(2_000))
    await exchange.close()
    assert isinstance(failure, Failure)
    assert not failure.sent
    assert failure.reason.startswith("cannot connect: ")
    assert not CLASS_NAME.search(failure.reason)


async def test_a_silent_peer_may_have_been_sent_everything() -> None:
    exchange = Exchange({})
    async with silent_port() as url:
        failure = await exchange.send("PUT", f"{url}/", Deadline(100))
        await exchange.close()
    assert failure == Failure("no whole answer in time", sent=True)


async def test_waiting_for_a_connection_of_the_pool_sent_nothing() -> None:
    exchange = Exchange({}, connections_max=1)
    async with silent_port() as url:
        first = asyncio.create_task(exchange.send("PUT", f"{url}/", Deadline(400)))
        await asyncio.sleep(0)
        second = await exchange.send("PUT", f"{url}/", Deadline(100))
        assert second == Failure("no whole answer in time", sent=False)
        assert await first == Failure("no whole answer in time", sent=True)
        await exchange.close()


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    exchange = Exchange({})
    deadline = Deadline(1)
    deadline.at -= 1
    assert await exchange.send("PUT", "http://127.0.0.1:1/", deadline) == Failure(
        "no time was left to send the request", sent=False
    )


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (answer(200, b"x" * 10, length=50), "ended within the answer"),
        (answer(200, b"x" * 2_000), "longer than 1000 bytes"),
        (answer(200, b"x", "Content-Encoding: gzip"), "compressed"),
        (b"HTTP/9 nonsense\r\n\r\n", "no HTTP"),
        (b"\x00\xff\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
    ],
)
async def test_an_answer_that_cannot_be_read_is_a_failure_after_sending(told: bytes, reason: str) -> None:
    exchange = Exchange({})
    once = iter([told])
    async with wire(lambda _number, _head: next(once, None)) as seen:
        # closing after the answer makes a short body end instead of waiting
        failure = await exchange.send("PUT", f"{seen.url}/", Deadline(300), body_max=1_000)
        await exchange.close()
    assert isinstance(failure, Failure)
    assert failure.sent
    if "time" not in failure.reason:
        assert reason in failure.reason
    assert not CLASS_NAME.search(failure.reason)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    exchange = Exchange({})
    async with wire(lambda _number, _head: answer(302, b"", "Location: http://127.0.0.1:1/")) as seen:
        told = await exchange.send("GET", f"{seen.url}/", Deadline(1_000))
        await exchange.close()
    assert isinstance(told, Answer)
    assert told.status == 302
