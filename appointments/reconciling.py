"""What a reconciliation needs beside its two sides: where bookmarks are kept, and how a plan becomes commands."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal
from uuid import UUID

from appointments import bootstrap
from appointments.settings import Settings
from appointments.views import Appointment
from domain.commands import Act, Repair
from domain.errors import CommandRefused, HistoryError, IllegalTransition
from domain.lifecycle import Phase
from domain.provider import Value
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.calendar import Unsure
from projections.reconciliation.healing import Cure
from projections.reconciliation.intended import Scope
from projections.reconciliation.run import still_there
from projections.reconciliation.survey import Sides

CHANGED = "the calendar has changed since it was compared; reconcile again"
AT_ONCE = 16
"""Commands that are given at once."""

Give = Callable[[Cure], Awaitable[Appointment]]


class Healed(Value):
    """One command of a plan, and what came of it."""

    appointment: UUID
    command: str
    """adopt | restore | park | remove | retry."""
    reason: str
    key: str
    outcome: Literal["planned", "given", "repeated", "refused", "failed"]
    """`repeated`: it was given before, and nothing was done now. `failed`: given, and not mended by it."""
    detail: str = ""
    """The state that it came to, or why not."""

    @property
    def well(self) -> bool:
        """It was given, and mends or may yet mend."""
        return self.outcome in ("given", "repeated")


def bookmarks(settings: Settings) -> Bookmarks | None:
    """Beside the log that the settings name; a log in memory has none."""
    if settings.store == "memory:":
        return None
    log = bootstrap.store_path(settings)
    return Bookmarks(log.with_name(f"{log.name}.views") / "reconciliation.json")


async def check(cure: Cure, sides: Sides, scope: Scope) -> None:
    """Raise `IllegalTransition` unless the calendar still shows what the command was planned for.

    A retry looks by itself, whatever is there.
    """
    if sides.provider.name != scope.provider:
        raise IllegalTransition(f"what was compared is kept by {scope.provider}, not by {sides.provider.name}")
    if isinstance(cure.command, Act):
        return
    try:
        still = await still_there(sides, scope, cure)
    except Unsure as fault:
        raise IllegalTransition(f"the calendar cannot be read now: {fault}") from None
    if not still:
        raise IllegalTransition(CHANGED)


async def give_all(cures: Sequence[Cure], give: Give, told: Callable[[str, int, int], None]) -> tuple[Healed, ...]:
    """Give every command of a plan; one that is refused keeps no other from being given."""
    healed: dict[int, Healed] = {}
    waiting = iter(enumerate(cures))

    async def work() -> None:
        for place, cure in waiting:
            healed[place] = await _given(cure, give)
            told("healing", len(healed), len(cures))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(cures))):
            group.create_task(work())
    return tuple(healed[place] for place in range(len(cures)))


def planned(cure: Cure, outcome: str = "planned", detail: str = "") -> Healed:
    """A command of a plan, as what came of it is told."""
    return Healed.model_validate(
        {
            "appointment": cure.appointment,
            "command": cure.word,
            "reason": cure.reason,
            "key": cure.key,
            "outcome": outcome,
            "detail": detail,
        }
    )


async def _given(cure: Cure, give: Give) -> Healed:
    try:
        seen = await give(cure)
    except CommandRefused as refused:
        return planned(cure, "refused", refused.detail)
    except HistoryError:
        return planned(cure, "failed", "its history cannot be read")
    going_on = ", still in progress" if seen.phase is Phase.IN_PROGRESS and not seen.parked else ""
    reason = f": {seen.reason}" if seen.phase is Phase.FAILED else ""
    state = f"{seen.state}{', parked' if seen.parked else ''}{going_on}{reason}"
    lost = cure.word == Repair.RESTORE and seen.phase is Phase.FAILED
    if lost or (seen.parked and cure.word != Repair.PARK):
        return planned(cure, "failed", state)
    return planned(cure, "repeated" if seen.replayed else "given", state)
