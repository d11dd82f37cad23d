"""Answers of the mock provider: refusals, the error envelope, and how bytes are written, cut off or dripped."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web

from mocks.records import Commit

JSON_TYPE = "application/json"
DRIP_BYTES_MAX = 16_384


class Refusal(Exception):
    """A request is refused; carries the status and what goes into the error envelope."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        self.headers = dict(headers or {})


@dataclass
class Answer:
    """What is to be written; `commit` is marked as answered once the last byte of it went out."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE
    commit: Commit | None = None


def json_answer(
    status: int, content: Any, headers: Mapping[str, str] | None = None, commit: Commit | None = None
) -> Answer:
    """An answer whose body is `content` as JSON."""
    return Answer(status, json.dumps(content).encode(), dict(headers or {}), JSON_TYPE, commit)


def refusal_answer(refusal: Refusal) -> Answer:
    """The error envelope of a refusal."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message, "retryable": refusal.retryable}
    if refusal.retry_after is not None:
        error["retry_after"] = refusal.retry_after
    return json_answer(
        refusal.status,
        {"error": error, "request_id": f"req_{uuid4().hex}"},
        {"Cache-Control": "no-store"} | refusal.headers,
    )


async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Write an answer to its end, then mark its commit as answered. A client that left leaves the mark unset."""
    response = web.Response(
        status=answer.status, body=answer.body, headers=answer.headers, content_type=answer.content_type
    )
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        return response
    if answer.commit is not None:
        answer.commit.response_sent = True
    return response


async def send_truncated(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Announce the whole body, write half of it, and close."""
    response = _announce(answer)
    try:
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
    except ConnectionError:
        return response
    hang_up(request)
    return response


async def send_slowly(request: web.Request, answer: Answer, byte_interval_ms: int) -> web.StreamResponse:
    """Drip the body one byte at a time, like a slow-loris server."""
    response = _announce(answer)
    try:
        await response.prepare(request)
        for position in range(min(len(answer.body), DRIP_BYTES_MAX)):
            await response.write(answer.body[position : position + 1])
            await asyncio.sleep(byte_interval_ms / 1000)
        await response.write(answer.body[DRIP_BYTES_MAX:])
        await response.write_eof()
    except ConnectionError:
        return response
    if answer.commit is not None:
        answer.commit.response_sent = True
    return response


def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection in good order, without a further byte."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection: the client sees RST (SO_LINGER with zero seconds), not an end of file."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def _announce(answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    response.content_length = len(answer.body)
    return response
