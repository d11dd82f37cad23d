"""One connection: sizes and times of a head, what comes after it, several requests in a row. In seconds made short."""

import asyncio
from time import monotonic

import pytest

from appointments.http import border, connection
from tests.unit.http.wire import JSON, answer, ask, exchange, head, post, serving

SHORT_S = 0.3


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", SHORT_S)
    monkeypatch.setattr(border, "BODY_WITHIN_S", SHORT_S)


async def trickle(
    port: int, begin: bytes, drop: bytes, every_s: float = 0.05, within_s: float = 5
) -> tuple[bytes, float]:
    """What comes back on a connection that goes on byte by byte, and after how many seconds the server has ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began, came = monotonic(), b""
    writer.write(begin)
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    some = await asyncio.wait_for(reader.read(65_536), every_s)
                except TimeoutError:
                    writer.write(drop)
                    continue
                except ConnectionError:
                    break
                if not some:
                    break
                came += some
    finally:
        writer.transport.abort()
    return came, monotonic() - began


@pytest.mark.usefixtures("short")
async def test_a_head_that_trickles_is_given_up_in_time() -> None:
    async with serving() as port:
        came, took_s = await trickle(port, b"GET /healthz HTTP/1.1\r\nX: ", b"a")
        assert (answer(came).problem, answer(came).headers["connection"]) == ("too-slow", "close")
        assert SHORT_S / 2 < took_s < SHORT_S + 1


@pytest.mark.usefixtures("short")
async def test_a_body_that_trickles_is_given_up_in_time() -> None:
    async with serving() as port:
        sent = head("POST", "/v1/appointments", "Idempotency-Key: k", JSON, length=60_000)
        came, took_s = await trickle(port, sent, b" ")
        assert (answer(came).problem, answer(came).headers["connection"]) == ("too-slow", "close")
        assert SHORT_S / 2 < took_s < SHORT_S + 1


@pytest.mark.usefixtures("short")
async def test_a_client_that_says_nothing_is_let_go_without_a_word() -> None:
    async with serving() as port:
        assert await exchange(port, b"") == b""


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", b"a"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
    ],
    ids=["its body", "empty lines"],
)
async def test_whoever_goes_on_after_the_answer_is_let_go(begin: bytes, drop: bytes) -> None:
    async with serving() as port:
        came, took_s = await trickle(port, begin, drop)
        assert (answer(came).status, answer(came).body) == (200, b"alive\n")
        assert took_s < SHORT_S + 1


async def test_control_with_more_patience_the_same_clients_stay() -> None:
    async with serving() as port:
        for begin in (
            b"GET /healthz HTTP/1.1\r\nX: ",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        ):
            with pytest.raises(TimeoutError):
                await trickle(port, begin, b"a", every_s=0.2, within_s=SHORT_S + 1)


async def test_a_head_of_just_its_size_is_read() -> None:
    async with serving() as port:
        assert (await ask(port, head("GET", "/healthz", f"X: {'a' * (connection.HEAD_MAX - 100)}"))).status == 200
        assert (await ask(port, head("GET", "/healthz", *("X: a" for _ in range(98))))).status == 200
        assert (await ask(port, head("GET", "/healthz", *("X: a" for _ in range(99))))).problem == "headers-too-large"


async def test_a_header_without_end_is_refused_before_it_ends() -> None:
    async with serving() as port:
        came, _ = await trickle(port, b"GET /healthz HTTP/1.1\r\nX: ", b"a" * 8_192, every_s=0.01)
        assert answer(came).problem == "headers-too-large"


async def test_trailers_are_no_headers_and_have_an_end() -> None:
    begin = head("POST", "/v1/appointments", "Idempotency-Key: k", JSON, "Transfer-Encoding: chunked") + b"0\r\n"
    async with serving() as port:
        came, _ = await trickle(port, begin + b"X: ", b"a" * 65_536, every_s=0.005)
        assert came == b""
    authorized = head("POST", "/v1/appointments", JSON, "Transfer-Encoding: chunked") + b"0\r\n"
    async with serving() as port:
        refused = await ask(port, authorized + b"Idempotency-Key: k\r\n\r\n")
        assert refused.problem == "idempotency-key-missing"


async def test_requests_in_a_row_are_answered_in_a_row() -> None:
    several = b"".join(b"GET /v1/none-%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(20)) + head("GET", "/healthz")
    async with serving() as port:
        came = await exchange(port, several)
        assert came.count(b"HTTP/1.1 404") == 20
        assert came.endswith(b"alive\n")


KEPT = head("GET", "/healthz").replace(b"Connection: close\r\n", b"")
ENDLESS = KEPT.replace(b"/healthz", b"/v1/stream")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (KEPT, b"NONSENSE\r\n\r\n"),
        (KEPT, b"\x16\x03"),
        (KEPT, head("GET", "/", f"X: {'a' * 40_000}")),
        (KEPT + KEPT, head("POST", "/v1/none", "Transfer-Encoding: chunked") + b"zz\r\n"),
        (ENDLESS, b"GET /healthz HTTP/1.1\r\nX: "),
    ],
    ids=["nonsense", "TLS", "a large head", "a broken body", "a slow head"],
)
async def test_what_is_wrong_with_a_request_is_not_told_to_the_one_before_it(before: bytes, behind: bytes) -> None:
    async with serving() as port:
        assert b" 40" not in await exchange(port, before + behind)
        assert b" 431" not in await exchange(port, before + behind)


async def test_nor_is_it_told_in_the_middle_of_an_answer() -> None:
    async with serving() as port:
        sent = ENDLESS.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost")
        came, _ = await trickle(port, sent, b"zz\r\n")
        assert (answer(came).status, b"400" in came) == (200, False)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (post(b" " * 9_000_000, target="/v1/none"), "not-found"),
        (post(b" " * 9_000_000), "body-too-large"),
        (head("GET", "/", f"X: {'a' * 9_000_000}"), "headers-too-large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_client_that_still_sends_can_read_its_answer_to_the_end(sent: bytes, problem: str) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert answer(await reader.read()).problem == problem  # a ConnectionResetError would be raised here
        writer.transport.abort()


async def test_requests_without_end_are_let_go() -> None:
    async with serving() as port:
        came = await exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
        assert came.count(b"HTTP/1.1") <= connection.PIPELINED_MAX


async def test_what_is_refused_at_once_is_not_asked_for() -> None:
    async with serving() as port:
        come_on = await exchange(port, post(b"{}", JSON, "Expect: 100-continue"))
        assert come_on.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422")
        refused = head("POST", "/v1/none", JSON, "Expect: 100-continue", length=10)
        assert (await ask(port, refused)).problem == "not-found"


async def test_a_client_that_goes_in_the_middle_of_its_body_is_no_fault() -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    async with serving() as port:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("POST", "/v1/appointments", "Idempotency-Key: k", JSON, length=100) + b"{")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()
        assert (await ask(port, head("GET", "/healthz"))).status == 200
    assert faults == []


@pytest.mark.usefixtures("short")
async def test_a_stream_goes_on_whatever_its_client_owes_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    monkeypatch.setattr("appointments.http.streams.BEAT_S", 0.05)
    async with serving() as port:
        with pytest.raises(TimeoutError):
            await trickle(port, head("GET", "/v1/stream", length=1_000), b"a", within_s=SHORT_S + 0.5)
    assert faults == []
