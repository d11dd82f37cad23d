"""Traces over the wire: a request, the calls because of it, a callback; and over a crash into the next process."""

import asyncio
import gc
import json
import os
import platform
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed
from standardwebhooks.webhooks import Webhook

from appointments import Orchestrator, Settings
from appointments.http.app import application
from domain.identity import appointment_id
from mocks.server import MockProvider
from saga.clock import WallClock
from tests.integration.collector import PERSONAL, QUICK, WANTED, Collector, about, house

ROOT = Path(__file__).resolve().parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CAME_IN = f"00-{TRACE}-{SPAN}-01"


def sent(mock: MockProvider, id: str) -> list[str]:
    """The trace contexts that the provider was sent for one appointment."""
    return [one["traceparent"] for one in mock.requests() if one["client_ref"] == id]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as made:
        yield made


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider() as made:
        yield made


async def test_one_trace_from_the_request_through_every_call_retry_and_callback(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    mock.script("create", "fail_then_succeed", failures=1)
    mock.script("create", "pending", settle_ms=50, via="callback")
    async with house(tmp_path, collector.url, mock) as desk:
        booked = await desk.book("one", traceparent=CAME_IN)
        assert booked["state"] == "confirmed"
        carried = desk.carried()
    assert collector.resource["service.name"] == "appointments"

    request, course = collector.one("POST /v1/appointments"), collector.one("book appointment")
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == SPAN
    assert about(request)["http.route"] == "/v1/appointments"
    assert course.parent_span_id == request.span_id
    creates, notify = collector.named("POST /bookings"), collector.one("POST /notifications")
    assert [about(one)["appointments.attempt"] for one in creates] == [1, 2]
    assert [about(one)["appointments.outcome"] for one in creates] == ["unknown", "pending"]
    assert about(creates[1])["http.request.resend_count"] == 1
    assert about(creates[0])["url.template"] == "/bookings"
    assert about(creates[0])["http.request.method"] == "POST"
    assert [one.name for one in creates[0].events] == ["retry-scheduled"]
    assert all(about(one)["appointments.id"] == booked["id"] for one in (course, *creates, notify))

    wait = collector.one("wait for retry")
    assert creates[0].end_time_unix_nano <= wait.start_time_unix_nano < wait.end_time_unix_nano
    assert wait.end_time_unix_nano <= creates[1].start_time_unix_nano

    callback, brought = collector.one("callback"), collector.one("POST /v1/callbacks/{provider}")
    inside = (course, *creates, notify, wait, callback)
    assert {one.trace_id.hex() for one in inside} == {TRACE}
    assert {one.parent_span_id for one in inside[1:]} == {course.span_id}
    assert brought.trace_id.hex() != TRACE
    assert [(one.trace_id, one.span_id) for one in callback.links] == [(brought.trace_id, brought.span_id)]
    # What the provider was sent are these very spans.
    assert carried == [f"00-{TRACE}-{one.span_id.hex()}-01" for one in (*creates, notify)]


@pytest.mark.evidence(
    target="telemetry",
    answers=("G7",),
    given="a traced booking whose create is held at the provider",
    when="the process is killed with signal 9 and another one takes up its store",
    then="all further calls carry the same trace, and the span of the call that was cut off is told as well",
    seen_in="the headers that the provider received, the spans that the collector received",
)
async def test_a_trace_survives_the_death_of_its_process(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    id = str(appointment_id("default", "killed"))
    mock.script("create", "timeout", client_ref=id, times=1)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")},
        "PYTHONPATH": str(ROOT),
        "APPOINTMENTS_STORE": f"sqlite:///{tmp_path / 'desk.db'}",
        "APPOINTMENTS_PROVIDER": mock.url,
        "APPOINTMENTS_TRACES_URL": collector.url,
        "APPOINTMENTS_CALL_TIMEOUT_MS": "60000",
    }
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", "serve", "--dev", "--port", "0"),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert first.stderr is not None
    said = ""
    async with asyncio.timeout(30), ClientSession() as session:
        while "Ctrl-C" not in said:
            said += (await first.stderr.readline()).decode()
        found = re.search(r"console +(http://\S+)/console/", said)
        assert found is not None
        headers = {"Idempotency-Key": "killed", "traceparent": CAME_IN}
        async with session.post(f"{found[1]}/v1/appointments", json=WANTED, headers=headers) as answer:
            assert (await answer.json())["id"] == id
        while not sent(mock, id):
            await asyncio.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    await first.communicate()
    before = sent(mock, id)

    settings = Settings.model_validate(
        {**QUICK, "store": f"sqlite:///{tmp_path / 'desk.db'}", "provider": mock.url, "traces_url": collector.url}
    )
    async with Orchestrator.open(settings) as desk:
        ended = await desk.show(id, wait=20)
        assert (await desk.replay(id)).ok
    assert ended.state == "confirmed"
    after = sent(mock, id)[len(before) :]
    assert len(before) == 1
    assert len(after) >= 2
    assert {told.split("-")[1] for told in (*before, *after)} == {TRACE}
    assert len({*before, *after}) == len(before) + len(after)
    cut_off = next(one for one in collector.spans if about(one).get("appointments.outcome") == "interrupted")
    assert before == [f"00-{TRACE}-{cut_off.span_id.hex()}-01"]


async def test_what_is_undone_is_seen(tmp_path: Path, collector: Collector, mock: MockProvider) -> None:
    mock.script("notify", "reject", times=1)
    async with house(tmp_path, collector.url, mock) as desk:
        assert (await desk.book("undone", traceparent=CAME_IN))["state"] == "failed"
    notify, undo = collector.one("POST /notifications"), collector.one("POST /bookings/{id}/cancel")
    assert [one.name for one in notify.events] == ["compensation-begun"]
    assert about(notify)["error.type"] == "rejected"
    assert about(undo)["appointments.operation"] == "compensation"
    course = collector.one("book appointment")
    assert about(course)["appointments.reason"] == "downstream_failed"
    assert course.status.code == course.status.STATUS_CODE_ERROR
    assert {one.trace_id.hex() for one in (notify, undo, course)} == {TRACE}


async def test_a_later_command_goes_on_in_the_trace_that_it_came_in(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    other = f"00-{'c' * 32}-{SPAN}-01"
    async with house(tmp_path, collector.url, mock) as desk:
        booked = await desk.book("two", traceparent=CAME_IN)
        path = f"/v1/appointments/{booked['id']}/cancel"
        status, _ = await desk.ask("POST", path, idempotency_key="gone", prefer="wait=10", traceparent=other)
        assert status < 300
        carried = desk.carried("cancel")
    request, course = collector.one("POST /v1/appointments/{id}/cancel"), collector.one("cancel appointment")
    assert about(request)["appointments.id"] == booked["id"]
    assert request.trace_id.hex() == "c" * 32
    assert course.parent_span_id == request.span_id
    undo = collector.one("POST /bookings/{id}/cancel")
    assert carried == [f"00-{'c' * 32}-{undo.span_id.hex()}-01"]
    assert collector.one("book appointment").trace_id.hex() == TRACE


async def test_without_a_context_the_appointment_is_its_own_trace(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    settings = {**QUICK, "store": f"sqlite:///{tmp_path / 'desk.db'}", "provider": mock.url}
    async with Orchestrator.open(Settings.model_validate({**settings, "traces_url": collector.url})) as desk:
        booked = await desk.book(WANTED, key="alone", wait=10)
    assert collector.traces() == {booked.id.hex}
    assert not collector.one("book appointment").parent_span_id


async def test_a_trace_that_its_sender_does_not_keep_is_not_kept_here_either(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    async with house(tmp_path, collector.url, mock) as desk:
        await desk.book("unkept", traceparent=f"00-{TRACE}-{SPAN}-00")
        carried = desk.carried()
    assert collector.spans == []
    assert {told[:35] for told in carried if told} == {f"00-{TRACE}"}
    assert {told[-2:] for told in carried if told} == {"00"}


async def test_of_traces_that_begin_here_the_share_is_kept_that_is_asked_for(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    async with house(tmp_path, collector.url, mock, traces_ratio=0) as desk:
        await desk.book("none")
        await desk.book("one", traceparent=CAME_IN)
    assert collector.traces() == {TRACE}


async def test_off_means_that_a_context_is_passed_on_as_it_came(tmp_path: Path, mock: MockProvider) -> None:
    async with house(tmp_path, None, mock) as desk:
        await desk.book("passed-on", traceparent=CAME_IN)
        assert desk.carried() == [CAME_IN, CAME_IN]
        await desk.book("without")
        assert desk.carried()[2:] == [None, None]
        status, trail = await desk.ask("GET", f"/v1/appointments/{appointment_id('default', 'passed-on')}/events")
    assert status == 200
    assert trail["items"][0]["data"]["traceparent"] == CAME_IN


async def test_off_does_not_load_the_sdk(tmp_path: Path) -> None:
    """The control: with a collector in the settings, the same program loads it."""
    program = (
        "import asyncio, sys\n"
        "from appointments import Orchestrator, Settings\n"
        "from appointments.http.app import application\n"
        "async def run():\n"
        "    async with Orchestrator.open(Settings(store='memory:', provider='local:')): pass\n"
        "asyncio.run(run())\n"
        "print('opentelemetry.sdk' in sys.modules)\n"
    )
    for url, loaded in ((None, "False"), ("http://127.0.0.1:9/v1/traces", "True")):
        named = {"APPOINTMENTS_TRACES_URL": url} if url else {}
        ran = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), **named},
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await ran.communicate())[0].decode().strip() == loaded


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
async def test_a_dead_collector_delays_nothing_and_fails_nothing(
    tmp_path: Path, mock: MockProvider, silent: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    collector = socket.create_server(("127.0.0.1", 0))  # the kernel connects, nobody ever accepts
    port = collector.getsockname()[1]
    if not silent:
        collector.close()
    async with house(tmp_path, f"http://127.0.0.1:{port}/v1/traces", mock) as desk:
        began = perf_counter()
        for n in range(20):
            assert (await desk.book(f"dead-{n}"))["state"] == "confirmed"
        assert perf_counter() - began < 5
        closing = perf_counter()
    took = perf_counter() - closing
    collector.close()
    async with asyncio.timeout(10):
        while any(thread.name.startswith("OtelBatch") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
    gc.collect()  # a socket that was left open would be told here
    assert took < 4
    assert "Traceback" not in capfd.readouterr().err


async def test_no_span_tells_of_anybody(tmp_path: Path, collector: Collector, mock: MockProvider) -> None:
    """Words that people, and a provider, have typed: none of them is in any byte that leaves. The id is (control)."""
    mock.script("create", "reject", times=1)
    mock.script("notify", "fail_then_succeed", failures=1)
    words = {"x_correlation_id": "thud-who", "user_agent": "Mr. Fnord's browser"}
    async with house(tmp_path, collector.url, mock) as desk:
        await desk.book("xyzzy-key-1", **words)
        booked = await desk.book("xyzzy-key-2", **words)
        for reason in ("waldo-plugh", "waldo-plugh"):
            path = f"/v1/appointments/{booked['id']}/cancel"
            await desk.ask("POST", path, {"reason": reason}, idempotency_key="xyzzy-key-3", prefer="wait=10", **words)
        for path in ("/v1/appointments/Fnord?q=Quuxington", "/Grault", "/console/Zyzzyva?xyzzy-key"):
            await desk.ask("GET", path, **words)
    exported = b"".join(collector.bodies)
    assert booked["id"].encode() in exported
    assert [word for word in PERSONAL if word.lower().encode() in exported.lower()] == []
    names = {one.name for one in collector.spans}
    assert {"GET", "GET /v1/appointments/{id}", "GET /console"} <= names


def samples(text: str, *, leave_out: str = "") -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every series of an exposition, as the library's own parser reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in parsed(text)
        if not leave_out or not family.name.startswith(leave_out)
        for sample in family.samples
    }


async def test_a_scraper_gets_what_alarms_are_set_on(tmp_path: Path, mock: MockProvider) -> None:
    mock.script("create", "timeout", times=1_000)
    patience = {"call_timeout_ms": 20, "breaker_failures_max": 1, "breaker_open_ms": 60_000}
    async with house(tmp_path, None, mock, **patience) as desk, asyncio.timeout(10):
        _, text = await desk.ask("GET", "/metrics")
        assert 'appointments_breaker{state="closed",target="main"} 1.0' in text
        await desk.ask("POST", "/v1/appointments", WANTED, idempotency_key="held")
        while 'appointments_breaker{state="open",target="main"} 1.0' not in text:
            _, text = await desk.ask("GET", "/metrics")
    found = {sample.name: sample for family in parsed(text) for sample in family.samples}
    assert 'appointments_open_work{state="booking"} 1.0' in text
    assert found["appointments_log_position"].value > 0
    assert found["appointments_append_seconds_count"].value >= 1
    assert found["appointments_overdue"].value == 0
    assert found["process_open_fds"].value > 3
    assert found["process_resident_memory_bytes"].value > 10_000_000
    assert found["appointments_build_info"].labels["python"] == platform.python_version()
    assert {"appointments_oldest_due_seconds", "appointments_open_work_parked"} <= set(found)
    assert {labels[0][1] for name, labels in samples(text) if name == "appointments_read_model_lag"} == {
        "current_state",
        "figures",
    }


async def test_what_strangers_send_makes_no_new_series(tmp_path: Path, mock: MockProvider) -> None:
    """The control: a route that is ours, and was not asked before, does make one."""
    async with house(tmp_path, None, mock) as desk:
        app = application(desk.desk, desk.access, WallClock().now)
        methods = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")

        async def asked(method: str, path: str) -> None:
            scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
            scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("t", 80), "client": None}

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                return None

            await app(scope, receive, send)

        async def odd(n: int) -> None:
            await asked(methods[n % 7], f"/odd-{n}/{'x' * (n % 50)}")
            await asked(methods[n % 7], f"/console/odd-{n}")
            await asked(methods[n % 7], f"/v1/appointments/odd-{n}")
            await asked(f"ODD{n}", f"/v1/appointments/{n}/odd")
            await asked(f"ODD{n}", "/readyz")

        for n in range(14):
            await odd(n)
        known = set(app.state.took)
        for n in range(14, 1_000):
            await odd(n)
        assert set(app.state.took) == known
        assert {route for route, _, _ in known} == {"other", "/console", "/v1/appointments/{id}", "/readyz"}
        assert {method for _, method, _ in known} == {*methods, "other"}
        await asked("GET", "/healthz")
        assert len(app.state.took) == len(known) + 1


async def test_the_heads_that_machines_ask_for_are_told_by_their_route(tmp_path: Path, mock: MockProvider) -> None:
    async with house(tmp_path, None, mock) as desk:
        await desk.ask("HEAD", "/readyz")
        _, text = await desk.ask("GET", "/metrics")
    assert ("method", "HEAD") in next(labels for name, labels in samples(text) if ("route", "/readyz") in labels)


async def test_who_watches_is_counted(tmp_path: Path, mock: MockProvider) -> None:
    async with house(tmp_path, None, mock) as desk, desk.session.get(f"{desk.url}/v1/stream") as stream:
        await stream.content.readline()
        _, text = await desk.ask("GET", "/metrics")
    assert "appointments_event_stream_watchers 1.0" in text
    assert ("route", "/v1/stream") in {label for _, labels in samples(text) for label in labels}


async def test_a_callback_points_to_the_trace_that_it_came_in_where_the_desk_listens_itself(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    mock.script("create", "pending", final="never")
    named = {**QUICK, "store": f"sqlite:///{tmp_path / 'desk.db'}", "provider": mock.url, "traces_url": collector.url}
    called_back = {"callback_secret": mock.secret, "callback_listen": "127.0.0.1:0"}
    async with Orchestrator.open(Settings.model_validate({**named, **called_back})) as desk:
        booked = await desk.book(WANTED, key="listens", traceparent=CAME_IN)
        while not (there := mock.ledger()["bookings"]):
            await asyncio.sleep(0.005)
        data = {"id": there[0]["id"], "client_ref": str(booked.id), "version": 2, "status": "accepted"}
        body = json.dumps({"type": "booking.accepted", "data": data})
        now = datetime.now(UTC)
        headers = {
            "webhook-id": "msg-1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(mock.secret).sign("msg-1", now, body),
            "traceparent": f"00-{'d' * 32}-{SPAN}-01",
        }
        url = desk.settings.callback_url or ""
        async with ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            assert answer.status == 204
        assert (await desk.show(booked.id, wait=10)).state == "confirmed"
    callback = collector.one("callback")
    assert callback.trace_id.hex() == TRACE
    assert [(one.trace_id.hex(), one.span_id.hex()) for one in callback.links] == [("d" * 32, SPAN)]


async def test_waits_for_a_breaker_are_seen(tmp_path: Path, collector: Collector, mock: MockProvider) -> None:
    mock.script("create", "timeout", times=1)
    patience = {"call_timeout_ms": 50, "breaker_failures_max": 1, "breaker_open_ms": 300}
    async with house(tmp_path, collector.url, mock, **patience) as desk, asyncio.timeout(10):
        await desk.ask("POST", "/v1/appointments", WANTED, idempotency_key="opens")
        while (await desk.desk.vitals()).breakers["main"] != "open":
            await asyncio.sleep(0.005)
        booked = await desk.book("waits", traceparent=CAME_IN)
    (wait,) = (one for one in collector.named("wait for breaker") if one.trace_id.hex() == TRACE)
    (create,) = (one for one in collector.named("POST /bookings") if about(one)["appointments.id"] == booked["id"])
    assert wait.end_time_unix_nano - wait.start_time_unix_nano > 50_000_000
    assert create.start_time_unix_nano >= wait.end_time_unix_nano


async def test_a_cancel_that_comes_between_ends_the_course_of_the_booking(
    tmp_path: Path, collector: Collector, mock: MockProvider
) -> None:
    mock.script("create", "pending", final="never")
    async with house(tmp_path, collector.url, mock) as desk, asyncio.timeout(10):
        _, booked = await desk.ask("POST", "/v1/appointments", WANTED, idempotency_key="b", traceparent=CAME_IN)
        while not mock.ledger()["bookings"]:
            await asyncio.sleep(0.005)
        path = f"/v1/appointments/{booked['id']}/cancel"
        await desk.ask("POST", path, idempotency_key="c", prefer="wait=10", traceparent=CAME_IN)
    booking, cancel = collector.one("book appointment"), collector.one("cancel appointment")
    assert booking.end_time_unix_nano == cancel.start_time_unix_nano
    assert about(cancel)["appointments.state"] == "cancelled"
    assert len({one.span_id for one in collector.spans}) == len(collector.spans)
