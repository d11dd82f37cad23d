"""Worker processes that are started, told to book, drained and killed one by one, side by side on whatever stores."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_WITHIN_S = 20.0
END_WITHIN_S = 60.0


@dataclass
class Hand:
    """One worker process, and what it has said."""

    name: str
    pid: int = 0
    owner: str = ""
    acknowledged: set[str] = field(default_factory=set)
    here: asyncio.Event = field(default_factory=asyncio.Event)
    booked: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Let its clients book."""
        os.kill(self.pid, signal.SIGUSR1)

    async def drain(self) -> None:
        """SIGTERM; returns when it has handed over and gone."""
        os.kill(self.pid, signal.SIGTERM)
        await asyncio.wait_for(self.gone.wait(), END_WITHIN_S)

    def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.pid, signal.SIGKILL)

    def hear(self, word: str, rest: Sequence[str]) -> None:
        match word:
            case "here":
                self.pid, self.owner = int(rest[0]), rest[1]
                self.here.set()
            case "ack":
                self.acknowledged.add(rest[0])
            case "booked":
                self.booked.set()
            case "gone":
                self.gone.set()


class Fleet:
    """The forking process, and the workers that came of it."""

    def __init__(self, process: asyncio.subprocess.Process, seed: int) -> None:
        self._process, self._seed = process, seed
        self.hands: dict[str, Hand] = {}

    @property
    def acknowledged(self) -> set[str]:
        """Keys of all commands that were acknowledged by any of them."""
        return set[str]().union(*(hand.acknowledged for hand in self.hands.values()))

    async def start(
        self,
        name: str,
        settings: dict[str, Any],
        sagas: Sequence[tuple[int, str]] = (),
        *,
        clients: int = 0,
        each: int = 1_000_000,
        pause_s: float = 0.0,
        planted: str = "",
    ) -> Hand:
        """A worker, once it is at work; `sagas`: version and middle step of each that it has registered."""
        hand = self.hands[name] = Hand(name)
        order = {"name": name, "settings": settings, "sagas": list(sagas), "seed": self._seed + len(self.hands)}
        order |= {"clients": clients, "each": each, "pause_s": pause_s, "planted": planted}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await asyncio.wait_for(hand.here.wait(), START_WITHIN_S)
        return hand

    async def hear(self) -> None:
        """Take in what they say, until the forking process ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            name, word, *rest = line.decode().split()
            self.hands[name].hear(word, rest)


@asynccontextmanager
async def fleet(seed: int) -> AsyncIterator[Fleet]:
    """No worker yet; whoever still works at the end is ended. The seed is printed."""
    print(f"seed {seed}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("fleet_child.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    made = Fleet(process, seed)
    hearing = asyncio.create_task(made.hear())
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await hearing
