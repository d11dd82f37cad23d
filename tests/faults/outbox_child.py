"""The relaying process that is killed: opens the store that its settings name and tells their subscribers, for ever."""

import asyncio
import json
import sys

from appointments import Orchestrator, Settings
from appointments.outbox import relay
from appointments.outbox.window import Window

relay.KEEP_EVERY_S = 0.02


def _keep_early() -> None:
    """Planted: the checkpoint is that of what was read, not of what was taken."""
    relay.KEEP_EVERY_S = 0
    Window.checkpoint = property(lambda self: self.read_to)  # type: ignore[method-assign,assignment]


async def main() -> None:
    """Relay until somebody ends it."""
    settings, planted = json.loads(sys.argv[1]), sys.argv[2:]
    if planted:
        _keep_early()
    async with Orchestrator.open(Settings.model_validate(settings), listen=False) as desk, desk.outbox():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
