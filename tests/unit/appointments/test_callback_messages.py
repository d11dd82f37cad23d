"""What a callback's message may say: told by both listeners in the same words, and only once its signature is right."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from appointments import Orchestrator, Settings
from appointments.callbacks import CHALLENGE
from domain.errors import InvalidFields
from tests.unit.http.wire import BOOKING, SECRET, serving

pytestmark = pytest.mark.evidence(
    target="callbacks",
    answers=("R2.7", "R4.2"),
    given="a listener of the Python face, and a process that serves",
    when="a message is unsigned, not JSON of one meaning, contradicts itself, or has an id that is none",
    then="it is refused by the same name at both, before its signature is right with no word of its content",
    seen_in="answers, dead letters",
)

DATA = {"id": "bk-1", "client_ref": "order-0001", "version": 1, "status": "accepted"}
Send = Callable[..., Awaitable[tuple[int, str, Any]]]


def message(kind: str = "booking.accepted", **changes: Any) -> bytes:
    return json.dumps({"type": kind, "data": {**DATA, **changes}}).encode()


@pytest.fixture(params=["listener", "serve"])
async def send(request: pytest.FixtureRequest) -> AsyncIterator[Send]:
    """Sends a body, signed unless told otherwise; returns the status, the name of the problem, and the headers."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        if request.param == "serve":
            url = f"http://127.0.0.1:{await stack.enter_async_context(serving())}/v1/callbacks/main"
        else:
            settings = Settings(store="memory:", provider="local:", log_level="error", callback_secret=SECRET)
            settings = settings.model_copy(update={"callback_listen": "127.0.0.1:0"})
            url = str((await stack.enter_async_context(Orchestrator.open(settings))).settings.callback_url)

        async def sending(body: bytes, id: str = "msg-1", signed: bool = True) -> tuple[int, str, Any]:
            now = datetime.now(UTC)
            headers = {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp()))}
            headers["webhook-signature"] = Webhook(SECRET).sign(id, now, body.decode()) if signed else "v1,eA=="
            headers["content-type"] = "application/json"
            async with client.post(url, data=body, headers=headers) as answer:
                told = json.loads(await answer.read() or b'{"type": ""}')
                return answer.status, told["type"].rpartition(":")[2], answer.headers

        yield sending


@pytest.mark.parametrize("kind", ["accepted", "rejected", "cancelled"])
@pytest.mark.parametrize("status", ["accepted", "rejected", "cancelled", "pending"])
async def test_a_message_that_contradicts_itself_is_refused(send: Send, kind: str, status: str) -> None:
    answered = await send(message(f"booking.{kind}", status=status))
    assert answered[:2] == ((204, "") if kind == status else (422, "invalid-fields"))


@pytest.mark.parametrize("status", ["accepted", "pending", "cancelled"])
async def test_one_of_a_move_tells_whatever_status_it_has_by_then(send: Send, status: str) -> None:
    assert (await send(message("booking.rescheduled", status=status)))[0] == 204


@pytest.mark.parametrize(("id", "status"), [("i" * 255, 204), ("i" * 256, 422), ("i" * 255 + "j", 422), ("msg 1", 422)])
async def test_an_id_is_taken_whole_or_not_at_all(send: Send, id: str, status: int) -> None:
    assert (await send(message(), id))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xef\xbb\xbf" + message(),
        message().replace(b'"bk-1"', b'"bk-1", "id": "bk-2"'),
        message().replace(b": 1,", b": NaN,"),
        message().replace(b"bk-1", b"bk\\u0000"),
        message().replace(b"bk-1", b"bk\\ud800"),
        b"[" * 100 + b"]" * 100,
    ],
    ids=["broken", "empty", "byte order mark", "a name twice", "NaN", "NUL", "half a pair", "too deep"],
)
async def test_what_has_not_one_meaning_is_told_so_to_who_has_signed_it_alone(send: Send, body: bytes) -> None:
    assert (await send(body, signed=False))[:2] == (401, "bad-signature")
    assert (await send(body))[:2] == (400, "malformed")


async def test_a_bad_signature_does_not_ask_for_a_token(send: Send) -> None:
    status, _, headers = await send(message(), signed=False)
    assert (status, headers["www-authenticate"]) == (401, CHALLENGE)
    assert "bearer" not in CHALLENGE.lower()


async def test_in_python_as_well_no_id_is_cut_and_none_holds_nul() -> None:
    settings = Settings(store="memory:", provider="local:", log_level="error")
    async with Orchestrator.open(settings, listen=False) as desk:
        one = await desk.book(BOOKING, key="k", wait=5)
        right: dict[str, Any] = {"client_ref": str(one.id), "provider_ref": "bk", "status": "accepted", "version": 1}
        for wrong in ({"webhook_id": "i" * 256}, {"webhook_id": "a\0"}, {"webhook_id": ""}, {"provider_ref": "a\0"}):
            with pytest.raises(InvalidFields):
                await desk.called_back("main", **{"webhook_id": "msg-1", **right, **wrong})
        assert (await desk.show(one.id)).version == one.version
        assert await desk.called_back("main", webhook_id="msg-1", **right)
