"""Whether the process lives and is ready, and its figures for a scraper. Asked without a token, they tell of nobody."""

import asyncio
from uuid import UUID

from fastapi import Request
from prometheus_client import ProcessCollector
from starlette.responses import PlainTextResponse, Response

from appointments.http.asking import At
from appointments.http.problems import Refusal, problem
from appointments.http.routing import router
from appointments.telemetry.process_figures import ProcessFigures
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
    """Commands are taken, the store is writable, and the read models are kept up."""
    if at.standing.stopping:
        raise Refusal("stopping", "this process takes no new commands", {"Retry-After": RETRY_AFTER_S})
    if at.standing.refuses(at.now()):
        raise Refusal("store-unavailable", "the store has just refused a write", {"Retry-After": RETRY_AFTER_S})
    try:
        await at.desk.runtime.store.append(Append(NOBODY, 0, (), touches_work=False))
        pulse = await at.desk.pulse()
    except AppointmentsError as fault:
        return problem("store-unavailable", f"not ready: {fault}", headers={"Retry-After": RETRY_AFTER_S})
    return PlainTextResponse(f"ready, at position {pulse.position}\n")


@routes.get("/metrics", response_class=Response, responses={200: METRICS})
async def metrics(at: At, request: Request) -> Response:
    """The figures of the settings' tenant, from the beginning, and how this process does, as OpenMetrics."""
    looked = await at.desk.vitals()
    figures = await at.desk.figures()
    process = ProcessFigures(at.desk, looked, request.app.state.took, at.follower.watched_by)
    text = await asyncio.to_thread(openmetrics, figures, process, ProcessCollector(registry=None))
    return Response(text, media_type=CONTENT_TYPE)
