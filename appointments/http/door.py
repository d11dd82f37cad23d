"""What every route stands on; made once for each desk of an application."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appointments.access.access import Access
from appointments.callbacks import Receiver
from appointments.http.dead_letters import DeadLetters, LetterBox
from appointments.http.follower import Follower
from appointments.http.reports import Reports
from appointments.http.standing import Standing
from appointments.orchestrator import Orchestrator


@dataclass(frozen=True, slots=True)
class Door:
    """The desk of a store, who may use it, and what this process keeps of its own."""

    desk: Orchestrator
    access: Access
    standing: Standing
    now: Callable[[], datetime]
    follower: Follower
    reports: Reports
    letters: LetterBox
    receiver: Receiver | None
    """Of callbacks; None without a secret."""
    all: "list[Door]"
    """Those of all shards, with this one."""

    def of(self, tenant: str) -> "Door":
        """That of the shard that keeps a tenant."""
        return self.shard(self.desk.settings.keeps(tenant))

    def shard(self, name: str | None) -> "Door":
        """That of a shard; this one where there is none of that name."""
        return next((one for one in self.all if one.desk.settings.shard == name), self)

    async def dead_letters(self, tenant: str) -> DeadLetters:
        """Those of a tenant; that of the settings is told what is nobody's in every shard."""
        found = await self.letters.of(tenant)
        if tenant == self.desk.settings.tenant:
            for one in self.all:
                found = found if one is self else found.and_also(await one.letters.of(tenant))
        return found
