"""The contract of a sink, on a webhook, on a real JetStream and on a function: what it tells, and its three answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments.outbox.cloudevents import CONTENT_TYPE, CloudEvent
from appointments.outbox.jetstream import JetStream
from appointments.outbox.sink import Accepted, Away, Handler, Refused, Sink
from appointments.outbox.webhook import Webhook
from providers.outbound import Outbound
from saga.clock import WallClock
from tests.contract.nats_server import SUBJECT, free_port, make_stream, messages, nats_server
from tests.unit.outbox.world import SECRET, Received, event_of, receiver

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


async def test_a_stream_keeps_once_what_it_is_told_twice_and_files_it_by_type_and_appointment(tmp_path: Path) -> None:
    async with nats_server(tmp_path, port := free_port()) as url:
        await make_stream(url)
        sink = JetStream(f"nats://127.0.0.1:{port}", SUBJECT, None, TIMEOUT_S)
        for event in (event_of(ONE, 7), event_of(ONE, 7), event_of(TWO, 1)):
            assert await sink.deliver(event) == Accepted()
        await sink.close()
        kept = await messages(url)
    assert [subject for subject, _, _ in kept] == [f"appointments.appointment-confirmed.v1.{id}" for id in (ONE, TWO)]
    assert [headers["Nats-Msg-Id"] for _, headers, _ in kept] == [f"{ONE}-7", f"{TWO}-1"]


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
