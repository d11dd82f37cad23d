"""Work that takes longer than a page: begun by one request, looked at by others. It ends with this process."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from appointments.access.roles import Permission
from appointments.console import room
from domain.errors import AppointmentsError

JOBS_OF_TENANT_MAX = 50
JOBS_MAX = 500


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one appointment: in a word with its tone (good, warn, bad or none), and in a sentence."""

    appointment: UUID | None
    outcome: str
    tone: str
    told: str = ""


@dataclass
class Job:
    """One piece of work of a tenant, while it goes on and afterwards."""

    tenant: str
    needs: Permission
    """What one has to be permitted to look at it."""
    title: str
    back: str
    """The page to go on from."""
    id: int = 0
    of: int = 0
    done: int = 0
    doing: str = ""
    ended: bool = False
    fault: str = ""
    leads_to: str = ""
    """The page that shows its result, where that is another."""
    rows: list[Row] = field(default_factory=list)

    def tell(self, doing: str, done: int, of: int) -> None:
        """So far it is."""
        self.doing, self.done, self.of = doing, done, of


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """The jobs of this process; the last ones of each tenant can be looked at."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, job: Job, work: Work) -> Job:
        """Begin; it goes on by itself."""
        job.id = next(self._numbers)
        room.keep(self._jobs, job.id, job, JOBS_OF_TENANT_MAX, JOBS_MAX)
        task = asyncio.get_running_loop().create_task(_run(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, id: int, tenant: str) -> Job | None:
        """One of this tenant's."""
        job = self._jobs.get(id)
        return job if job is not None and job.tenant == tenant else None

    async def finished(self) -> None:
        """Wait until nothing goes on."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop; what was asked for is durable."""
        for task in self._tasks:
            task.cancel()
        await self.finished()


async def _run(job: Job, work: Work) -> None:
    try:
        await work(job)
    except AppointmentsError as fault:
        job.fault = str(fault)
    except Exception as fault:
        job.fault = "a fault on this side; it was written to the log of this process"
        asyncio.get_running_loop().call_exception_handler({"message": f"{job.title} failed", "exception": fault})
    finally:
        job.ended = True
