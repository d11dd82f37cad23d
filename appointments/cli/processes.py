"""Further processes for work that one processor is too slow for."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

# A forked process would inherit locks that nobody gives back.
SPAWN = multiprocessing.get_context("spawn")


@asynccontextmanager
async def processes(
    count: int, begin: Callable[..., None] | None = None, given: tuple[Any, ...] = ()
) -> AsyncIterator[ProcessPoolExecutor]:
    """So many processes, each begun by `begin(*given)`. At the end of the block what has not begun is dropped."""
    pool = ProcessPoolExecutor(count, SPAWN, begin, given)
    try:
        yield pool
    finally:
        # Waited for: one that is only just starting would not find what it was started with.
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)
