"""The control plane, on a port of its own: scripts, the ledger, the requests received, reset."""

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from mocks.answers import Refusal
from mocks.api import envelope
from mocks.bodies import ControlSettings, parse, read
from mocks.faults import SCRIPTS
from mocks.world import World

BODY_BYTES_MAX = 4_194_304


def make_control_app(world: World) -> web.Application:
    """The side of the mock provider that its clients never see."""
    control = _Control(world)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[envelope()])
    app.router.add_post("/_control/scripts", control.add_scripts)
    app.router.add_get("/_control/scripts", control.show_scripts)
    app.router.add_delete("/_control/scripts", control.clear_scripts)
    app.router.add_get("/_control/ledger", control.show_ledger)
    app.router.add_get("/_control/requests", control.show_requests)
    app.router.add_get("/_control/stats", control.show_stats)
    app.router.add_post("/_control/settings", control.set)
    app.router.add_post("/_control/reset", control.reset)
    return app


class _Control:
    def __init__(self, world: World) -> None:
        self._world = world

    async def add_scripts(self, request: web.Request) -> web.Response:
        """One script, or a list of them: all or none."""
        content = parse(await request.read())
        try:
            scripts = SCRIPTS.validate_python(content if isinstance(content, list) else [content])
        except ValidationError as problem:
            raise Refusal(422, "invalid_script", str(problem)[:2_000]) from None
        return web.json_response({"ids": self._world.scripts.add(scripts)}, status=201)

    async def show_scripts(self, request: web.Request) -> web.Response:
        return web.json_response({"scripts": self._world.scripts.show()})

    async def clear_scripts(self, request: web.Request) -> web.Response:
        self._world.scripts.clear()
        return web.Response(status=204)

    async def show_ledger(self, request: web.Request) -> web.Response:
        """`?client_ref=` keeps to one reference."""
        ledger = self._world.ledger()
        ref = request.query.get("client_ref")
        if ref is not None:
            ledger = _only(ledger, ref) | {"live": self._world.book.live(ref)}
        return web.json_response(ledger)

    async def show_requests(self, request: web.Request) -> web.Response:
        """`?op=` keeps to one operation."""
        op = request.query.get("op")
        requests = self._world.shown_requests()
        return web.json_response({"requests": [shown for shown in requests if op in (None, shown["op"])]})

    async def show_stats(self, request: web.Request) -> web.Response:
        self._world.ledger()
        return web.json_response(
            {"calls": dict(self._world.calls), "live": self._world.book.live(), "lenient": self._world.lenient}
        )

    async def set(self, request: web.Request) -> web.Response:
        """`{"lenient": true}` makes key and client reference optional until the next reset."""
        self._world.lenient = read(ControlSettings, parse(await request.read())).lenient
        return web.json_response({"lenient": self._world.lenient})

    async def reset(self, request: web.Request) -> web.Response:
        self._world.reset()
        return web.Response(status=204)


def _only(ledger: dict[str, Any], ref: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, entries in ledger.items():
        if isinstance(entries, list):
            kept[name] = [entry for entry in entries if entry["client_ref"] == ref]
        elif isinstance(entries, dict):
            kept[name] = {key: value for key, value in entries.items() if key == ref}
    return kept
