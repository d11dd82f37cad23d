"""The scripts in force: which one acts on a call, and how far each has come."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from typing import Any
from uuid import uuid4

from mocks.behaviors import Behavior, FailThenSucceed, Op, StuckLocked
from mocks.faults import Script


@dataclass
class _Running:
    id: str
    script: Script
    random: Random
    matched: int = 0
    used: int = 0
    failures: dict[tuple[int, str | None], int] = field(default_factory=dict)
    """Failures still to come, by turn and client reference; at zero that reference succeeds for good."""

    def matches(self, op: Op, client_ref: str | None, calendar_id: str | None) -> bool:
        match = self.script.match
        return (
            match.op in (None, op)
            and (match.client_ref is None or fnmatchcase(client_ref or "", match.client_ref))
            and (match.calendar_id is None or match.calendar_id == calendar_id)
        )

    def act(self, op: Op, client_ref: str | None) -> Behavior | None:
        turns = self.script.turns
        for turn, behavior in enumerate(turns):
            if isinstance(behavior, FailThenSucceed) and self.failures.get((turn, client_ref), 0) > 0:
                self.failures[(turn, client_ref)] -= 1
                return behavior
        turn = self.used % len(turns)
        behavior = turns[turn]
        if op not in behavior.ops() or self.matched < self.script.match.nth:
            return None
        locked = isinstance(behavior, StuckLocked) and self.used > 0
        if not locked and self.script.limit != -1 and self.used >= self.script.limit:
            return None
        if isinstance(behavior, FailThenSucceed):
            if (turn, client_ref) in self.failures and len(turns) == 1:
                return None
            self.failures[(turn, client_ref)] = behavior.failures - 1
        self.used += 1
        return behavior


@dataclass(frozen=True)
class Turn:
    """What a script says about one call; `random` is the script's own, from its seed."""

    behavior: Behavior
    random: Random


class Scripts:
    """All scripts in force, first come first asked."""

    def __init__(self) -> None:
        self._running: list[_Running] = []

    def add(self, scripts: Iterable[Script]) -> list[str]:
        """Put scripts in force; answers their ids."""
        added = [_Running(f"scr_{uuid4().hex[:12]}", script, Random(script.seed)) for script in scripts]
        self._running.extend(added)
        return [running.id for running in added]

    def clear(self) -> None:
        """Take all scripts out of force."""
        self._running.clear()

    def pick(self, op: Op, client_ref: str | None, calendar_id: str | None) -> Turn | None:
        """The behaviour of the first script that acts on this call; None: nothing special."""
        for running in self._running:
            if not running.matches(op, client_ref, calendar_id):
                continue
            running.matched += 1
            behavior = running.act(op, client_ref)
            if behavior is not None:
                return Turn(behavior, running.random)
        return None

    def show(self) -> list[dict[str, Any]]:
        """The scripts in force as plain data, with how often each matched and acted."""
        return [
            {
                "id": running.id,
                "matched": running.matched,
                "used": running.used,
                "script": running.script.model_dump(mode="json", exclude_unset=True),
            }
            for running in self._running
        ]
