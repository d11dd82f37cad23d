"""`what-if`: live again through what was recorded, under other policies, and show what would have ended otherwise."""

import asyncio
import gc
import re
from collections.abc import Sequence
from datetime import datetime
from multiprocessing.sharedctypes import Synchronized
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.processes import SPAWN, processes
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.cli.times import instant
from domain.commands import parse
from domain.definition import SagaPlan
from domain.errors import InvalidFields
from saga.changes import BreakerChange, CapabilityChange, Changes, RetryChange
from saga.lanes import LimitPolicy
from saga.recorded_provider import Source
from saga.recorded_streams import Recorded, Wanted, read_recordings
from saga.recording import Recording
from saga.what_if import Course, Report, report, rerun

SHOWN_MAX = 20
LOOK_EVERY_S = 0.1
TAKEN_BACK = -1
"""In place of the count: the one who asked has gone."""
DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
SOURCES = {
    Source.RECORDED: "as recorded",
    Source.NEIGHBOURS: "as others got them then",
    Source.ASSUMED: "assumed",
}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "what-if", "appointments what-if --retry attempts=5,backoff_ms=200 --timeout 10s")(what_if)


async def what_if(
    session: Session,
    retry: Annotated[
        list[str] | None, typer.Option(help="attempts, backoff_ms, backoff_max_ms, jitter: attempts=5,backoff_ms=200")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Of each call: 10s, 500ms.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Of the whole booking: 60s, 5m.")] = None,
    breaker: Annotated[list[str] | None, typer.Option(help="failures, open_ms: failures=5,open_ms=2000")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="Of the calendar: resend, lookup, settle_ms: resend=false")
    ] = None,
    calendar: Annotated[str | None, typer.Option(help="Only those of this calendar.")] = None,
    since: Annotated[str | None, typer.Option(help="Only those asked for since then: RFC 3339.")] = None,
) -> ExitCode:
    """Live again through what was recorded, under other policies, and show which appointments would end otherwise.

    Calls are answered as the record says; what it does not hold is inferred from other calls of that time, or assumed,
    and counted as such. Nothing is called, and nothing is written.
    """
    changes = _changes(
        retry=_pairs("--retry", retry, list(RetryChange.model_fields)),
        timeout_ms=_duration_ms("--timeout", timeout),
        deadline_ms=_duration_ms("--deadline", deadline),
        breaker=_pairs("--breaker", breaker, list(BreakerChange.model_fields)),
        capability=_pairs("--capability", capability, list(CapabilityChange.model_fields)),
    )
    from_: datetime | None = None if since is None else instant(since, None, "--since")
    there = await _read(session, Wanted(tenant=session.settings.tenant, calendar=calendar, since=from_))
    limits = bootstrap.make_limits(session.settings)
    found = await _live_again(session, there, changes, limits)
    document = {
        "changes": changes.model_dump(mode="json", exclude_defaults=True),
        "settings_in_force": limits.model_dump(mode="json"),
        "unreadable": there.unreadable,
        **found.model_dump(mode="json"),
    }
    session.answer(document, _shown(found, there.unreadable, limits))
    return ExitCode.DONE


def _changes(**fields: Any) -> Changes:
    changes = parse(Changes, {name: value for name, value in fields.items() if value is not None})
    if changes == Changes():
        raise InvalidFields("say what is to be different: --retry, --timeout, --deadline, --breaker or --capability")
    return changes


def _pairs(option: str, given: Sequence[str] | None, allowed: Sequence[str]) -> dict[str, str]:
    """`name=value,name=value` as a mapping. Raises `InvalidFields` that says which names there are."""
    found: dict[str, str] = {}
    for pair in (part for text in given or () for part in text.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or name not in allowed or not value:
            detail = f"{option} {pair!r}: write name=value; the names are {', '.join(allowed)}"
            raise InvalidFields(detail, (("/" + option.removeprefix("--"), detail),))
        if name in found:
            detail = f"{option}: {name} is given twice"
            raise InvalidFields(detail, (("/" + option.removeprefix("--"), detail),))
        found[name] = value
    return found


def _duration_ms(option: str, given: str | None) -> int | None:
    if given is None:
        return None
    shape = DURATION.fullmatch(given.strip())
    if shape is None:
        detail = f"{option} {given!r}: write a whole number and its unit, such as 500ms, 10s, 5m or 1h"
        raise InvalidFields(detail, (("/" + option.removeprefix("--"), detail),))
    return int(shape[1]) * UNITS_MS[shape[2]]


async def _read(session: Session, wanted: Wanted) -> Recorded:
    async with reading(session) as store:
        with ProgressReport(session, "reading", await store.position()) as progress:
            return await read_recordings(store, wanted, progress.advance)


async def _live_again(session: Session, there: Recorded, changes: Changes, limits: LimitPolicy) -> Report:
    """The control and the changed course, side by side, each in a process of its own."""
    begun = SPAWN.Value("q", 0)
    loop = asyncio.get_running_loop()
    async with processes(2, _share, (begun,)) as pool:
        try:
            courses = asyncio.gather(
                *(
                    loop.run_in_executor(pool, _rerun, there.recordings, there.plans, policy, limits)
                    for policy in (Changes(), changes)
                )
            )
            with ProgressReport(session, "appointments, twice", 2 * len(there.recordings)) as progress:
                while not courses.done():
                    await asyncio.wait((courses,), timeout=LOOK_EVERY_S)
                    progress.advance(by=begun.value - progress.done)
            control, changed = await courses
        finally:
            begun.value = TAKEN_BACK
    return report(there.recordings, control, changed)


_begun: "Synchronized[int]"


def _share(begun: "Synchronized[int]") -> None:
    global _begun
    _begun = begun


def _rerun(recordings: list[Recording], plans: dict[str, SagaPlan], changes: Changes, limits: LimitPolicy) -> Course:
    def tell() -> None:
        with _begun.get_lock():
            if _begun.value == TAKEN_BACK:
                raise InterruptedError("nobody waits for this any more")
            _begun.value += 1

    gc.freeze()  # what was handed over lives as long as this process
    return rerun(recordings, plans, changes, limits, tell)


def _in_force(limits: LimitPolicy) -> str:
    breaker = f"breaker {limits.breaker.failures_max} failures, {limits.breaker.open_ms} ms"
    rate = "no rate" if limits.rate is None else f"{limits.rate:g} a second"
    return f"{breaker}; {limits.concurrency} calls at once, {limits.tenant_concurrency} of a tenant; {rate}"


def _shown(found: Report, unreadable: int, limits: LimitPolicy) -> RenderableType:
    control, answers = found.control, found.answers
    compared = f"{control.equal} of {control.compared} recorded ends come out again under the recorded policies"
    told = ", ".join(f"{answers[source]} {words}" for source, words in SOURCES.items())
    facts = render.pairs(
        (
            ("appointments", str(found.appointments)),
            ("left out", f"{found.unfinished} unfinished, {unreadable} unreadable"),
            ("control", f"{compared}; the others are not judged"),
            ("its limits", f"those of the settings in force, as the log holds none: {_in_force(limits)}"),
            ("would end otherwise", Text(str(found.differing), style="bold")),
            ("answers", told),
            ("commands not legal then", str(found.refused)),
        )
    )
    numbers = render.table("", "recorded", "control", "what if")
    for name, calls in found.calls.items():
        numbers.add_row(Text(f"calls: {name}"), str(calls.recorded), str(calls.control), str(calls.what_if))
    times = found.time_to_end_ms
    for name in ("p50", "p95"):
        numbers.add_row(f"time to end, {name} (ms)", *(str(getattr(times[which], name)) for which in times))
    parts: list[RenderableType] = [facts, Text(""), numbers]
    if found.differing:
        kinds = render.table("how many", "from, to")
        for kind, count in found.by_kind.items():
            kinds.add_row(str(count), Text(kind))
        which = render.table("id", "recorded", "what if")
        for one in found.differences[:SHOWN_MAX]:
            which.add_row(Text(str(one.id)), Text(one.recorded), Text(one.what_if))
        parts += [Text(""), kinds, Text(""), which]
        more = found.differing - SHOWN_MAX
        if more > 0:
            parts.append(Text(f"and {more} more: --json gives all"))
    return Group(*parts)
