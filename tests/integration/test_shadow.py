"""Shadow: the legacy system's traffic decided as this system would have, with nobody called and nothing written."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.evidence(
    target="shadow",
    answers=("R6.7",),
    given="requests of the legacy system as a gateway wrote them down, of known ends",
    when="they are judged from the command line",
    then="each difference is told in its kind, nobody is called, nothing is written",
    seen_in="report, exit code, connections",
)

ROOT = Path(__file__).resolve().parents[2]


def request(minute: int, status: int | None, hour: int = 9, **more: Any) -> dict[str, Any]:
    """One POST at so many minutes past eight; `hour` is what makes its content its own."""
    times = {"start": f"2031-03-04T{hour:02d}:00:00Z", "end": f"2031-03-04T{hour:02d}:30:00Z"}
    body = {"calendar_id": "main", "time_zone": "UTC", "summary": f"Visit at {hour}", **times}
    told: dict[str, Any] = {"at": f"2031-03-03T08:{minute:02d}:00.000Z", "method": "POST", "path": "/api/v2/bookings"}
    return {**told, "status": status, "duration_ms": None if status is None else 90, "body": body, **more}


def run(folder: Path, *lines: dict[str, Any] | str, provider: str = "http://127.0.0.1:9/api/v2") -> tuple[int, Any]:
    file = folder / "gateway.jsonl"
    text = (one if isinstance(one, str) else json.dumps(one) for one in lines)
    file.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    command = [sys.executable, "-m", "appointments.cli", "shadow", str(file), "--json", "--provider", provider]
    done = subprocess.run(command, cwd=folder, env=quiet(), capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def quiet() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("APPOINTMENTS_")}, "PYTHONPATH": str(ROOT)}


def test_what_both_would_do_alike_is_no_difference(tmp_path: Path) -> None:
    code, found = run(tmp_path, request(0, 201, booking="bk_1"), request(1, 409, hour=10), request(2, 422, hour=11))
    assert (code, found["wishes"], found["differing"]) == (0, 3, 0)


@pytest.mark.parametrize(
    ("requests", "kinds"),
    [
        (
            [request(0, None, booking="bk_1"), request(0, 201, booking="bk_2", at="2031-03-03T08:00:20Z")],
            {"booked twice", "told an error, yet booked", "left without an answer"},
        ),
        ([request(0, 502, booking="bk_1")], {"told an error, yet booked"}),
        ([request(0, 202, booking="bk_1", settled="accepted")], {"told booked too early"}),
        ([request(0, 202, booking="bk_1", settled="rejected")], {"told booked, and it was not"}),
        ([request(0, 201, booking="bk_1", duration_ms=30_000)], {"left without an answer"}),
    ],
    ids=["a second click", "an error after booking", "too early", "falsely", "slow"],
)
def test_each_difference_is_told_in_its_kind(tmp_path: Path, requests: list[Any], kinds: set[str]) -> None:
    code, found = run(tmp_path, *requests)
    assert (code, found["wishes"]) == (1, 1)
    assert kinds <= set(found["kinds"])
    assert found["examples"].keys() == found["kinds"].keys()


def test_what_would_be_refused_here_is_named_with_its_place(tmp_path: Path) -> None:
    wrong = request(0, 201, booking="bk_1")
    wrong["body"]["end"] = wrong["body"]["start"]
    code, found = run(tmp_path, wrong)
    assert (code, found["kinds"]) == (1, {"refused here, booked there": 1})
    assert "end must be later than start" in found["examples"]["refused here, booked there"][0]["ours"]


def test_lines_that_cannot_be_read_are_told_and_stop_no_other(tmp_path: Path) -> None:
    broken = ("{", '{"at": "yesterday"}', json.dumps(request(1, 700)), "")
    code, found = run(tmp_path, *broken, request(2, 201, booking="bk_1"))
    assert (code, found["unreadable"], found["wishes"]) == (1, 3, 1)
    assert [fault.partition(":")[0] for fault in found["faults"]] == ["line 1", "line 2", "line 3"]


def test_a_file_without_a_booking_is_refused(tmp_path: Path) -> None:
    code, found = run(tmp_path, request(0, 200, method="GET"))
    assert (code, found["wishes"], found["passed_over"]) == (2, 0, 1)


async def test_nobody_is_called_and_nothing_is_written(tmp_path: Path) -> None:
    """With its control: to book at that very address does connect, and leaves a store."""
    connected: list[int] = []

    async def taken(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(1)
        writer.close()

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    provider = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v2"
    lines = [request(n, 503, hour=n + 1) for n in range(9)]
    _, found = await asyncio.to_thread(run, tmp_path, *lines, provider=provider)
    assert found["wishes"] == 9
    assert connected == []
    assert [file.name for file in tmp_path.iterdir()] == ["gateway.jsonl"]
    words = "book --calendar main --start 2031-03-04T09:00:00Z --end 2031-03-04T10:00:00Z --summary x --key k --wait 1"
    command = [sys.executable, "-m", "appointments.cli", *words.split(), "--provider", provider]
    await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, env=quiet(), capture_output=True)
    assert connected
    assert (tmp_path / "data").exists()
    server.close()


async def test_followed_it_judges_what_comes_and_reports_when_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "gateway.jsonl"
    file.write_text(json.dumps(request(0, 201, booking="bk_1")) + "\n")
    words = ("shadow", str(file), "--follow", "--json", "--same-within", "1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", *words, "--provider", "local:"),
        cwd=tmp_path,
        env=quiet(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    line = json.dumps(request(5, 502, hour=11, booking="bk_2"))
    filler = json.dumps(request(6, 200, method="GET"))
    with file.open("a") as growing:
        growing.write(line[:40])
        growing.flush()
        growing.write("\n".join((line[40:], *[filler] * 98)) + "\n")
    async with asyncio.timeout(20):
        assert b"requests: 100" in await process.stderr.readline()  # it has read them all
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    found = json.loads(out)
    assert (process.returncode, found["wishes"], found["kinds"]) == (1, 2, {"told an error, yet booked": 1})
