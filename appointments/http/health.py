"""Whether the process lives and is ready, and its figures for a scraper.

Asked without a token, they tell of the process alone: of no tenant, no place in the log, no provider and no subscriber.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from fastapi import Request
from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from appointments.http.asking import At, Known
from appointments.http.door import Door
from appointments.http.problems import problem
from appointments.http.routing import router
from appointments.telemetry.process_figures import LogFigures, ProcessFigures
from appointments.telemetry.vitals import together
from domain.errors import AppointmentsError
from projections.figures_openmetrics import CONTENT_TYPE, openmetrics
from store.port import Append

RETRY_AFTER_S = "5"
NOBODY = UUID(int=0)
"""A stream that has no events."""
METRICS = {"content": {CONTENT_TYPE.partition(";")[0]: {"schema": {"type": "string"}}}}

routes = router("health")


@routes.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> Response:
    """The process lives."""
    return PlainTextResponse("alive\n")


@routes.get("/readyz", response_class=PlainTextResponse)
async def readyz(at: At) -> Response:
    """Commands are taken, the store is writable, and the read models are kept up; else which of these fails.

    With shards as long as one of them does: `/metrics` tells of each.
    """
    failed = [name for name, check in CHECKS.items() if not any([await check(one) for one in at.all])]
    if failed:
        name = "stopping" if failed == ["commands"] else "store-unavailable"
        return problem(name, f"not ready: {', '.join(failed)}", headers={"Retry-After": RETRY_AFTER_S})
    return PlainTextResponse("ready\n")


@routes.get("/metrics", response_class=Response, responses={200: METRICS})
async def metrics(at: At, visit: Known, request: Request) -> Response:
    """How this process does, as OpenMetrics; with a token its tenant's figures from the beginning as well.

    With one of the settings' tenant also how the log is, over all tenants and shards.
    """
    house = visit is not None and visit.tenant == at.desk.settings.tenant
    watched_by = sum(one.follower.watched_by for one in at.all)
    process = ProcessFigures([one.desk for one in at.all], request.app.state.took, watched_by)
    told: list[Collector] = [process, ProcessCollector(registry=None)]
    if house:
        looked = {one.desk.settings.shard: await one.desk.vitals() for one in at.all}
        told.insert(0, LogFigures(together(looked)))
    figures = await visit.desk.figures(tenant=visit.tenant) if visit else None
    text = await asyncio.to_thread(openmetrics, figures, *told)
    return Response(text, media_type=CONTENT_TYPE)


async def _takes_commands(at: Door) -> bool:
    return not at.standing.stopping


async def _is_writable(at: Door) -> bool:
    if at.standing.refuses(at.now()):
        return False
    try:
        await at.desk.runtime.store.append(Append(NOBODY, 0, (), touches_work=False))
    except AppointmentsError:
        return False
    return True


async def _keeps_up(at: Door) -> bool:
    try:
        await at.desk.pulse()
    except AppointmentsError:
        return False
    return True


CHECKS: Mapping[str, Callable[[Door], Awaitable[bool]]] = {
    "commands": _takes_commands,
    "store": _is_writable,
    "read-models": _keeps_up,
}
