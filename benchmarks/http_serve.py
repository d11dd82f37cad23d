"""The two servers that are measured, each in a process of its own: the product, and an empty FastAPI endpoint."""

import argparse
import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from uvicorn import Config, Server

from appointments import Orchestrator, Settings
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile, token_file
from appointments.http.app import application
from appointments.http.server import listen, serve, url
from domain.commands import BookAppointment
from domain.provider import BookingDetails, Call, WriteOutcome
from providers.local import LocalProvider
from saga.clock import WallClock


def empty() -> FastAPI:
    """What FastAPI alone costs: it takes the same body and says nothing."""
    app = FastAPI()

    @app.post("/v1/appointments", status_code=202)
    async def book(asked: BookAppointment) -> dict[str, str]:
        return {"calendar": asked.calendar}

    return app


class Forgetful(LocalProvider):
    """A provider whose own memory is not measured: it forgets what it has booked."""

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """Book."""
        answer = await super().create(call, details)
        self._calendars.clear()
        return answer


async def product(store: Path, token: bool) -> None:
    """The product on a store of its own, with a provider in the same process. Prints its address, and a token."""
    settings = Settings(
        store=f"sqlite:///{store}",
        provider="local:",
        log_level="error",
        concurrency=10_000,
        tenant_concurrency=10_000,
        http_drain_ms=0,
    )
    clock = WallClock()
    admin = Principal(tenant="default", actor="benchmark", role=Role.ADMIN)
    tokens = TokenFile(token_file(store))
    text = tokens.make(admin, "benchmark", "", clock.now(), None)[0] if token else ""
    access = Access(tokens, Throttle(None, 1), clock.now, None if token else admin)
    opened = listen("127.0.0.1", 0)
    async with Orchestrator.open(settings, providers=(Forgetful("main"),), listen=False) as desk:
        app = application(desk, access, clock.now)
        await serve(app, opened, lambda: print(url(opened), text, os.getpid(), flush=True))


async def baseline() -> None:
    """The empty endpoint. Prints its address."""
    opened = listen("127.0.0.1", 0)
    print(url(opened), "", os.getpid(), flush=True)
    await Server(Config(empty(), log_config=None, access_log=False, lifespan="off")).serve(sockets=[opened])


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("product", "empty"))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--token", action="store_true")
    parser.add_argument("--profile", type=Path, help="write what pyinstrument saw to this file")
    asked = parser.parse_args()

    async def until_told() -> None:
        serving = asyncio.create_task(baseline() if asked.what == "empty" else product(asked.store, asked.token))
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if asked.profile is None:
            runner.run(until_told())
            return
        from pyinstrument import Profiler

        with Profiler(async_mode="disabled") as profiler:
            runner.run(until_told())
        asked.profile.write_text(profiler.output_text(show_all=True), encoding="utf-8")


if __name__ == "__main__":
    main()
