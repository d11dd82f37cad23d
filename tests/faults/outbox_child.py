"""The relaying process that is killed: opens the store that its settings name and tells their subscribers, for ever."""

import asyncio
import json
import sys
from contextlib import nullcontext

from appointments import Orchestrator, Settings
from appointments.outbox import relay
from appointments.outbox.window import Window
from store.postgres import PostgresStore

relay.KEEP_EVERY_S = 0.02


def _keep_early() -> None:
    """Planted: the checkpoint is that of what was read, not of what was taken."""
    relay.KEEP_EVERY_S = 0
    Window.checkpoint = property(lambda self: self.read_to)  # type: ignore[method-assign,assignment]


def _together() -> None:
    """Planted: every process takes itself for the one that relays."""
    PostgresStore.exclusive = lambda _self, _name: nullcontext(True)  # type: ignore[method-assign,assignment,return-value]


PLANTED = {"early": _keep_early, "together": _together}


async def main() -> None:
    """Relay until somebody ends it."""
    settings, planted = json.loads(sys.argv[1]), sys.argv[2:]
    for bug in planted:
        PLANTED[bug]()
    async with Orchestrator.open(Settings.model_validate(settings), listen=False) as desk, desk.outbox():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
