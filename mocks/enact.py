"""Enacts the scripted behaviour of one call: what is applied when, and what the client gets to see of it."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from random import Random

from aiohttp import web

from mocks import behaviors
from mocks.answers import Answer, Refusal, hang_up, refusal_answer, reset, send, send_slowly, send_truncated
from mocks.behaviors import Behavior
from mocks.operations import Operation
from mocks.scripts import Turn
from mocks.world import Received, World

FAILURES = {500: "internal_error", 502: "bad_gateway", 503: "unavailable", 504: "gateway_timeout"}


@dataclass
class Call:
    """One request being served."""

    request: web.Request
    world: World
    received: Received
    operation: Operation
    random: Random = field(default_factory=lambda: Random(0))

    async def answer(self, answer: Answer) -> web.StreamResponse:
        """Send an answer as it should be."""
        self.received.status = answer.status
        return await send(self.request, answer)


async def enact(call: Call, turn: Turn | None) -> web.StreamResponse:
    """Serve one call; its key is held until the call has ended, also when the client has left."""
    behavior = turn.behavior if turn else None
    call.random = turn.random if turn else call.random
    if behavior is not None and call.operation.op == "create":
        behavior = behaviors.as_pending(behavior)
    working: asyncio.Task[Answer] | None = None
    try:
        if isinstance(behavior, behaviors.Delayed):
            working = call.world.spawn(_late(call.operation, behavior))
            return await call.answer(await asyncio.shield(working))
        return await _serve(call, behavior)
    except Refusal as refusal:
        return await call.answer(refusal_answer(refusal))
    finally:
        if working is None or working.done():
            call.operation.release()
        else:
            working.add_done_callback(_end_quietly(call.operation))


async def _serve(call: Call, behavior: Behavior | None) -> web.StreamResponse:
    operation = call.operation
    match behavior:
        case behaviors.Pending():
            return await _pending(call, behavior)
        case behaviors.FailThenSucceed(status=status, applied=applied):
            if applied:
                operation.perform()
            raise Refusal(status, FAILURES[status], "The service failed.", retryable=True)
        case behaviors.Timeout():
            return await _never_answer(call, behavior)
        case behaviors.LostResponse(how=how):
            return await _lose(call, how)
        case behaviors.CorruptJson(how=how, applied=applied):
            return await call.answer(_corrupt(operation.perform() if applied else _made_up(operation), how))
        case behaviors.SlowBody(byte_interval_ms=interval_ms):
            answer = operation.perform()
            call.received.status = answer.status
            return await send_slowly(call.request, answer, interval_ms)
        case behaviors.RateLimited():
            raise _rate_limit(behavior)
        case behaviors.StuckLocked():
            raise Refusal(423, "locked", "The calendar is locked.", retryable=True)
        case behaviors.SlotConflict():
            raise Refusal(409, "slot_conflict", "The slot is taken.")
        case behaviors.Reject(status=status, code=code):
            raise Refusal(status, code, "Refused for good.")
        case _:
            return await _changed(call, behavior)


async def _changed(call: Call, behavior: Behavior | None) -> web.StreamResponse:
    """Perform and answer; a change of a booking whose creator was promised callbacks, or a scripted one, is told."""
    answer = call.operation.perform(behavior)
    changed = answer.commit if call.operation.op in ("cancel", "reschedule") else None
    if changed is None:
        return await call.answer(answer)
    plan = behaviors.plan_of(behavior)
    if plan is None and call.operation.book.get(changed.id).notifies:
        plan = behaviors.CallbackPlan()
    if plan is not None and plan.early_lead_ms is not None:
        await call.world.tell_early(changed.id, plan, call.random, plan.early_lead_ms)
    elif plan is not None:
        call.world.spawn(call.world.tell_change(changed.id, plan, call.random))
    return await call.answer(answer)


async def _pending(call: Call, behavior: behaviors.Pending) -> web.StreamResponse:
    answer = call.operation.perform(behavior)
    if answer.commit is not None:
        call.world.spawn(call.world.settle_later(answer.commit.id, behavior, call.random))
        await call.world.settle_early(answer.commit.id, behavior)
    return await call.answer(answer)


async def _late(operation: Operation, behavior: behaviors.Delayed) -> Answer:
    operation.admit()
    if behavior.apply == "before":
        answer = operation.perform()
    await asyncio.sleep(behavior.delay_ms / 1000)
    if behavior.apply == "after":
        answer = operation.perform()
    if behavior.apply == "never":
        raise Refusal(503, FAILURES[503], "The service failed.", retryable=True)
    return answer


async def _never_answer(call: Call, behavior: behaviors.Timeout) -> web.StreamResponse:
    call.operation.admit()
    if behavior.apply == "before":
        call.operation.perform()
    try:
        await asyncio.wait_for(call.world.closing.wait(), behavior.hold_ms / 1000)
    except TimeoutError:
        pass
    finally:
        if behavior.apply == "after":
            call.operation.perform()
    return hang_up(call.request)


async def _lose(call: Call, how: str) -> web.StreamResponse:
    answer = call.operation.perform()
    if how == "500":
        raise Refusal(500, FAILURES[500], "The service failed.", retryable=True)
    if how == "truncated":
        call.received.status = answer.status
        return await send_truncated(call.request, answer)
    return reset(call.request) if how == "rst" else hang_up(call.request)


def _rate_limit(behavior: behaviors.RateLimited) -> Refusal:
    code = "rate_limited" if behavior.status == 429 else "quota_exceeded"
    headers = {}
    if behavior.retry_after == "number":
        headers["Retry-After"] = str(behavior.seconds)
    elif behavior.retry_after == "date":
        # An HTTP date has whole seconds: rounded up, so that nobody is told to come too early.
        headers["Retry-After"] = formatdate(math.ceil(time.time() + behavior.seconds), usegmt=True)
    told = None if behavior.retry_after == "absent" else behavior.seconds
    return Refusal(behavior.status, code, "Too many requests.", retryable=True, retry_after=told, headers=headers)


def _made_up(operation: Operation) -> Answer:
    """A plausible answer to a call that was not applied."""
    content = {"id": f"bk_{'0' * 32}", "client_ref": operation.client_ref, "status": "accepted", "version": 1}
    return Answer({"create": 201, "notify": 202}.get(operation.op, 200), json.dumps(content).encode())


def _corrupt(answer: Answer, how: str) -> Answer:
    body = answer.body
    match how:
        case "truncated":
            answer.body = body[: len(body) // 2]
        case "invalid_utf8":
            answer.body = body[:-1] + b', "summary": "\xff\xfe"}'
        case "wrong_type":
            answer.body = (
                b'{"id": 17, "client_ref": [], "status": {"is": "accepted"}, "version": "one", "items": "none"}'
            )
        case "html":
            answer.body, answer.content_type = b"<!doctype html><title>Welcome</title><p>Please log in.", "text/html"
        case "extra_data":
            answer.body = body + b"\n" + body
        case "nan":
            answer.body = body[:-1] + b', "version": NaN}'
        case _:
            answer.body = b""
    return answer


def _end_quietly(operation: Operation) -> Callable[[asyncio.Task[Answer]], None]:
    def end(task: asyncio.Task[Answer]) -> None:
        operation.release()
        if not task.cancelled():
            task.exception()  # the client has left: nobody is there to be told of a refusal

    return end
