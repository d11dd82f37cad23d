"""The guarantees, judged from the log and from the services' own books. Each violation names its guarantee."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment
from domain.commands import OperatorAction
from domain.errors import HistoryError
from domain.evolve import evolve
from domain.lifecycle import ENDED, SETTLED, State
from domain.provider import BookingStatus
from saga.replay import replay
from simulation.faulty_store import at_once
from simulation.world import World
from store.mapper import decode
from store.port import RecordedEvent

CALLS_PER_SECOND_MAX = 20
"""Of one operation for one appointment, crashes and duplicates included; a loop without a pause makes hundreds."""


@dataclass
class Evidence:
    """The log, decoded once."""

    world: World
    log: list[RecordedEvent] = field(default_factory=list)
    streams: dict[UUID, list[e.Event]] = field(default_factory=dict)
    states: dict[UUID, Appointment] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, world: World) -> "Evidence":
        """Read and fold what is durable."""
        self = cls(world, list(at_once(world.medium.log(limit=1_000_000))))
        for recorded in self.log:
            event = decode(recorded)
            if isinstance(event, e.OUTSIDE_APPOINTMENTS):
                continue
            self.streams.setdefault(recorded.stream_id, []).append(event)
            state = self.states.get(recorded.stream_id) or Appointment(recorded.stream_id)
            try:
                self.states[recorded.stream_id] = evolve(state, event)
            except HistoryError as fault:
                self.broken.append(f"{recorded.stream_id} version {recorded.version}: {fault}")
        return self


def violations(world: World) -> list[str]:
    """Everything that is wrong, each line beginning with the guarantee's name."""
    evidence = Evidence.of(world)
    found: list[str] = [f"FAULT {fault}" for fault in world.faults]
    for name, check in CHECKS.items():
        found += [f"{name} {text}" for text in check(evidence)]
    return found


def _acknowledged(seen: Evidence) -> Iterator[str]:
    for told in seen.world.acknowledged:
        stream = seen.streams.get(told.ask.appointment, [])
        if not any(isinstance(event, e.CommandFact) and event.key == told.ask.request.key for event in stream):
            yield f"{told.ask.request.key} was acknowledged at {told.at_s:.3f}s and is not in the log"


def _net_effect(seen: Evidence) -> Iterator[str]:
    world = seen.world
    for name, faults in (("calendar", world.provider.ledger.faults), ("deposit", world.deposit.books.faults)):
        for ref, fault in faults:
            if name not in _by_hand(seen.streams.get(UUID(ref), [])):
                yield f"{ref} {fault}"
    for id, state in seen.states.items():
        if state.parked or state.state not in SETTLED:
            continue
        ref = str(id)
        live = world.provider.ledger.live(ref)
        by_hand = _by_hand(seen.streams[id])
        if "calendar" not in by_hand:
            if state.state is State.CONFIRMED:
                assert state.details is not None
                there = [(record.status, record.start, record.end) for record in live]
                if there != [(BookingStatus.ACCEPTED, state.details.start, state.details.end)]:
                    yield f"{ref} is confirmed for {state.details.start}, and there: {there}"
            elif live:
                yield f"{ref} is {state.state}, and there: {[record.booking() for record in live]}"
        if "deposit" not in by_hand and any(step.name == "deposit" for step in world.plan.steps):
            held = world.deposit.books.held.get(ref, 0)
            imported = isinstance(seen.streams[id][0], e.AppointmentImported)
            if held != (state.state is State.CONFIRMED and not imported):
                yield f"{ref} is {state.state}, and {held} deposits are held"
    for ref in world.provider.ledger.by_ref:
        if UUID(ref) not in seen.states and ref not in world.provider.ledger.foreign.values():
            yield f"{ref} was booked, and nobody here knows of it"


def _by_hand(stream: list[e.Event]) -> set[str]:
    """Steps that an operator has answered for: nobody else can say what was done there."""
    steps: set[str] = set()
    stopped = ""
    for event in stream:
        match event:
            case e.AppointmentParked() if "neither be repeated safely" in event.reason:
                stopped = event.reason.partition(":")[0]
            case e.OperatorActed(action=OperatorAction.FORCE_COMPLETE):
                return {"calendar", "deposit"}
            case e.OperatorActed(action=OperatorAction.SKIP):
                steps.add(event.step or "")
            case e.OperatorActed(action=OperatorAction.RETRY) if stopped:
                steps.add(stopped)
    return steps


def _versions(seen: Evidence) -> Iterator[str]:
    versions: Counter[UUID] = Counter()
    for place, recorded in enumerate(seen.log, 1):
        versions[recorded.stream_id] += 1
        if recorded.version != versions[recorded.stream_id]:
            yield f"{recorded.stream_id} goes from {versions[recorded.stream_id] - 1} to {recorded.version}"
        if recorded.position != place:
            yield f"position {recorded.position} stands at place {place}"
    yield from seen.broken


def _followers(seen: Evidence) -> Iterator[str]:
    followed = seen.world.followed + list(at_once(seen.world.medium.log(len(seen.world.followed), 1_000_000)))
    if followed != seen.log:
        yield f"a follower saw {len(followed)} events of {len(seen.log)}, or in another order"
    for cached in seen.world.remembered():
        if cached != seen.states.get(cached.id):
            yield f"{cached.id}: the runtime's state is not the fold of the log"


def _keys(seen: Evidence) -> Iterator[str]:
    keys: Counter[tuple[UUID, str]] = Counter()
    for id, stream in seen.streams.items():
        if sum(isinstance(event, e.Beginning) for event in stream) != 1:
            yield f"{id} began more than once"
        keys.update((id, event.key) for event in stream if isinstance(event, e.CommandFact) and event.key)
        hooks = Counter(event.webhook_id for event in stream if isinstance(event, e.CallbackReceived))
        keys.update({(id, hook): count for hook, count in hooks.items()})
    yield from (f"{id}: {key} was acted on {count} times" for (id, key), count in keys.items() if count > 1)


def _progress(seen: Evidence) -> Iterator[str]:
    world, now = seen.world, seen.world.clock.now()
    for id, state in seen.states.items():
        row = at_once(world.medium.work(id))
        if state.parked:
            if row is None or not row.parked:
                yield f"{id} is parked and not listed"
        elif state.state not in SETTLED:
            due = row.due_at if row else None
            yield f"{id} is still {state.state} ({_steps(state)}), due {due}, now {now}"
        elif row is not None:
            yield f"{id} is {state.state} and still has open work"
    canary = seen.states.get(world.canary)
    if canary is None or canary.state is not State.CONFIRMED:
        yield f"the canary, asked for when all was well again, is {canary and (canary.state, canary.reason)}"


def _steps(state: Appointment) -> str:
    return ", ".join(f"{step.name} {step.progress}" for step in (*state.actions, *state.undos))


def _replay(seen: Evidence) -> Iterator[str]:
    recorded: dict[UUID, list[RecordedEvent]] = {}
    for event in seen.log:
        recorded.setdefault(event.stream_id, []).append(event)
    for id, stream in seen.streams.items():
        plan = seen.world.plan_of(seen.states[id].definition)
        for divergence in replay(recorded[id], plan, seen.world.held_at(id)).divergences:
            yield f"{id} after {stream[divergence.version - 2].at:%H:%M:%S.%f}: {divergence!r}"
    at: dict[UUID, int] = {}
    for stream_id, version, count in seen.world.commits:
        events = seen.streams.get(stream_id)
        if events is not None:
            if len({event.at for event in events[version - 1 : version - 1 + count]}) != 1:
                yield f"{stream_id} version {version}: one turn has two instants"
            at[stream_id] = version


def _operations(seen: Evidence) -> Iterator[str]:
    ids: dict[tuple[str, str], set[str]] = {}
    for sent in seen.world.sent:
        if sent.operation in ("create", "cancel", "reschedule", "hold", "release", "tell"):
            ids.setdefault((sent.client_ref, sent.operation), set()).add(sent.operation_id)
    for (ref, operation), used in ids.items():
        stream = seen.streams.get(UUID(ref), [])
        rebookings = sum(isinstance(event, e.RebookingRequested) for event in stream)
        rounds = rebookings + sum(isinstance(event, e.RescheduleRequested | e.LateSuccess) for event in stream)
        allowed = (
            1
            if operation in ("hold", "tell")
            else 1 + rebookings
            if operation == "create"
            else max(rounds, 1)
            if operation == "reschedule"
            else 1 + rounds
        )
        if len(used) > allowed:
            yield f"{ref}: {operation} went out under {len(used)} operation ids"


def _deadlines(seen: Evidence) -> Iterator[str]:
    for id, stream in seen.streams.items():
        first = stream[0]
        moves = {e.Operation.ACTION: getattr(first, "deadline_at", first.at)}
        for event in stream:
            if isinstance(event, e.RebookingRequested):
                moves[e.Operation.ACTION] = event.deadline_at
            deadline_at = moves[e.Operation.ACTION]
            if isinstance(event, e.AppointmentConfirmed) and not event.forced and event.at >= deadline_at:
                yield f"{id} was confirmed after its deadline"
            if isinstance(event, e.RescheduleRequested):
                moves[e.Operation.RESCHEDULE] = event.deadline_at
            if isinstance(event, e.StepStarted) and event.operation in moves:
                left = moves[event.operation] - event.at
                if timedelta(milliseconds=event.timeout_ms) > max(left, timedelta(milliseconds=1)):
                    yield f"{id}: {event.step} got {event.timeout_ms} ms with {left} left"
                if event.operation is e.Operation.ACTION and left <= timedelta(0):
                    yield f"{id} was tried again after its deadline"
        ended = [place for place, event in enumerate(stream) if isinstance(event, e.AppointmentFailed)]
        if ended and seen.states[id].state in ENDED and seen.states[id].reason is None:
            yield f"{id} ended without a reason"


def _pace(seen: Evidence) -> Iterator[str]:
    calls = Counter((sent.client_ref, sent.operation, int(sent.at_s)) for sent in seen.world.sent)
    for (ref, operation, second), count in calls.items():
        if count > CALLS_PER_SECOND_MAX:
            yield f"{ref}: {count} times {operation} in second {second}"


CHECKS = {
    "G1": _acknowledged,
    "G2": _net_effect,
    "G3": _versions,
    "G4": _followers,
    "G5": _keys,
    "G6": _progress,
    "G7": _replay,
    "OPERATIONS": _operations,
    "DEADLINE": _deadlines,
    "PACE": _pace,
}
