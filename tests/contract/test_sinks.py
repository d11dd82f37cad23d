"""The contract of a sink, on a webhook, on a real JetStream and on a function: what it tells, and its three answers."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from appointments.outbox import jetstream as jetstream_module
from appointments.outbox.cloudevents import CONTENT_TYPE, CloudEvent
from appointments.outbox.jetstream import JetStream
from appointments.outbox.sink import Accepted, Answer, Away, Handler, Refused, Sink
from appointments.outbox.webhook import Webhook
from providers.outbound import Outbound
from saga.clock import WallClock
from tests.contract.nats_server import SUBJECT, free_port, make_stream, messages, nats_server
from tests.unit.outbox.world import SECRET, Received, event_of, receiver, until

pytestmark = pytest.mark.evidence(
    target="outbox sinks",
    answers=("R2.8",),
    given="a webhook receiver that verifies signatures, a NATS server with JetStream, a function",
    when="an event is told, told again, refused, or nobody is there",
    then="it arrives as a CloudEvent under the same id, and the answer says whose fault it is",
    seen_in="what was received",
)

ONE, TWO = UUID(int=1), UUID(int=2)
TIMEOUT_S = 2.0


def private(port: int) -> Outbound:
    """Rules that let loopback be told, at this port."""
    return Outbound(frozenset({port}), private=True)


class Place:
    """Where a sink leads to: it can be taken away and put back."""

    sink: Sink
    told: Callable[[], Awaitable[list[dict[str, Any]]]]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


async def _over_http(stack: AsyncExitStack) -> Place:
    place, port, received = Place(), free_port(), list[Received]()
    here = await stack.enter_async_context(AsyncExitStack())

    async def start() -> None:
        received.append(await here.enter_async_context(receiver(port=port)))

    async def told() -> list[dict[str, Any]]:
        return [event for one in received for event in one.events]

    await start()
    outbound = Outbound(frozenset({port}), private=True)
    place.sink = Webhook(received[0].url, SECRET, outbound, WallClock().now, TIMEOUT_S)
    place.told, place.start, place.stop = told, start, here.aclose
    return place


async def _over_nats(stack: AsyncExitStack, folder: Path) -> Place:
    place, port = Place(), free_port()
    here = await stack.enter_async_context(AsyncExitStack())

    async def start() -> None:
        await here.enter_async_context(nats_server(folder, port))

    async def told() -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in await messages(url)]

    url = f"nats://127.0.0.1:{port}"
    await start()
    await make_stream(url)
    place.sink = JetStream(url, SUBJECT, None, TIMEOUT_S)
    place.told, place.start, place.stop = told, start, here.aclose
    return place


@pytest.fixture(params=["webhook", "jetstream"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        made = await (_over_http(stack) if request.param == "webhook" else _over_nats(stack, tmp_path))
        stack.push_async_callback(made.sink.close)
        yield made


async def test_what_is_accepted_has_arrived_as_a_cloud_event(place: Place) -> None:
    event = event_of(ONE, 7)
    assert await place.sink.deliver(event) == Accepted()
    (told,) = await place.told()
    assert told == {
        "specversion": "1.0",
        "id": f"{ONE}-7",
        "source": "urn:appointments",
        "type": "appointment-confirmed.v1",
        "subject": str(ONE),
        "time": "2031-03-02T09:00:00Z",
        "datacontenttype": "application/json",
        "sequence": "0000000007",
        "data": event.data.model_dump(mode="json"),
    }


async def test_those_told_one_after_the_other_arrive_in_that_order(place: Place) -> None:
    for version in range(1, 21):
        assert await place.sink.deliver(event_of(ONE, version)) == Accepted()
    assert [told["data"]["version"] for told in await place.told()] == list(range(1, 21))


async def test_many_at_once_all_arrive(place: Place) -> None:
    answers = await asyncio.gather(*(place.sink.deliver(event_of(UUID(int=n))) for n in range(50)))
    assert set(answers) == {Accepted()}
    assert {told["subject"] for told in await place.told()} == {str(UUID(int=n)) for n in range(50)}


async def test_nobody_there_is_no_fault_of_the_event_and_the_sink_finds_back(place: Place) -> None:
    assert await place.sink.deliver(event_of(ONE, 1)) == Accepted()
    await place.stop()
    for _ in range(2):
        assert isinstance(await place.sink.deliver(event_of(ONE, 2)), Away)
    await place.start()
    async with asyncio.timeout(10):
        while await place.sink.deliver(event_of(ONE, 2)) != Accepted():
            await asyncio.sleep(0.05)
    assert [told["data"]["version"] for told in await place.told()][:2] == [1, 2]


async def test_a_webhook_is_signed_over_all_that_is_told_and_passes_the_trace_on() -> None:
    traceparent = f"00-{ONE.int:032x}-{2:016x}-01"
    async with receiver() as received:
        outbound = Outbound(frozenset({received.port}), private=True)
        sink = Webhook(received.url, f"{SECRET} whsec_{'B' * 43}=", outbound, WallClock().now, TIMEOUT_S)
        event = event_of(ONE, 7).model_copy(update={"traceparent": traceparent})
        assert await sink.deliver(event) == Accepted()
        await sink.close()
        wrong = Webhook(received.url, f"whsec_{'B' * 43}=", outbound, WallClock().now, TIMEOUT_S)
        assert await wrong.deliver(event) == Away("answered 401"), "control: a signature by another key is noticed"
        await wrong.close()
    (headers,) = received.headers
    assert headers["webhook-id"] == event.id
    assert headers["content-type"] == CONTENT_TYPE
    assert headers["traceparent"] == received.events[0]["traceparent"] == traceparent
    assert len(headers["webhook-signature"].split()) == 2, "two keys while one changes"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Accepted) for status in (200, 202, 204)),
        *((status, Refused) for status in (400, 409, 413, 415, 418, 422)),
        *((status, Away) for status in (301, 401, 403, 404, 408, 410, 429, 500, 501, 502, 503, 504)),
    ],
)
async def test_what_a_status_says(status: int, expected: type[Any]) -> None:
    async def answer(_: dict[str, Any]) -> int:
        return status

    async with receiver(answer) as received:
        sink = Webhook(received.url, SECRET, Outbound(frozenset({received.port}), private=True), WallClock().now, 2)
        assert isinstance(await sink.deliver(event_of(ONE)), expected)
        await sink.close()


async def test_a_webhook_that_does_not_answer_in_time_is_away() -> None:
    async def never(_: dict[str, Any]) -> int:
        await asyncio.sleep(60)
        return 204

    async with receiver(never) as received:
        sink = Webhook(received.url, SECRET, Outbound(frozenset({received.port}), private=True), WallClock().now, 0.05)
        assert await sink.deliver(event_of(ONE)) == Away("no answer in time")
        await sink.close()


@pytest.mark.parametrize(
    "words",
    [b"Jane Doe 03.03.2031\r\n\r\n", b"HTTP/1.1 200 OK\r\nJane Doe\r\n\r\n", b"HTTP/1.1 9999 Jane\r\n\r\n", b""],
)
async def test_neither_a_strangers_words_nor_a_secret_in_the_path_get_into_what_is_kept(words: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sink = Webhook(f"http://127.0.0.1:{port}/events?token=hush", SECRET, private(port), WallClock().now, TIMEOUT_S)
        answer = await sink.deliver(event_of(ONE))
        await sink.close()
    assert isinstance(answer, Away)
    assert answer.reason.startswith("no answer: ")
    assert not {"Jane", "hush"} & set(re.split(r"\W+", answer.reason))


async def test_a_name_server_that_does_not_answer_takes_no_thread_from_anybody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    real = socket.getaddrinfo

    def ask(host: str, *args: Any, **more: Any) -> Any:
        if host == "crm.example.org":
            answered.wait(20)
            raise socket.gaierror("no answer")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    sink = Webhook("https://crm.example.org/events", SECRET, Outbound(), WallClock().now, 0.3)
    loop = asyncio.get_running_loop()
    try:
        with ThreadPoolExecutor(4) as everybodys:
            loop.set_default_executor(everybodys)
            waiting = [asyncio.create_task(sink.deliver(event_of(UUID(int=n)))) for n in range(8)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(2):
                assert await asyncio.to_thread(lambda: "read") == "read"
            assert set(await asyncio.gather(*waiting)) == {Away("no answer in time")}
    finally:
        answered.set()
        await sink.close()


@pytest.mark.parametrize("host", [f"{'a' * 64}.example.org", "a..example.org", "xn--a.example.org"])
async def test_a_name_that_cannot_be_looked_up_is_nobody_there(host: str) -> None:
    sink = Webhook(f"https://{host}/events", SECRET, Outbound(), WallClock().now, TIMEOUT_S)
    assert isinstance(await sink.deliver(event_of(ONE)), Away)
    await sink.close()


async def test_a_redirect_is_not_followed() -> None:
    async with receiver() as elsewhere:

        async def lead_away(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": elsewhere.url})

        application = web.Application()
        application.router.add_post("/events", lead_away)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        rules = Outbound(frozenset({port, elsewhere.port}), private=True)
        sink = Webhook(f"http://127.0.0.1:{port}/events", SECRET, rules, WallClock().now, TIMEOUT_S)
        assert await sink.deliver(event_of(ONE)) == Away("answered 307")
        await sink.close()
        await runner.cleanup()
        assert (elsewhere.events, elsewhere.unsigned) == ([], 0)


async def told_by_a_name_that_changes(monkeypatch: pytest.MonkeyPatch, opened: bool) -> int:
    """How many of three events a receiver on loopback hears of: its name leads to a public address only at first."""
    asked = list[str]()
    real = socket.getaddrinfo

    def ask(host: str, *args: Any, **more: Any) -> Any:
        if host != "crm.example.org":
            return real(host, *args, **more)
        asked.append(host)
        return real("203.0.113.1" if opened and len(asked) == 1 else "127.0.0.1", *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    async with receiver() as received:
        rules = Outbound(frozenset({received.port}), private=opened)
        url = f"{'http' if opened else 'https'}://crm.example.org:{received.port}/events"
        sink = Webhook(url, SECRET, rules, WallClock().now, TIMEOUT_S)
        for version in (1, 2, 3):
            await sink.deliver(event_of(ONE, version))
        await sink.close()
        return len(received.events) + received.unsigned


async def test_a_name_that_leads_into_the_house_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await told_by_a_name_that_changes(monkeypatch, opened=False) == 0


async def test_control_where_the_house_is_open_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await told_by_a_name_that_changes(monkeypatch, opened=True) == 2


async def test_a_stream_keeps_once_what_it_is_told_twice_and_files_it_by_type_and_appointment(tmp_path: Path) -> None:
    async with nats_server(tmp_path, port := free_port()) as url:
        await make_stream(url)
        sink = JetStream(f"nats://127.0.0.1:{port}", SUBJECT, None, TIMEOUT_S)
        for event in (event_of(ONE, 7), event_of(ONE, 7), event_of(TWO, 1)):
            assert await sink.deliver(event) == Accepted()
        await sink.close()
        kept = await messages(url)
    assert [subject for subject, _, _ in kept] == [f"appointments.appointment-confirmed.v1.{id}" for id in (ONE, TWO)]
    assert [headers["Nats-Msg-Id"] for _, headers, _ in kept] == [f"{SUBJECT}.{ONE}-7", f"{SUBJECT}.{TWO}-1"]


async def test_two_subscriptions_that_tell_one_stream_each_have_their_own_there(tmp_path: Path) -> None:
    async with nats_server(tmp_path, free_port()) as url:
        await make_stream(url)
        for subject in (f"{SUBJECT}.crm", f"{SUBJECT}.billing"):
            sink = JetStream(url, subject, None, TIMEOUT_S)
            assert await sink.deliver(event_of(ONE, 7)) == Accepted()
            await sink.close()
        assert len(await messages(url)) == 2, "by the event's id alone the second would be dropped as a duplicate"


async def told_behind_a_gateway_that_falls_silent(folder: Path) -> list[Answer]:
    """The answers, each at once after the one before, from when the connection leads nowhere; at most twenty."""
    silent = asyncio.Event()
    async with nats_server(folder, port := free_port()) as url:
        await make_stream(url)

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, mute: asyncio.Event) -> None:
            while data := await source.read(65_536):
                if not mute.is_set():
                    target.write(data)
            target.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            mute = asyncio.Event() if silent.is_set() else silent  # a connection that is made later leads there again
            await asyncio.gather(pass_on(reader, back, mute), pass_on(there, writer, mute))

        gateway = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with gateway:
            sink = JetStream(f"nats://127.0.0.1:{gateway.sockets[0].getsockname()[1]}", SUBJECT, None, 0.1)
            assert await sink.deliver(event_of(ONE, 1)) == Accepted()
            silent.set()
            answers: list[Answer] = []
            while len(answers) < 20 and Accepted() not in answers:
                answers.append(await sink.deliver(event_of(ONE, 2)))
            await sink.close()
            return answers


async def test_a_broker_behind_a_connection_that_leads_nowhere_is_dialled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_module, "PING_S", 0.2)
    answers = await told_behind_a_gateway_that_falls_silent(tmp_path)
    assert (type(answers[0]), answers[-1]) == (Away, Accepted())


@pytest.mark.parametrize(
    "words",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {}\r\n", b"INFO x\r\n", b"x" * 200_000],
    ids=["nothing", "http", "no-info", "no-json", "endless"],
)
async def test_a_broker_that_says_nothing_or_nonsense_is_away_and_no_connection_is_left_behind(
    words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_module, "CONNECT_S", 0.1)
    left = 0

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        left += 1
        writer.write(words)
        await reader.read()
        left -= 1
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        sink = JetStream(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", SUBJECT, None, 0.1)
        for _ in range(3):
            assert isinstance(await sink.deliver(event_of(ONE)), Away)
        await sink.close()
        await until(lambda: left == 0, within_s=2)


async def test_control_where_nobody_asks_whether_it_is_there_it_stays_away(tmp_path: Path) -> None:
    answers = await told_behind_a_gateway_that_falls_silent(tmp_path)
    assert {type(one) for one in answers} == {Away}


async def test_control_without_its_id_a_stream_keeps_it_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nats.js import JetStreamContext

    published = JetStreamContext.publish

    async def without_id(self: Any, subject: str, payload: bytes, headers: dict[str, str]) -> Any:
        return await published(self, subject, payload, headers={k: v for k, v in headers.items() if k != "Nats-Msg-Id"})

    monkeypatch.setattr(JetStreamContext, "publish", without_id)
    async with nats_server(tmp_path, free_port()) as url:
        await make_stream(url)
        sink = JetStream(url, SUBJECT, None, TIMEOUT_S)
        for _ in range(2):
            assert await sink.deliver(event_of(ONE, 7)) == Accepted()
        await sink.close()
        assert len(await messages(url)) == 2


async def test_a_stream_that_does_not_take_an_event_refuses_it_and_no_stream_at_all_is_nobody_there(
    tmp_path: Path,
) -> None:
    async with nats_server(tmp_path, free_port()) as url:
        sink = JetStream(url, SUBJECT, None, TIMEOUT_S)
        assert isinstance(await sink.deliver(event_of(ONE)), Away)
        await make_stream(url, max_msg_size=16)
        assert isinstance(await sink.deliver(event_of(ONE)), Refused)
        await sink.close()


async def test_a_function_is_given_each_event() -> None:
    given: list[CloudEvent] = []

    async def take(event: CloudEvent) -> None:
        given.append(event)

    assert await Handler(take).deliver(event_of(ONE)) == Accepted()
    assert given == [event_of(ONE)]
