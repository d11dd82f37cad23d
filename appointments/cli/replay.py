"""`replay`: decide again and compare, for one appointment or for the whole store; a large one in several processes."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.processes import processes
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading, uuid
from appointments.cli.session import Session
from appointments.settings import Settings
from domain.errors import InvalidFields
from domain.provider import Value
from saga.audit import Auditor
from saga.replay import BrokenAt, Divergence, Replay

ALONE_MAX = 20_000
"""Events up to which further processes take longer to start than they save."""
PARTS = 64
"""A store is replayed in so many ranges of stream ids."""
SHOWN_MAX = 100
"""Streams that are told of in full, in each range and in the whole."""


class Verdict(Value):
    """What a replay of many streams has found; `wrong` holds the first of those that are not as they should be."""

    streams: int = 0
    events: int = 0
    decisions: int = 0
    diverging: int = 0
    """Streams with a decision that does not follow, or with what cannot be read."""
    broken_chains: int = 0
    wrong: tuple[Replay, ...] = ()

    @property
    def ok(self) -> bool:
        """Every decision of every stream follows, and nothing was changed since."""
        return not self.diverging and not self.broken_chains

    def and_(self, more: "Verdict") -> "Verdict":
        """Both together."""
        return Verdict(
            streams=self.streams + more.streams,
            events=self.events + more.events,
            decisions=self.decisions + more.decisions,
            diverging=self.diverging + more.diverging,
            broken_chains=self.broken_chains + more.broken_chains,
            wrong=(*self.wrong, *more.wrong)[:SHOWN_MAX],
        )


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "replay", "appointments replay 0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11")(replay)


async def replay(
    session: Session,
    id: Annotated[str | None, typer.Argument(help="The appointment's id.", metavar="[ID]")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every stream of the store, whoever's it is.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="With --all: how many at once; default: as many as processors.")
    ] = None,
) -> ExitCode:
    """Decide again what was decided, and compare with the record. Exit 1 when anything is not as it should be."""
    if (id is None) != everything:
        raise InvalidFields("give the id of an appointment, or --all", (("/id", "an id, or --all"),))
    if id is not None:
        async with reading(session) as store:
            one = await Auditor(store).replay(uuid(id), session.settings.tenant)
        session.answer(one.model_dump(mode="json"), _one(one))
        return ExitCode.DONE if one.ok else ExitCode.FAILED
    found = await _whole_store(session, processes or os.cpu_count() or 1)
    session.answer({"ok": found.ok, **found.model_dump(mode="json")}, _many(found))
    return ExitCode.DONE if found.ok else ExitCode.FAILED


async def _whole_store(session: Session, processes: int) -> Verdict:
    async with reading(session) as store:
        events = await store.position()
    alone = processes == 1 or events <= ALONE_MAX
    verdicts = _here(session.settings) if alone else _side_by_side(session.settings, processes)
    found = Verdict()
    with ProgressReport(session, "replay", events) as progress:
        async with aclosing(verdicts):
            async for part in verdicts:
                found = found.and_(part)
                progress.advance(f"{found.diverging} diverge" if found.diverging else "", part.events)
    return found


async def _here(settings: Settings) -> AsyncGenerator[Verdict]:
    for part in _ranges():
        yield await replay_range(settings, *part)


async def _side_by_side(settings: Settings, count: int) -> AsyncGenerator[Verdict]:
    loop = asyncio.get_running_loop()
    async with processes(count) as pool:
        for part in asyncio.as_completed(
            [loop.run_in_executor(pool, _replay_range, settings, *part) for part in _ranges()]
        ):
            yield await part


def _ranges() -> list[tuple[UUID | None, UUID]]:
    """Ids are hashes, so that equal ranges hold about as much."""
    step = 2**128 // PARTS
    ends = [UUID(int=step * number - 1) for number in range(1, PARTS + 1)]
    return list(zip([None, *ends[:-1]], ends, strict=True))


def _replay_range(settings: Settings, after: UUID | None, until: UUID) -> Verdict:
    return asyncio.run(replay_range(settings, after, until))


async def replay_range(settings: Settings, after: UUID | None, until: UUID) -> Verdict:
    """Replay the streams of a range of ids, one after the other."""
    store = await bootstrap.open_store(settings, read_only=True)
    streams = events = decisions = diverging = broken = 0
    wrong: list[Replay] = []
    try:
        async for one in Auditor(store).replay_all(after, until):
            streams, events, decisions = streams + 1, events + one.events, decisions + one.decisions
            diverging += not one.matches
            broken += one.chain != "ok"
            if not one.ok and len(wrong) < SHOWN_MAX:
                wrong.append(one)
    finally:
        await store.close()
    return Verdict(
        streams=streams,
        events=events,
        decisions=decisions,
        diverging=diverging,
        broken_chains=broken,
        wrong=tuple(wrong),
    )


def _one(found: Replay) -> RenderableType:
    chain = f"broken from version {found.chain.broken_at} on" if isinstance(found.chain, BrokenAt) else "whole"
    facts = render.pairs(
        (
            ("appointment", found.appointment),
            ("events", str(found.events)),
            ("decisions compared", str(found.decisions)),
            ("decisions follow", _yes_or_no(found.matches)),
            ("hash chain", Text(chain, style="green" if found.chain == "ok" else "bold red")),
        )
    )
    return Group(facts, Text(""), _divergences(found.divergences)) if found.divergences else facts


def _many(found: Verdict) -> RenderableType:
    facts = render.pairs(
        (
            ("streams", str(found.streams)),
            ("events", str(found.events)),
            ("decisions compared", str(found.decisions)),
            ("all as it should be", _yes_or_no(found.ok)),
            ("streams that diverge", str(found.diverging)),
            ("broken hash chains", str(found.broken_chains)),
        )
    )
    if found.ok:
        return facts
    made = render.table("stream", "version", "what is wrong")
    for one in found.wrong:
        for divergence in one.divergences[:1]:
            made.add_row(Text(str(one.appointment)), Text(str(divergence.version)), Text(divergence.detail))
        if isinstance(one.chain, BrokenAt):
            made.add_row(Text(str(one.appointment)), Text(str(one.chain.broken_at)), Text("the hash chain is broken"))
    more = found.diverging + found.broken_chains - made.row_count
    told = f"and more; each in full: appointments replay ID ({more} further findings)" if more > 0 else ""
    return Group(facts, Text(""), made, Text(told))


def _divergences(divergences: Sequence[Divergence]) -> RenderableType:
    made = render.table("version", "what is wrong", "decided again", "recorded")
    for one in divergences:
        cells = (str(one.version), one.detail, _event(one.expected), _event(one.found))
        made.add_row(*map(Text, cells))
    return made


def _event(fields: dict[str, object] | None) -> str:
    return "" if fields is None else ", ".join(f"{name}={value}" for name, value in fields.items())


def _yes_or_no(right: bool) -> Text:
    return Text("yes", style="green") if right else Text("no", style="bold red")
