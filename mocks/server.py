"""The mock provider as a running server: two ports, one object that holds all its state."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from aiohttp import web

from mocks.api import PREFIX, make_app
from mocks.behaviors import Op
from mocks.control import make_control_app
from mocks.faults import SCRIPTS
from mocks.world import World

SHUTDOWN_S = 0.2
SECRET = "whsec_bW9jay1wcm92aWRlci1jYWxsYmFjay1zZWNyZXQ="
"""The callback secret of a mock that is given none; nothing real is signed with it."""


class MockProvider:
    """`async with MockProvider() as mock:` serves `/api/v2` at `mock.url` and the control plane at `mock.control_url`.

    `secret`: Standard Webhooks secret of the callbacks. `lenient`: key and client reference are optional.
    """

    def __init__(
        self,
        secret: str = SECRET,
        lenient: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
    ) -> None:
        self.secret = secret
        self._lenient = lenient
        self._host = host
        self._ports = (port, control_port)
        self._runners: list[web.AppRunner] = []
        self._bound: list[int] = []
        self._world: World | None = None

    async def __aenter__(self) -> Self:
        self._world = World(self.secret, self._lenient)
        try:
            for app, port in zip((make_app(self._world), make_control_app(self._world)), self._ports, strict=True):
                await self._listen(app, port)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop background work, let go of held connections, free both ports."""
        if self._world is not None:
            await self._world.close()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        self._bound.clear()

    @property
    def url(self) -> str:
        """Base address of the API, `http://host:port/api/v2`."""
        return f"http://{self._host}:{self._bound[0]}{PREFIX}"

    @property
    def control_url(self) -> str:
        """Base address of the control plane, `http://host:port/_control`."""
        return f"http://{self._host}:{self._bound[1]}/_control"

    @property
    def lenient(self) -> bool:
        """Whether key and client reference are optional now."""
        return self._state.lenient

    @lenient.setter
    def lenient(self, lenient: bool) -> None:
        self._state.lenient = lenient

    def script(
        self,
        op: Op | None,
        mode: str | None = None,
        *,
        client_ref: str | None = None,
        calendar_id: str | None = None,
        nth: int = 1,
        times: int | None = None,
        seed: int = 0,
        behaviors: Sequence[dict[str, Any]] = (),
        **parameters: Any,
    ) -> str:
        """Script one behaviour (`mode` and its parameters) or several in turn; answers the script's id.

        Raises pydantic's ValidationError for what the control plane refuses.
        """
        script: dict[str, Any] = {
            "match": {"op": op, "client_ref": client_ref, "calendar_id": calendar_id, "nth": nth},
            "times": times,
            "seed": seed,
        }
        script |= {"behavior": {"mode": mode} | parameters} if mode is not None else {"behaviors": list(behaviors)}
        return self.load(script)[0]

    def load(self, *scripts: dict[str, Any]) -> list[str]:
        """Put scripts in force, in the form that the control plane takes; answers their ids."""
        return self._state.scripts.add(SCRIPTS.validate_python(list(scripts)))

    def clear_scripts(self) -> None:
        """Take all scripts out of force."""
        self._state.scripts.clear()

    def ledger(self) -> dict[str, Any]:
        """The oracle: commits, notifications, bookings, callbacks, live. Times in seconds since the epoch."""
        return self._state.ledger()

    def requests(self, op: Op | None = None) -> list[dict[str, Any]]:
        """Every request received, oldest first, of one operation or of all."""
        return [shown for shown in self._state.shown_requests() if op in (None, shown["op"])]

    def calls(self) -> dict[str, int]:
        """Requests received, by operation."""
        return dict(self._state.calls)

    def live(self, client_ref: str | None = None) -> int:
        """Bookings pending or accepted now, of one client reference or of all."""
        self._state.ledger()
        return self._state.book.live(client_ref)

    def reset(self) -> None:
        """Begin anew: no bookings, scripts, keys, requests."""
        self._state.reset()

    @property
    def _state(self) -> World:
        if self._world is None:
            raise RuntimeError("the mock provider does not run")
        return self._world

    async def _listen(self, app: web.Application, port: int) -> None:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, self._host, port).start()
        self._bound.append(runner.addresses[0][1])


async def serve(
    host: str = "127.0.0.1",
    port: int = 8090,
    control_port: int = 8091,
    secret: str = SECRET,
    lenient: bool = False,
) -> None:
    """Run a mock provider until cancelled; prints both addresses, one a line."""
    async with MockProvider(secret, lenient, host, port, control_port) as mock:
        print(f"provider {mock.url}", flush=True)
        print(f"control  {mock.control_url}", flush=True)
        await asyncio.Event().wait()
