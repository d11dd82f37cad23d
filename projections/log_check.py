"""The whole log in order of position: has it no gap, and is it what was signed?"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from domain.definition import SagaPlan
from domain.errors import HistoryError
from domain.events import DefinitionRegistered
from projections.findings import Findings
from store.checkpoint import SignedCheckpoint
from store.mapper import decode
from store.merkle import Tree, leaf_of
from store.port import RecordedEvent, Store

PAGE = 1_000
UNREADABLE = (HistoryError, ValueError, TypeError, AttributeError, OverflowError)
"""What a row raises that no program of ours has written."""

Progress = Callable[[int], None]
"""Called with the number of events that were just looked at."""


@dataclass(slots=True)
class LogWalk:
    """What a walk over the log has come to."""

    events: int = 0
    plans: dict[str, SagaPlan] = field(default_factory=dict)
    """Definitions by their digests."""
    log: str = ""
    """The log's identity: the leaf of its first event."""
    signed_until: int = 0
    """The position up to which it is what was signed."""
    signed_wrong: bool = False


async def walk_log(
    store: Store, goal: int, signed: Sequence[SignedCheckpoint], findings: Findings, progress: Progress
) -> LogWalk:
    """Walk up to position `goal`; hold it against these checkpoints, which are genuine."""
    walk, tree, last = LogWalk(), Tree(), 0
    due = sorted(signed, key=lambda one: one.position, reverse=True)
    try:
        async for batch in _pages(store, goal):
            for event in batch:
                if event.position != last + 1:
                    findings.add("gap", "log", f"positions {last + 1} to {event.position - 1} are missing")
                while due and due[-1].position < event.position:
                    _compare(due.pop(), tree, walk, findings)
                tree.add(leaf_of(event))
                walk.log = walk.log or tree.root.hex()
                last = event.position
                if event.type == DefinitionRegistered.type:
                    _keep_plan(event, walk)
            walk.events = tree.size
            progress(len(batch))
    except UNREADABLE as fault:
        findings.add("undecodable", "log", f"it cannot be read beyond position {last}: {fault}"[:300])
    for one in reversed(due):
        if one.position <= last:
            _compare(one, tree, walk, findings)
        else:
            findings.add("cut_off", "log", f"it was signed up to position {one.position}, and ends at {last}")
            break
    return walk


def _compare(signed: SignedCheckpoint, tree: Tree, walk: LogWalk, findings: Findings) -> None:
    """Hold the tree as it is at a checkpoint's position against it; after the first that is wrong, all are."""
    if walk.signed_wrong:
        return
    if signed.position == tree.size and signed.root == tree.root.hex():
        walk.signed_until = signed.position
        return
    walk.signed_wrong = True
    if not walk.signed_until and signed.log != walk.log:
        findings.add("changed", "log", f"its first event is not that of the log signed at position {signed.position}")
        return
    where = f"positions {walk.signed_until + 1} to {signed.position}"
    findings.add("changed", "log", f"{where} hold what was not there when the log was signed on {signed.at}")


def _keep_plan(event: RecordedEvent, walk: LogWalk) -> None:
    try:
        fact = decode(event)
        assert isinstance(fact, DefinitionRegistered)
        walk.plans[fact.digest] = SagaPlan.model_validate(fact.plan)
    except (HistoryError, ValidationError):
        return  # told with its stream


async def _pages(store: Store, goal: int) -> AsyncIterator[Sequence[RecordedEvent]]:
    """The log page by page, up to the last row that can be read; then raises what the next one raises."""
    after, limit = 0, PAGE
    while after < goal:
        try:
            batch = await store.log(after, min(limit, goal - after))
        except UNREADABLE:
            if limit == 1:
                raise
            limit //= 2
            continue
        if not batch:
            return
        yield batch
        after = batch[-1].position
