"""The border: what is looked at of every request before anything else reads it, and what becomes of every fault.

A body has a size and a time in which it has to arrive. While the process stops, nothing new begins.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appointments.http.problems import Refusal, told
from appointments.http.standing import Standing
from domain.errors import HistoryError, StoreUnavailable

BODY_MAX = 64 * 1024
BODY_WITHIN_S = 10.0
DISCARDED_MAX = 1024 * 1024
"""What is read of a body that is too large, so that its sender comes to read the answer."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
CLOSE = {"Connection": "close"}


class Border:
    """Pure ASGI: it wraps `receive`, and answers what nobody below has answered."""

    def __init__(self, app: ASGIApp, standing: Standing, now: Callable[[], datetime], pages: str) -> None:
        """Below the path `pages` a form is refused by these pages themselves while the process stops, in their look."""
        self._app, self._standing, self._now, self._pages = app, standing, now, f"{pages}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)

        async def sending(message: Message) -> None:
            body.answered = True
            await send(message)

        try:
            self._check(scope)
            await self._app(_as_get(scope), body.receive, sending)
        except ClientDisconnect:
            return
        except Exception as fault:
            if isinstance(fault, StoreUnavailable):
                scope.get("standing", self._standing).refused(self._now())
            answer = told(fault)
            if answer.status_code >= 500 and not isinstance(fault, StoreUnavailable | HistoryError | Refusal):
                told_of = {"message": f"{scope['method']} {scope['path']} failed", "exception": fault}
                asyncio.get_running_loop().call_exception_handler(told_of)
            if body.answered:
                raise
            await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        begins = scope["method"] not in READING and not scope["path"].startswith(self._pages)
        if self._standing.stopping and begins:
            raise Refusal("stopping", "send it again, with the same Idempotency-Key, in a moment", CLOSE)
        if b"%00" in scope.get("query_string", b"") or "\0" in scope["path"]:
            raise Refusal("malformed", "the address holds NUL")
        if scope.get("query_string") and scope["path"].startswith("/v1/"):
            names = [name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
            if len(set(names)) != len(names):
                raise Refusal("malformed", "the address has the same parameter twice")


class _Body:
    """What arrives of one request's body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._until = asyncio.get_running_loop().time() + BODY_WITHIN_S
        self._size, self._ended = 0, False
        self.answered = False
        """What arrives from then on is read by nobody: it is no ground for another answer."""

    async def receive(self) -> Message:
        """The next part. Raises `Refusal` for a body that is too large or too slow."""
        if self._ended or self.answered:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._next()
                while self._size > BODY_MAX and not self._ended and self._size < DISCARDED_MAX:
                    message = await self._next()
        except TimeoutError:
            raise Refusal("too-slow", f"the body has to arrive within {BODY_WITHIN_S:.0f} s", CLOSE) from None
        if self._size > BODY_MAX:
            raise Refusal("body-too-large", f"a body has at most {BODY_MAX} bytes", CLOSE)
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET is; the server leaves the body out. Streams have no head of their own."""
    if scope["method"] != "HEAD" or scope["path"].endswith("/stream"):
        return scope
    return {**scope, "method": "GET"}
