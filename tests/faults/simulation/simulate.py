"""Run a seed: live through it, judge it, tell it."""

import hashlib
from dataclasses import dataclass

from saga.virtual_time import run
from simulation.checks import violations
from simulation.faulty_store import FaultyStore, at_once
from simulation.workers import SharedStore, Workers
from simulation.world import World
from store.mapper import decode
from store.port import RecordedEvent

HISTORY_LINES_MAX = 400


@dataclass(frozen=True)
class Run:
    """What came of a seed."""

    seed: int
    violations: tuple[str, ...]
    log: bytes
    world: World

    @property
    def digest(self) -> str:
        """The log in short."""
        return hashlib.sha256(self.log).hexdigest()[:16]


def simulate(seed: int, store_type: type[FaultyStore] = FaultyStore) -> Run:
    """Live through a seed."""
    return _lived(World(seed, store_type))


def simulate_workers(seed: int, store_type: type[FaultyStore] = SharedStore) -> Run:
    """Live through a seed with several workers on one store."""
    return _lived(Workers(seed, store_type))


def _lived(world: World) -> Run:
    run(world.live(), world.loop)
    return Run(world.seed, tuple(violations(world)), log_bytes(world), world)


def log_bytes(world: World) -> bytes:
    """The whole log, byte for byte."""
    return b"\n".join(map(_line, at_once(world.medium.log(limit=1_000_000))))


def _line(event: RecordedEvent) -> bytes:
    return b"%d %s %d %s %s" % (
        event.position,
        event.stream_id.hex.encode(),
        event.version,
        event.type.encode(),
        event.body,
    )


def history(run: Run, appointment: str = "") -> str:
    """A readable account: what was asked, called, stored and booked, in order of time."""
    world = run.world
    lines = list(world.story) + world.provider.ledger.story + world.deposit.books.story
    start = world.clock.now().timestamp() - world.loop.time()
    for recorded in at_once(world.medium.log(limit=1_000_000)):
        event = decode(recorded)
        what = event.model_dump(mode="json", exclude_defaults=True, exclude={"at", "details", "plan", "fingerprint"})
        at_s = event.at.timestamp() - start
        lines.append((at_s, f"log {str(recorded.stream_id)[:8]} v{recorded.version} {recorded.type} {what}"))
    told = [f"{at_s:9.3f}s {text}" for at_s, text in sorted(lines) if appointment[:8] in text]
    able = world.provider.capabilities
    head = [
        f"seed {run.seed}: {len(run.violations)} violations",
        *(f"  {text}" for text in run.violations),
        f"provider: resend={able.resend} lookup={able.lookup} callbacks={able.callbacks} settle={able.settle_ms}ms"
        f" renames={world.provider.manner.renames}",
        f"deposit: idempotent={world.deposit.idempotent} searchable={world.deposit.searchable}",
        f"steps: {[step.name for step in world.plan.steps]}",
    ]
    return "\n".join((*head, *told[:HISTORY_LINES_MAX]))
