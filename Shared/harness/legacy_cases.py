"""Plays a case with A: each click in a process of its own under a watchdog, against a provider of its own."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from appointments.cases import OPERATIONS, Case, Expected, Send
from mocks import MockProvider
from Shared.harness.judging import differences, early, end_right, surprises
from Shared.harness.models import Call, LegacyExpected, LegacyResult

ROOT = Path(__file__).absolute().parents[2]
STANDARD_LIBRARY_ALONE = ("-S", "-E", "-s")
WATCHDOG_S = 3.0
AT_REST_MS = 100
"""After the last that the provider was told to do later."""
LABELS = {"book": "book-appointment", "cancel": "cancel-appointment", "reschedule": "reschedule-appointment"}


async def play(case: Case, expected: Expected, legacy: LegacyExpected) -> LegacyResult:
    """What A does in a case, judged."""
    async with MockProvider(lenient=True) as mock:
        mock.load(*(script.model_dump() for script in case.scripts))
        calls = await _clicks(case, mock.url)
        await asyncio.sleep(_rest_s(case))
        live = mock.live()
        made = {op: count for op, count in mock.calls().items() if op in OPERATIONS and count}
    found = differences(case, expected, calls, live)
    return LegacyResult(
        id=case.id,
        title=case.title,
        calls=calls,
        attempts=made.get("create", 0),
        provider_calls=made,
        compensated=made.get("cancel", 0) > 0,
        live_bookings=live,
        told_booked=sum(call.told == "booked" for call in calls),
        told_too_early=any(early(call) for call in calls),
        end_right=end_right(case, expected, calls, live),
        duration_ms=sum(call.duration_ms for call in calls),
        verdict="failed" if found else "passed",
        differences=found,
        surprises=surprises(legacy, calls, live),
    )


def event(send: Send) -> dict[str, Any]:
    """The click that stands for a command; an event of the case goes to A as it is."""
    if send.command == "ui_event":
        return send.payload
    return {
        "type": "click",
        "target": {"attributes": {"data-action": LABELS[send.command]}},
        "payload": send.payload,
    }


async def _clicks(case: Case, url: str) -> list[Call]:
    """Each click when the case sends it; a user who waits for an answer does not click before it is there."""
    calls: list[Call] = []
    began = time.perf_counter()
    for send in case.commands:
        await asyncio.sleep(max(0.0, began + (send.at_ms or 0) / 1_000 - time.perf_counter()))
        calls.append(await click(send, url))
    return calls


async def click(send: Send, url: str, watchdog_s: float = WATCHDOG_S) -> Call:
    """One click on A. A process that has not ended after the watchdog's time is killed and counts as hung."""
    arguments = (*STANDARD_LIBRARY_ALONE, "-m", "Shared.legacy.call", url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(json.dumps(event(send)).encode()), watchdog_s)
    except TimeoutError:
        process.kill()
        await process.communicate()
        return Call(command=send.command, told="hung", duration_ms=round(watchdog_s * 1_000))
    return Call.model_validate({"command": send.command, **json.loads(told)})


def _rest_s(case: Case) -> float:
    later = [script.behavior.get("settle_ms", script.behavior.get("delay_ms", 0)) for script in case.scripts]
    return (max(later) + AT_REST_MS) / 1_000 if any(later) else 0.0
