"""The callback receiver: what it listens on, whose word it takes, and what is kept when nobody can be told."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from appointments import Orchestrator, Settings, callbacks
from appointments.callbacks import BODY_MAX, CallbackListener
from domain.errors import InvalidFields
from domain.identity import orphan_stream
from projections.health import health
from providers.local import LocalProvider

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FIELDS = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(
        store=f"sqlite:///{folder}/desk.db",
        provider="local:",
        callback_secret=SECRET,
        callback_listen="127.0.0.1:0",
        log_file=folder / "log.txt",
        **more,
    )


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def signed(client_ref: str, id: str = "msg-1") -> dict[str, Any]:
    data = {"id": "bk-1", "client_ref": client_ref, "version": 1, "status": "accepted"}
    body, now = json.dumps({"type": "booking.accepted", "data": data}), datetime.now(UTC)
    stamps = {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp()))}
    return {"data": body, "headers": {**stamps, "webhook-signature": Webhook(SECRET).sign(id, now, body)}}


@pytest.mark.parametrize("secret", ["whsec_", "whsec_x", "é"])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(InvalidFields, match="callback_secret") as refused:
        CallbackListener({"main": secret})
    assert refused.value.errors[0][0] == "/callback_secret"


async def test_a_port_that_is_taken_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidFields, match=f"cannot listen on {where}: .*set callback_listen to a free host:port"):
            async with Orchestrator.open(settings(tmp_path).model_copy(update={"callback_listen": where})):
                pass
    assert not (tmp_path / "desk.db").exists()


@pytest.mark.parametrize("listen", ["nohost.invalid:0", "8086", "127.0.0.1:99999", "127.0.0.1:x"])
async def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(InvalidFields, match="callback_listen"):
        async with Orchestrator.open(settings(tmp_path).model_copy(update={"callback_listen": listen})):
            pass


async def test_an_ipv6_address_is_listened_on_and_named_in_brackets(client: aiohttp.ClientSession) -> None:
    try:
        async with CallbackListener({"main": SECRET}, "::1") as listener:
            url = listener.url("main")
            assert url.startswith("http://[::1]:")
            async with client.post(url, data="{}") as answer:
                assert answer.status == 401
    except InvalidFields as refused:
        # A machine without IPv6 must at least be told so.
        if "callback_listen" not in str(refused):
            raise


async def test_a_callback_whose_stream_cannot_be_read_is_kept_and_logged(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async with Orchestrator.open(settings(tmp_path)) as desk:
        one = await desk.book(FIELDS, key="key-1", wait=5)
    with sqlite3.connect(tmp_path / "desk.db") as connection:
        connection.execute("update events set body = 'x' where version = 2")
    connection.close()
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        url = str(desk.settings.callback_url)
        for _ in range(2):
            async with client.post(url, **signed(str(one.id))) as answer:
                assert answer.status == 204
        kept = await desk.runtime.store.events(orphan_stream("main", "msg-1"))
        assert [event.type for event in kept] == ["orphan-callback-received.v1"]
        assert str(one.id).encode() in kept[0].body
        found = await health(desk.runtime.store, datetime.now(UTC), desk.runtime.runs)
        assert "undecodable" in {finding.kind for finding in found.findings}
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text("utf-8").splitlines()]
    told = [line for line in lines if line["event"] == "callback_kept"]
    assert len(told) == 2
    assert (told[0]["appointment_id"], told[0]["provider"], told[0]["level"]) == (str(one.id), "main", "error")


@pytest.mark.parametrize(
    "changes", [{"status": "maybe"}, {"version": "x"}, {"version": -1}, {"provider_ref": ""}, {"client_ref": "x"}]
)
async def test_what_no_provider_may_say_is_refused_and_not_recorded(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with Orchestrator.open(settings(tmp_path)) as desk:
        one = await desk.book(FIELDS, key="key-1", wait=5)
        said = {"client_ref": str(one.id), "provider_ref": "bk-1", "status": "accepted", "version": 1, **changes}
        with pytest.raises(InvalidFields):
            await desk.called_back("main", "msg-1", **said)
        assert (await desk.show(one.id)).version == one.version
        assert await desk.runtime.store.events(orphan_stream("main", "msg-1")) == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"),
    [
        (b"x" * (BODY_MAX + 1), {}, 413, "body-too-large"),
        (b"{}", {}, 401, "bad-signature"),
        (b"\xff", {"webhook-signature": "v1,eA=="}, 401, "bad-signature"),
        (b"{}", {"webhook-signature": "nonsense"}, 401, "bad-signature"),
        (b"{}", {"webhook-signature": "v1,a,b"}, 401, "bad-signature"),
        (b"{}", {"webhook-timestamp": "1e400"}, 401, "bad-signature"),
        (b"{", None, 400, "malformed"),
        (b"{}", None, 422, "invalid-fields"),
    ],
)
async def test_a_body_that_is_not_taken_is_told_why(
    client: aiohttp.ClientSession, body: bytes, headers: dict[str, str] | None, status: int, problem: str
) -> None:
    """Headers on top of those of a message signed just now, with nothing of a signature where some are given."""
    now = datetime.now(UTC)
    stamps = {"webhook-id": "a", "webhook-timestamp": str(int(now.timestamp()))}
    right = {"webhook-signature": Webhook(SECRET).sign("a", now, body.decode())} if headers is None else headers
    async with (
        CallbackListener({"main": SECRET}) as listener,
        client.post(listener.url("main"), data=body, headers={**stamps, **right}) as answer,
    ):
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        assert (await answer.json())["type"] == f"urn:appointments:problem:{problem}"


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/v1/callbacks/main", 405, "method-not-allowed"),
        ("PUT", "/v1/callbacks/main", 405, "method-not-allowed"),
        ("POST", "/v1/callbacks/nobody", 404, "unknown-provider"),
        ("POST", "/", 404, "not-found"),
    ],
)
async def test_a_request_that_is_no_callback_is_told_so_as_a_problem(
    client: aiohttp.ClientSession, method: str, path: str, status: int, problem: str
) -> None:
    async with CallbackListener({"main": SECRET}) as listener:
        url = listener.url("main").replace("/v1/callbacks/main", path)
        async with client.request(method, url, data=b"{}") as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            assert (await answer.json())["type"] == f"urn:appointments:problem:{problem}"
            assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_a_body_that_does_not_arrive_holds_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "BODY_WITHIN_S", 0.05)
    async with CallbackListener({"main": SECRET}) as listener:
        port = int(listener.url("main").split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/callbacks/main HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        told = await asyncio.wait_for(reader.read(), 5)  # to the end: the connection is closed
        writer.close()
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"urn:appointments:problem:body-too-slow" in told
