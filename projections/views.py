"""The projector: keeps every read model up with the log, answers from them, and rebuilds them while work goes on.

Any number of processes may catch the same files up: a batch and its checkpoint are one transaction, and the one that
comes second writes nothing. Owns no truth: the folder can be deleted at any time.
"""

import asyncio
import fcntl
import gc
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from domain.errors import InvalidFields, StoreLocked, StoreUnavailable
from projections.current_state import CurrentStates
from projections.figures import Figures
from projections.following import Folded, RecentStates, fold
from projections.generations import BUILDING, Generations
from projections.projection import Projection
from projections.read_models import bear_witness
from projections.view_file import Checkpoint, ViewFile, told_as_unavailable
from store.port import RecordedEvent, Store

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the position that was reached and the one to reach."""

PROJECTIONS: tuple[Projection, ...] = (CurrentStates(), Figures())
LIVE_BATCH = 500
"""Events folded at once beside running work: some 15 ms of computing."""
REBUILD_BATCH = 2_000
CHASES_MAX = 5
"""How often a rebuild goes after what was written meanwhile: each time it is less, and the rest is caught up live."""
FOLLOW_S = 1.0
"""How often the log is looked at when nobody asks."""
PAUSE_S = 0.01
"""Left to the running work between two batches when much is to be caught up."""


def views_folder(log: Path) -> Path | None:
    """Where the read models of a log file live: beside it. None, in memory, where nothing can be written."""
    folder = log.with_name(log.name + ".views")
    return folder if os.access(folder if folder.exists() else folder.parent, os.W_OK) else None


class Views:
    """The read models of one log. `folder` None: in memory. End it by `close`."""

    def __init__(self, store: Store, folder: Path | None, projections: Sequence[Projection] | None = None) -> None:
        self._store, self._folder = store, folder
        self._files: dict[str, ViewFile] = {}
        for projection in PROJECTIONS if projections is None else projections:
            place = Generations(folder, projection.name, projection.version) if folder else None
            self._files[projection.name] = ViewFile(projection, place)
        self._states = RecentStates()
        self._one_at_a_time = asyncio.Lock()
        self._tidied = folder is None
        self._ending = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Which read models there are."""
        return tuple(self._files)

    async def goal(self) -> int:
        """The position of the log's last event."""
        return await self._store.position()

    @property
    def store(self) -> Store:
        """The log that they are folded from."""
        return self._store

    async def reached(self) -> dict[str, int]:
        """The position that each read model has reached by now, without catching up."""
        return {name: (await asyncio.to_thread(file.checkpoint)).position for name, file in tuple(self._files.items())}

    async def catch_up(self, *names: str) -> int:
        """Fold what is new in the log into these read models (all); returns the position that all have reached.

        Everything is in that was in the log at the call. Raises `StoreUnavailable`, `InvalidFields` for a name.
        """
        files = self._named(names)
        while True:
            reached, more = await self._advance(files)
            if not more:
                return reached

    async def read(self, name: str, query: Callable[[Connection], T]) -> tuple[T, int]:
        """What a query says once the read model has caught up, and the position as of which that is true."""
        while True:
            reached = await self.catch_up(name)
            answer, position = await asyncio.to_thread(self._files[name].read, query)
            if position >= reached:  # else it was replaced meanwhile by one that is not as far
                return answer, position

    async def rebuild(self, names: Collection[str] = (), progress: Progress | None = None) -> int:
        """Refill these read models (all) from the log beside those in use, then replace them; returns the position.

        Raises `StoreLocked` when they are being rebuilt already, `InvalidFields` for a name.
        """
        files = self._named(names)
        with self._rebuilding():
            built: list[ViewFile] = []
            try:
                for file in files:
                    built.append(await asyncio.to_thread(file.successor))
                reached = await self._refill(built, progress)
                for file, successor in zip(files, built, strict=True):
                    await asyncio.to_thread(file.replace_by, successor)
            finally:
                for successor in built:
                    await asyncio.to_thread(successor.throw_away)
        return reached

    def follow(self) -> None:
        """Catch up every second until `close`, a little at a time."""
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Stop following, let what goes on end, and let go of the files. The store stays open."""
        self._ending.set()
        if self._following is not None:
            await self._following
        async with self._one_at_a_time:
            for file in self._files.values():
                await asyncio.to_thread(file.close)

    def _named(self, names: Collection[str]) -> list[ViewFile]:
        unknown = [name for name in names if name not in self._files]
        if unknown:
            known = ", ".join(self._files)
            raise InvalidFields(f"there is no projection {unknown[0]!r}; there are: {known}", (("/name", "unknown"),))
        return [file for name, file in self._files.items() if not names or name in names]

    async def _follow(self) -> None:
        files, pause_s = list(self._files.values()), 0.0
        while not await self._ends_within(pause_s):
            try:
                _, more = await self._advance(files)
                pause_s = PAUSE_S if more else FOLLOW_S
            except StoreUnavailable:
                pause_s = FOLLOW_S
            except Exception:
                await self._leave_out_the_faulty(files)
                pause_s = FOLLOW_S

    async def _leave_out_the_faulty(self, files: list[ViewFile]) -> None:
        """A fault in one projection's code is told once, and stops neither the work nor the others."""
        for file in tuple(files):
            try:
                await self._advance([file])
            except StoreUnavailable:
                continue
            except Exception as fault:
                files.remove(file)
                told = {"message": f"{file.projection.name} is kept up no longer", "exception": fault}
                asyncio.get_running_loop().call_exception_handler(told)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._ending.wait()
        except TimeoutError:
            return False

    async def _advance(self, files: Sequence[ViewFile]) -> tuple[int, bool]:
        async with self._one_at_a_time:
            if not self._tidied:
                await asyncio.to_thread(self._tidy)
            return await _advance(self._store, files, self._states, LIVE_BATCH, self._folder)

    async def _refill(self, built: Sequence[ViewFile], progress: Progress | None) -> int:
        states, reached = RecentStates(), 0
        for _ in range(CHASES_MAX):
            goal = await self._store.position()
            while reached < goal:
                reached, _ = await _advance(self._store, built, states, REBUILD_BATCH, self._folder)
                if progress is not None:
                    progress(reached, max(goal, reached))
        return reached

    def _tidy(self) -> None:
        """Delete what a rebuild that was killed has left: an erasure would not reach it."""
        assert self._folder is not None
        with told_as_unavailable(self._folder), suppress(StoreLocked):
            if any(self._folder.glob(BUILDING)):
                with self._rebuilding():
                    for file in self._folder.glob(BUILDING):
                        file.unlink(missing_ok=True)
        self._tidied = True

    @contextmanager
    def _rebuilding(self) -> Iterator[None]:
        if self._folder is None:
            yield
            return
        with told_as_unavailable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / "rebuild.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with told_as_unavailable(self._folder):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StoreLocked("the read models are being rebuilt already: wait for that to end") from None
            yield
        finally:
            os.close(lock)


async def _advance(
    store: Store, files: Sequence[ViewFile], states: RecentStates, limit: int, folder: Path | None
) -> tuple[int, bool]:
    """One batch for those that are furthest behind; returns their position, and whether there may be more."""
    for file in files:
        await _verify(store, file, folder)
    checkpoints = [await asyncio.to_thread(file.checkpoint) for file in files]
    after = min(checkpoints)
    ahead = [checkpoint.position for checkpoint in checkpoints if checkpoint.position > after.position]
    # Those ahead are met where they stand: from there on a batch is folded once for all.
    limit = min(limit, min(ahead) - after.position) if ahead else limit
    behind = [file for file, checkpoint in zip(files, checkpoints, strict=True) if checkpoint == after]
    with _cycles_left_alone():
        reached, more = await _one_batch(store, behind, after, states, limit)
    return reached, more or bool(ahead)


async def _one_batch(
    store: Store, files: Sequence[ViewFile], after: Checkpoint, states: RecentStates, limit: int
) -> tuple[int, bool]:
    batch = await store.log(after.position, limit)
    if not batch:
        return after.position, False
    reached = Checkpoint(batch[-1].position, batch[-1].digest)
    bases = await states.bases(store, batch)

    folded: Folded | None = None

    def write() -> bool:
        nonlocal folded
        folded = fold(batch, bases)
        return all([file.apply(after, folded, reached) for file in files])  # noqa: C419 -- each has its turn

    written = await asyncio.to_thread(write)
    assert folded is not None
    states.keep(folded)
    more = len(batch) == limit or not written
    # The thread, and what asyncio leaves of its result, may outlive this: the batch must not, or the search for cycles
    # would go through all of it.
    batch, bases, folded = (), {}, None
    return reached.position, more


@contextmanager
def _cycles_left_alone() -> Iterator[None]:
    """Put off the search for cycles: a batch makes many objects and no cycle, and the search takes half as long again.

    Put off for everybody, yet never beyond a batch; of two at once the first to end ends it, which costs time alone.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


async def _verify(store: Store, file: ViewFile, folder: Path | None) -> None:
    """Throw away what was folded from another log, or from a part of the log that is gone (an older copy put back)."""
    if file.verified:
        return
    checkpoint: Checkpoint = await asyncio.to_thread(file.checkpoint)
    if checkpoint.position:
        last: Sequence[RecordedEvent] = await store.log(checkpoint.position - 1, 1)
        if not last or last[0].digest != checkpoint.digest:
            if folder is not None:
                with told_as_unavailable(folder):
                    bear_witness(folder, file.projection.name, checkpoint.position, checkpoint.digest)
            await asyncio.to_thread(file.throw_away)
    file.verified = True
