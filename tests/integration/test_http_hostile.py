"""What hostile clients write to a `serve` process, byte by byte: it refuses each by its name, stays small and quiet."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from appointments.http import border
from tests.unit.http.wire import BOOKING, JSON, answer, ask, exchange, head, post, served, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2",),
    given="a process that serves",
    when="bodies, heads, addresses and encodings come in that no client library sends",
    then="each is refused by a problem with its name, none is a fault, and the process does not grow",
    seen_in="answers, resident memory, standard error",
)

GROWTH_MAX = 16 * 1024 * 1024
NOBODY = "00000000-0000-4000-8000-000000000000"
BOOK = "/v1/appointments"
CHUNKED = ("Idempotency-Key: k", JSON, "Transfer-Encoding: chunked")


def body(**fields: Any) -> bytes:
    return json.dumps({**BOOKING, **fields}).encode()


def with_deadline(number: bytes) -> bytes:
    return body()[:-1] + b',"deadline_ms":' + number + b"}"


def chunks(size: int, times: int) -> bytes:
    return head("POST", BOOK, *CHUNKED) + (b"%x\r\n%b\r\n" % (size, b" " * size)) * times + b"0\r\n\r\n"


def bare(*lines: bytes) -> bytes:
    return b"\r\n".join((*lines, b"Connection: close", b"", b""))


REFUSED: dict[str, tuple[bytes, str]] = {
    # bodies
    "a body of 64 KiB and one byte": (post(b" " * 65_537), "body-too-large"),
    "a body of 50 MB": (post(b" " * 50_000_000), "body-too-large"),
    "chunks of 64 KiB and one byte": (chunks(65_537, 1), "body-too-large"),
    "chunks of 50 MB": (chunks(65_536, 763), "body-too-large"),
    "no body": (post(b""), "invalid-fields"),
    "null": (post(b"null"), "invalid-fields"),
    "arrays in arrays": (post(b"[" * 30_000), "malformed"),
    "objects in objects": (post(b'{"a":' * 5_000 + b"1" + b"}" * 5_000), "malformed"),
    "33 levels": (post(b"[" * 33 + b"]" * 33), "malformed"),
    "NaN": (post(with_deadline(b"NaN")), "malformed"),
    "Infinity": (post(with_deadline(b"-Infinity")), "malformed"),
    "1e400": (post(with_deadline(b"1e400")), "malformed"),
    "5,000 digits": (post(with_deadline(b"9" * 5_000)), "malformed"),
    "4,000 digits": (post(with_deadline(b"9" * 4_000)), "invalid-fields"),
    "a name twice": (post(body()[:-1] + b',"summary":"another"}'), "malformed"),
    "half of a surrogate pair": (post(body(summary="\ud800")), "malformed"),
    "NUL": (post(body(summary="\0")), "malformed"),
    "a NUL in a name": (post(body(metadata={"\0": ""})), "malformed"),
    "bytes that are no UTF-8": (post(b'"\xff\xfe"'), "malformed"),
    "UTF-16": (post(body().decode().encode("utf-16")), "malformed"),
    "a byte order mark": (post(b"\xef\xbb\xbf" + body()), "malformed"),
    "two values": (post(body() + b"{}"), "malformed"),
    # content types
    "no content type": (post(body(), "Accept: */*"), "unsupported-media-type"),
    "text": (post(body(), "Content-Type: text/plain"), "unsupported-media-type"),
    "a form": (post(b"a=b", "Content-Type: application/x-www-form-urlencoded"), "unsupported-media-type"),
    "nearly JSON": (post(body(), "Content-Type: application/jsonx"), "unsupported-media-type"),
    "another charset": (post(b'"\xe4"', "Content-Type: application/json; charset=latin-1"), "malformed"),
    # lengths
    "a chunk without a length": (head("POST", BOOK, *CHUNKED) + b"zz\r\n", "malformed"),
    "a chunk longer than it says": (head("POST", BOOK, *CHUNKED) + b"5\r\nabcdefgh\r\n", "malformed"),
    "a length and chunks": (head("POST", BOOK, *CHUNKED, length=5) + b"0\r\n\r\n", "malformed"),
    "two lengths": (head("POST", BOOK, "Content-Length: 1", length=2), "malformed"),
    "a negative length": (head("POST", BOOK, length=-1), "malformed"),
    "a length of 23 digits": (head("POST", BOOK, length=10**22), "malformed"),
    # heads
    "a header of 40 kB": (head("GET", BOOK, f"X: {'a' * 40_000}"), "headers-too-large"),
    "an address of 40 kB": (head("GET", f"{BOOK}?q={'a' * 40_000}"), "headers-too-large"),
    "101 headers": (head("GET", BOOK, *("X: a" for _ in range(99))), "headers-too-large"),
    "no Host": (bare(b"GET /healthz HTTP/1.1"), "malformed"),
    "two Hosts": (bare(b"GET /healthz HTTP/1.1", b"Host: x", b"Host: y"), "malformed"),
    "a header on two lines": (bare(b"GET /healthz HTTP/1.1", b"Host: x", b"X: a", b" b"), "malformed"),
    "a space before the colon": (bare(b"GET /healthz HTTP/1.1", b"Host : x"), "malformed"),
    "a NUL in a header": (bare(b"GET /healthz HTTP/1.1", b"Host: x", b"X: \0"), "malformed"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed"),
    "a tunnel": (head("CONNECT", "x:80"), "malformed"),
    "a method that nobody knows": (head("BREW", BOOK), "malformed"),
    # keys and tokens
    "a key of 256": (post(body(), JSON, key="k" * 256), "idempotency-key-missing"),
    "a key with a space": (post(body(), JSON, key="a b"), "idempotency-key-missing"),
    "a key of other bytes": (post(body(), JSON, key="ä"), "idempotency-key-missing"),
    "two keys": (post(body(), JSON, "Idempotency-Key: another"), "idempotency-key-missing"),
    "a token of other bytes": (head("GET", BOOK, "Authorization: Bearer ä"), "unauthenticated"),
    # addresses
    "a NUL in a path": (head("GET", f"{BOOK}/%00"), "malformed"),
    "a NUL in a query": (head("GET", f"{BOOK}?q=%00"), "malformed"),
    "a parameter twice": (head("GET", f"{BOOK}?limit=1&%6cimit=2"), "malformed"),
    "a parameter that nobody knows": (head("GET", f"{BOOK}?limits=1"), "invalid-fields"),
    "a percent sign in a path": (head("GET", f"{BOOK}/%zz"), "unknown-appointment"),
    "no UTF-8 in a path": (head("GET", f"{BOOK}/%ff%fe"), "unknown-appointment"),
    "letters in a path": (bare("GET /v1/ä HTTP/1.1".encode(), b"Host: x"), "malformed"),
    "backslashes": (head("GET", "\\v1\\appointments"), "malformed"),
    "two slashes": (head("GET", "//v1/appointments"), "not-found"),
    "a way up": (head("GET", "/v1/../healthz"), "not-found"),
    "no address": (head("OPTIONS", "*"), "not-found"),
    "an id that is none": (head("GET", f"{BOOK}/4711"), "unknown-appointment"),
    "an id that is a number": (head("GET", f"{BOOK}/{2**128}/stream"), "unknown-appointment"),
    "a cursor that is none": (head("GET", f"{BOOK}?cursor=%ff"), "invalid-fields"),
    "a year before years": (head("GET", f"{BOOK}?from=0001-01-01T00:00:00%2B23:59"), "invalid-fields"),
    "a version of 20 digits": (head("GET", f"{BOOK}/{NOBODY}/state?version={10**19}"), "invalid-fields"),
    "an event id that is none": (head("GET", "/v1/stream", "Last-Event-ID: 1e5"), "invalid-fields"),
    "tags that are none": (post(b"", "If-Match: 3", target=f"{BOOK}/{NOBODY}/cancel"), "malformed"),
    # a provider that knows no signature
    "an unsigned callback": (post(b"{}", JSON, target="/v1/callbacks/main"), "bad-signature"),
    "an unsigned callback of a deep body": (post(b"[" * 20_000, JSON, target="/v1/callbacks/main"), "bad-signature"),
}
TAKEN: dict[str, tuple[bytes, int]] = {
    "a charset, which JSON has not": (post(body(), "Content-Type: application/json; charset=utf-8"), 202),
    "chunks": (
        head("POST", BOOK, "Idempotency-Key: chunks", JSON, "Transfer-Encoding: chunked")
        + b"".join(b"1\r\n%c\r\n" % one for one in body())
        + b"0\r\n\r\n",
        202,
    ),
    "a percent sign in a query": (head("GET", f"{BOOK}?q=%zz"), 200),
    "no UTF-8 in a query": (head("GET", f"{BOOK}?q=%ff"), 200),
    "an absolute address": (head("GET", "http://y/healthz"), 200),
    "an upgrade that is not on offer": (head("GET", "/healthz", "Upgrade: websocket", "Connection: Upgrade"), 200),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
}


def resident(process: int) -> int:
    """Bytes of a process in memory, at their highest."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


async def test_each_is_refused_by_its_name_and_the_process_stays_small_and_quiet(tmp_path: Path) -> None:
    async with served(tmp_path, http_drain_ms="0") as it:
        port, process = it.port, it.process.pid
        for name, (sent, status) in TAKEN.items():
            assert (await ask(port, sent)).status == status, name
        before = resident(process)
        for name, (sent, problem) in REFUSED.items():
            assert (name, (await ask(port, sent)).problem) == (name, problem)
        large, deep = REFUSED["chunks of 50 MB"][0], REFUSED["arrays in arrays"][0]
        for refused in await asyncio.gather(*(exchange(port, sent) for sent in (large, deep) * 10)):
            assert answer(refused).problem in ("body-too-large", "malformed")
        grown = resident(process) - before
        print(f"grown by {grown / 1024:.0f} KiB")
        assert grown < GROWTH_MAX
        assert (await ask(port, post(body(), JSON, key="afterwards"))).status == 202


async def test_methods_that_a_path_has_not_are_told_which_it_has() -> None:
    async with serving() as port:
        for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
            refused = await ask(port, head(method, BOOK))
            assert (refused.problem, refused.headers["allow"]) == ("method-not-allowed", "GET, HEAD, POST")
        assert (await ask(port, head("GET", f"{BOOK}/{NOBODY}/cancel"))).headers["allow"] == "POST"
        for address, status in ((BOOK, 200), (f"{BOOK}/{NOBODY}", 404), ("/v1/stream", 405), ("/v1/none", 404)):
            short = await ask(port, head("HEAD", address))
            assert (short.status, short.body) == (status, b"")
        assert int((await ask(port, head("HEAD", "/healthz"))).headers["content-length"]) == len("alive\n")


async def test_control_without_the_limit_of_the_border_a_body_of_any_size_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, problem = REFUSED["a body of 64 KiB and one byte"]
    async with serving() as port:
        assert (await ask(port, sent)).problem == problem
        monkeypatch.setattr(border, "BODY_MAX", 2**40)
        monkeypatch.setattr(border, "DISCARDED_MAX", 2**40)
        assert (await ask(port, sent)).problem == "malformed"
