"""A disk that takes no more: nothing acknowledged is lost, reads go on, writes resume by themselves.

The kernel itself refuses the writes: a child process limits the size of its files (RLIMIT_FSIZE), fills the store to
the limit, then lifts it. That needs no root and no file system of its own.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from domain.errors import StoreUnavailable
from store import journal as journal_module
from store import sqlite_file
from store.journal import Journal
from store.port import Append, RecordedEvent, whole_log
from store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 1_000_000
CLIENTS = 4
REFUSALS_MIN = 40
ACKNOWLEDGED_MAX = 3_000
RESUMES_WITHIN_S = 5.0
BODY = b"x" * 2_000


def entry(number: int) -> Append:
    stream_id = UUID(int=number)
    return Append(stream_id, 0, (RecordedEvent(stream_id, 1, "filler.v1", BODY),))


async def fill_then_grow(path: str) -> dict[str, object]:
    """In the child: what was acknowledged and refused, what reads gave while full, how long it took to resume."""
    store = SqliteStore.open(path, "child")
    acknowledged: list[int] = []
    refused: list[int] = []
    numbers = iter(range(1, 1_000_000))

    async def client() -> None:
        while len(refused) < REFUSALS_MIN and len(acknowledged) < ACKNOWLEDGED_MAX:
            number = next(numbers)
            try:
                await store.append(entry(number))
            except StoreUnavailable:
                refused.append(number)
            else:
                acknowledged.append(number)

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    read_while_full = len([event async for event in whole_log(store)])
    acknowledged_while_full = len(acknowledged)

    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    started = time.perf_counter()
    resumed_after_s = None
    while resumed_after_s is None and time.perf_counter() - started < RESUMES_WITHIN_S:
        number = next(numbers)
        try:
            await store.append(entry(number))
        except StoreUnavailable:
            refused.append(number)
        else:
            acknowledged.append(number)
            resumed_after_s = time.perf_counter() - started
    for _ in range(1_000):
        number = next(numbers)
        await store.append(entry(number))
        acknowledged.append(number)
    await store.close()
    return {
        "acknowledged": acknowledged,
        "refused": refused,
        "acknowledged_while_full": acknowledged_while_full,
        "read_while_full": read_while_full,
        "resumed_after_s": resumed_after_s,
    }


async def stored_in(path: Path) -> list[int]:
    store = SqliteStore.open(path, "parent")
    numbers = [event.stream_id.int async for event in whole_log(store)]
    await store.close()
    return numbers


def run_child(path: Path, *options: str) -> dict[str, object]:
    child = subprocess.run(
        [sys.executable, "-m", "tests.faults.test_disk_full", str(path), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.evidence(
    target="full disk",
    answers=("R7.1", "G1"),
    given="a disk that takes no more",
    when="commands come, and later there is room again",
    then="what was acknowledged is there, reads go on, writes resume without a restart",
    seen_in="refusals with status 503",
)
@pytest.mark.parametrize("wal_pages", [100, 2_000], ids=["file and log full", "log full"])
async def test_nothing_acknowledged_is_lost_and_writes_resume(tmp_path: Path, wal_pages: int) -> None:
    path = tmp_path / "log.db"
    seen = run_child(path, str(wal_pages))
    print({name: value for name, value in seen.items() if not isinstance(value, list)}, len(seen["refused"]))
    assert len(seen["refused"]) >= REFUSALS_MIN
    assert seen["read_while_full"] == seen["acknowledged_while_full"] > 100
    assert seen["resumed_after_s"] is not None, f"no write within {RESUMES_WITHIN_S} s"
    assert sorted(await stored_in(path)) == sorted(seen["acknowledged"])


async def test_control_acknowledging_what_was_refused_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    seen = run_child(path, "2000", "acknowledge-anyway")
    assert set(seen["acknowledged"]) - set(await stored_in(path))


def _acknowledge_anyway(journal: Journal, batch: list[journal_module.Entry], _: Exception) -> None:
    journal._let_go()
    journal_module._resolve(batch)


if __name__ == "__main__":
    sqlite_file.WAL_PAGES_MAX = int(sys.argv[2])
    if sys.argv[3:] == ["acknowledge-anyway"]:
        Journal._fail = _acknowledge_anyway
    print(json.dumps(asyncio.run(fill_then_grow(sys.argv[1]))))
