"""The mock provider's callbacks: signed by Standard Webhooks; duplicated, disordered, early or forged on request."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mock_client import Client, Receiver, settled
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from mocks import MockProvider

pytestmark = pytest.mark.evidence(
    target="mock provider",
    answers=("R5.2", "R2.7"),
    given="the mock, and a receiver",
    when="callbacks are duplicated, disordered, early or forged on request",
    then="they are sent so, signed by Standard Webhooks",
    seen_in="deliveries in the ledger",
)


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
async def client(mock: MockProvider) -> AsyncIterator[Client]:
    async with Client(mock.url) as caller:
        yield caller


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as endpoint:
        yield endpoint


@pytest.mark.parametrize("final", ["accepted", "rejected"])
@pytest.mark.parametrize("via", ["callback", "both"])
async def test_a_pending_booking_calls_back_when_it_settles(
    mock: MockProvider, client: Client, receiver: Receiver, final: str, via: str
) -> None:
    mock.script("create", "pending", settle_ms=30, final=final, via=via)
    booking = (await client.create(callback_url=receiver.url)).json
    ((headers, raw, content),) = await receiver.until(1)
    assert content["type"] == f"booking.{final}"
    assert content["data"] == {"id": booking["id"], "client_ref": "order-0001", "version": 2, "status": final}
    assert content["timestamp"].endswith("Z")
    assert Webhook(mock.secret).verify(raw, dict(headers)) == content
    assert (await client.get(booking["id"])).json["status"] == final


async def test_a_pending_booking_to_be_polled_calls_nobody(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    mock.script("create", "pending", settle_ms=10, via="poll")
    booking = (await client.create(callback_url=receiver.url)).json
    assert await settled(client, booking["id"]) == "accepted"
    await asyncio.sleep(0.05)
    assert receiver.came == []


async def test_without_an_address_nobody_is_called_and_it_settles_all_the_same(
    mock: MockProvider, client: Client
) -> None:
    mock.script("create", "pending", settle_ms=10, via="callback")
    assert await settled(client, (await client.create()).json["id"]) == "accepted"
    assert mock.ledger()["callbacks"] == []


async def test_later_changes_of_a_booking_with_callbacks_are_told_too(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    mock.script("create", "pending", settle_ms=10)
    booking = (await client.create(callback_url=receiver.url)).json
    await receiver.until(1)
    await client.reschedule(booking["id"], "*")
    await receiver.until(2)
    await client.cancel(booking["id"])
    await receiver.until(3)
    assert receiver.told() == [("booking.accepted", 2), ("booking.rescheduled", 3), ("booking.cancelled", 4)]


async def test_a_refused_callback_is_repeated_with_the_same_id(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    receiver.status = 500
    mock.script("create", "pending", settle_ms=0)
    await client.create(callback_url=receiver.url)
    came = await receiver.until(2)
    receiver.status = 204
    assert len({headers["webhook-id"] for headers, _, _ in came}) == 1
    await receiver.until(3)
    await asyncio.sleep(0.02)
    assert [delivery["status"] for delivery in mock.ledger()["callbacks"]] == [500, 500, 204]


async def test_duplicates_carry_one_id(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    mock.script("create", "duplicate_callbacks", copies=20, settle_ms=10)
    await client.create(callback_url=receiver.url)
    came = await receiver.until(20)
    await asyncio.sleep(0.03)
    assert len(came) == 20
    assert len({(headers["webhook-id"], raw) for headers, raw, _ in came}) == 1


async def test_out_of_order_tells_the_newer_version_first(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    mock.script("create", "out_of_order_callbacks", order=[2, 0, 1], settle_ms=10)
    booking = (await client.create(callback_url=receiver.url)).json
    await receiver.until(3)
    assert receiver.told() == [("booking.accepted", 4), ("booking.accepted", 2), ("booking.accepted", 3)]
    assert (await client.get(booking["id"])).json["version"] == 4


async def test_a_cancel_can_overtake_what_went_before(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    booking = (await client.create(callback_url=receiver.url)).json
    mock.script("cancel", "out_of_order_callbacks")
    await client.cancel(booking["id"])
    await receiver.until(2)
    assert receiver.told() == [("booking.cancelled", 2), ("booking.accepted", 1)]


async def test_shuffled_callbacks_follow_the_seed(client: Client, mock: MockProvider, receiver: Receiver) -> None:
    orders: list[list[int]] = []
    for number, seed in ((1, 5), (2, 5), (3, 6)):
        mock.script("create", "out_of_order_callbacks", order="shuffled", settle_ms=0, seed=seed)
        await client.create(number, callback_url=receiver.url)
        await receiver.until(3)
        orders.append([version for _, version in receiver.told()])
        receiver.came.clear()
    assert orders[0] == orders[1] != orders[2]
    assert [sorted(order) for order in orders] == [[2, 3, 4]] * 3


async def test_an_early_callback_comes_before_the_answer(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    mock.script("create", "early_callback", lead_ms=60)
    running = asyncio.create_task(client.create(callback_url=receiver.url))
    await receiver.until(1)
    told_at = time.monotonic()
    assert not running.done()
    reply = await running
    assert time.monotonic() - told_at >= 0.05
    assert (reply.status, reply.json["status"], reply.json["version"]) == (202, "pending", 1)
    assert receiver.told()[0] == ("booking.accepted", 2)
    assert (await client.get(reply.json["id"])).json["status"] == "accepted"


async def test_an_early_callback_works_for_a_cancel_too(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    booking = (await client.create(callback_url=receiver.url)).json
    mock.script("cancel", "early_callback", lead_ms=30)
    running = asyncio.create_task(client.cancel(booking["id"]))
    await receiver.until(1)
    assert not running.done()
    assert (await running).status == 200
    assert receiver.told() == [("booking.cancelled", 2)]


async def test_a_storm_is_many_copies_out_of_order_and_one_early(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    plan = {"copies": 20, "order": [1, 0], "early_lead_ms": 20}
    mock.script("create", "pending", settle_ms=40, via="callback", callbacks=plan)
    running = asyncio.create_task(client.create(callback_url=receiver.url))
    await receiver.until(1)
    assert not running.done()
    assert (await running).json["status"] == "pending"
    await receiver.until(41)
    told = receiver.told()
    assert told[:3] == [("booking.accepted", 2), ("booking.accepted", 3), ("booking.accepted", 2)]
    assert (told.count(("booking.accepted", 2)), told.count(("booking.accepted", 3))) == (21, 20)
    assert mock.live() == 1


async def forged(mock: MockProvider, client: Client, receiver: Receiver, fault: str) -> tuple[Any, Any]:
    mock.script("create", "callback_fault", fault=fault, settle_ms=0)
    await client.create(callback_url=receiver.url)
    headers, raw, _ = (await receiver.until(1))[0]
    return dict(headers), raw


async def test_a_bad_signature_does_not_verify(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    headers, raw = await forged(mock, client, receiver, "bad_signature")
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(mock.secret).verify(raw, headers)


async def test_a_stale_timestamp_is_well_signed_but_old(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    headers, raw = await forged(mock, client, receiver, "stale_timestamp")
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(mock.secret).verify(raw, headers)


async def test_an_unknown_reference_is_well_signed(mock: MockProvider, client: Client, receiver: Receiver) -> None:
    headers, raw = await forged(mock, client, receiver, "unknown_ref")
    content = Webhook(mock.secret).verify(raw, headers)
    assert content["data"]["client_ref"] == "nobody-knows-this"
    assert (await client.get(content["data"]["id"])).status == 404


async def test_a_dropped_callback_never_comes_and_reads_show_the_truth(
    mock: MockProvider, client: Client, receiver: Receiver
) -> None:
    mock.script("create", "callback_fault", fault="dropped", settle_ms=0)
    booking = (await client.create(callback_url=receiver.url)).json
    assert await settled(client, booking["id"]) == "accepted"
    await asyncio.sleep(0.05)
    assert receiver.came == []


async def test_a_mock_that_closes_while_nobody_takes_its_callbacks_closes_at_once() -> None:
    async with MockProvider() as provider, Client(provider.url) as caller:
        provider.script("create", "pending", settle_ms=0)
        await caller.create(callback_url="http://127.0.0.1:9/nobody")
        await asyncio.sleep(0.05)
        assert provider.ledger()["callbacks"][0]["status"] is None
        began = time.monotonic()
        await provider.close()
        assert time.monotonic() - began < 0.5
