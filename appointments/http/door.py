"""What every route stands on; made once for an application."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appointments.access.access import Access
from appointments.callbacks import Receiver
from appointments.http.dead_letters import LetterBox
from appointments.http.follower import Follower
from appointments.http.reports import Reports
from appointments.http.standing import Standing
from appointments.orchestrator import Orchestrator


@dataclass(frozen=True, slots=True)
class Door:
    """The desk, who may use it, and what this process keeps of its own."""

    desk: Orchestrator
    access: Access
    standing: Standing
    now: Callable[[], datetime]
    follower: Follower
    reports: Reports
    letters: LetterBox
    receiver: Receiver | None
    """Of callbacks; None without a secret."""
