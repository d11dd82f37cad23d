"""`check`: the whole store walked, and held against what was signed of it."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.checkpoint import key_of
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.settings import Settings
from domain.errors import InvalidFields
from projections.findings import Finding
from projections.health import Health, Runs, health
from projections.read_models import beside_the_log
from projections.views import PROJECTIONS
from saga.clock import WallClock
from saga.membership import run_of
from store.checkpoint import SignedCheckpoint, checkpoints_path, fingerprint, read_checkpoints
from store.port import Store

DETAIL_MAX = 300
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
PASSES = 2
"""Each event is looked at twice: in its place in the log, and in its stream."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "check", "appointments check --checkpoint /media/safe/clinic.checkpoint")(check)


async def check(
    session: Session,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Signed checkpoints that were kept elsewhere, one a line.")
    ] = None,
    signed_by: Annotated[
        list[str] | None,
        typer.Option(help="Fingerprint of a key whose checkpoints count, once for each; else that of this store."),
    ] = None,
) -> ExitCode:
    """Check the store: is the log whole and what was signed, and is nothing overdue, stranded or parked?

    Every event, every digest, every key, every row of open work; every signed checkpoint beside the log, and those of
    --checkpoint. Exit 1 when something is wrong.
    """
    found, keys = await examine(session, checkpoint, signed_by or ())
    session.answer({**found.model_dump(mode="json"), "signed_by": keys}, shown(found, keys))
    return ExitCode.DONE if found.ok else ExitCode.FAILED


async def examine(
    session: Session, checkpoint: Path | None = None, signed_by: Iterable[str] = ()
) -> tuple[Health, list[str]]:
    """What a check finds, and the keys whose checkpoints were held against the log."""
    async with reading(session) as store:
        signed, further = _signed(session.settings, checkpoint, frozenset(signed_by))
        if (log := _log(session.settings)) is not None:
            further += await beside_the_log(store, log.with_name(log.name + ".views"), PROJECTIONS)
        runs, now = await _runs(session.settings, store), WallClock().now()
        with ProgressReport(session, "events looked at", PASSES * await store.position()) as report:
            found = await health(
                store, now, runs, signed=signed, further=further, progress=lambda count: report.advance(by=count)
            )
    return found, sorted({fingerprint(one.public_key) for one in signed})


def _log(settings: Settings) -> Path | None:
    return None if settings.store == "memory:" else bootstrap.store_path(settings)


def _signed(
    settings: Settings, given: Path | None, known: frozenset[str]
) -> tuple[tuple[SignedCheckpoint, ...], tuple[Finding, ...]]:
    """The checkpoints to hold the log against, and what is wrong with the others.

    `known`: whose count; nobody named: of our key, and where that is not here, of all, each under the key in it.
    """
    if strange := [one for one in known if not FINGERPRINT.fullmatch(one)]:
        raise InvalidFields(f"--signed-by takes a fingerprint, 64 hexadecimal digits, not {strange[0]!r}")
    found = list(_lines(settings, given))
    signed = [one for one in found if isinstance(one, SignedCheckpoint)]
    faults = [one for one in found if isinstance(one, str)]
    signers = {fingerprint(one.public_key) for one in signed}
    for other in sorted(signers - (known or _ours(settings) or signers)):
        positions = ", ".join(str(one.position) for one in signed if fingerprint(one.public_key) == other)
        faults.append(
            f"signed by a key that is not known here, {other}, which proves nothing (if it is one of yours, name all"
            f" of yours with --signed-by): the checkpoints at positions {positions}"
        )
        signed = [one for one in signed if fingerprint(one.public_key) != other]
    faults += [f"no checkpoint was signed by the key {one}" for one in sorted(known - signers)]
    return tuple(signed), tuple(
        Finding(kind="checkpoint", subject="log", detail=fault[:DETAIL_MAX]) for fault in faults
    )


def _lines(settings: Settings, given: Path | None) -> Iterator[SignedCheckpoint | str]:
    log = _log(settings)
    if log is not None and checkpoints_path(log).exists():
        yield from read_checkpoints(checkpoints_path(log))
    if given is not None:
        yield from read_checkpoints(given)


def _ours(settings: Settings) -> frozenset[str]:
    found = None if settings.store == "memory:" else key_of(settings, make=False)
    return frozenset() if found is None else frozenset((fingerprint(found.public_key),))


async def _runs(settings: Settings, store: Store) -> frozenset[Runs]:
    """What those at work carry out; where nobody is, what a process under these settings can."""
    if told := frozenset(run_of(run) for one in await store.workers() for run in one.runs):
        return told
    notify, notifier = bootstrap.make_notify(settings)
    if notifier is not None:
        await notifier.close()
    saga = bootstrap.booking_saga(settings, notify)
    return frozenset({(saga.name, saga.version, settings.provider_name)})


def shown(found: Health, keys: list[str]) -> RenderableType:
    """The verdict, the counts, and each finding."""
    verdict = Text("yes", style="green") if found.ok else Text("no", style="red")
    signed = f"up to position {found.signed_until}, in {found.checkpoints} checkpoints" if found.checkpoints else "no"
    facts = render.pairs(
        (
            ("all well", verdict),
            ("events", str(found.events)),
            ("appointments", str(found.appointments)),
            ("unfinished", str(found.unfinished)),
            ("parked", str(found.parked)),
            ("signed", signed),
            ("by the key", ", ".join(keys)),
        )
    )
    if not found.findings:
        return facts
    made = render.table("kind", "subject", "detail")
    for finding in found.findings:
        made.add_row(Text(finding.kind), Text(finding.subject), Text(finding.detail))
    more = found.findings_total - len(found.findings)
    return Group(facts, Text(""), made, Text(f"and {more} more" if more else ""))
