"""Group commit: one thread owns the only writing connection and commits everything that waits as one transaction.

Owns the queue, the commit, and the recovery from a store that refuses writes. Nothing waits to be grouped: a batch
is what queued up while the one before was being made durable.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from domain.errors import StoreUnavailable
from store.log_writer import Entry, LogWriter, TaskEntry

BATCH_MAX = 512
"""Entries in one transaction; bounds the time that the last of them waits."""
QUEUE_MAX = 65_536
"""Entries that wait; more are refused, so that a stalled disk does not fill the memory."""
CLEAN_UPS_MAX = 3
"""Attempts to cut the write-ahead log after a deletion; each waits for readers, and so do all writes."""

Resolution = tuple[asyncio.Future[Any], Any, Exception | None]


class Journal:
    """The only way to write. `open_writer` is called at once, and in the journal's thread after each failure."""

    def __init__(self, open_writer: Callable[[], LogWriter]) -> None:
        self._open_writer = open_writer
        self._writer: LogWriter | None = open_writer()
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._after_commit: tuple[Callable[[], None], ...] = ()
        self._unclean = not self._writer.clean_up(wait=False)
        """Deleted rows may still lie in the write-ahead log: of this process, or of one that was killed."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, entry: Entry) -> None:
        """Queue an entry; its future gets `result` when that is durable, else `error`. Callable from any thread."""
        with self._closing:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if self._queue.qsize() >= QUEUE_MAX:
                raise StoreUnavailable(f"{QUEUE_MAX} entries are waiting to be written")
            self._queue.put(entry)

    def after_commit(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call`, which must not block, run in the journal's thread after each commit; returns how to end this."""
        with self._closing:
            self._after_commit = (*self._after_commit, call)

        def end() -> None:
            with self._closing:
                self._after_commit = tuple(other for other in self._after_commit if other is not call)

        return end

    def close(self) -> None:
        """Refuse new entries, write those that wait, close the connection; blocks until this is done."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch: list[Entry] = []
            entry = self._queue.get()
            with suppress(Empty):
                while entry is not None:
                    batch.append(entry)
                    if len(batch) == BATCH_MAX:
                        break
                    entry = self._queue.get_nowait()
            closing = entry is None
            if batch:
                self._commit(batch)
        self._let_go()

    def _commit(self, batch: Sequence[Entry]) -> None:
        try:
            if self._writer is None:
                self._writer, self._unclean = self._open_writer(), True
            writer = self._writer
            writer.begin()
            writer.write(batch)
        except Exception as error:
            self._fail(batch, error)
            return
        try:
            writer.connection.commit()
        except Exception as error:
            if not self._was_stored(writer):
                self._fail(batch, error)
                return
        self._clean_up([entry for entry in batch if isinstance(entry, TaskEntry) and entry.clean and not entry.error])
        _resolve(batch)
        for call in self._after_commit:
            with suppress(Exception):  # a listener is only woken; its own fault must not stop the writes of others
                call()

    def _clean_up(self, deletions: Sequence[TaskEntry]) -> None:
        """What was deleted may still lie in the write-ahead log: a deletion is not acknowledged before that is cut.

        A reader that is in the way for long fails the acknowledgement; each later commit then tries again.
        """
        if not deletions and not self._unclean:
            return
        self._unclean = True
        for _ in range(CLEAN_UPS_MAX if deletions else 1):
            with suppress(Exception):
                if self._writer is not None and self._writer.clean_up(wait=bool(deletions)):
                    self._unclean = False
                    return
        for entry in deletions:
            entry.error = StoreUnavailable(
                "it is deleted, but a reader that does not end keeps the old pages in the write-ahead log; they go "
                "when it has ended and something is written, or when the store is closed"
            )

    def _was_stored(self, failed: LogWriter) -> bool:
        """After a COMMIT that failed: ask the store. A batch without events counts as not stored."""
        self._let_go()
        try:
            writer = self._writer = self._open_writer()
            return failed.first_written is not None and writer.is_stored(failed.first_written)
        except Exception:
            return False

    def _fail(self, batch: Sequence[Entry], error: Exception) -> None:
        """Roll back and start the next batch on a new connection, so that the store recovers by itself."""
        self._let_go()
        for entry in batch:
            entry.error = StoreUnavailable(f"not acknowledged: {getattr(error, 'orig', None) or error}")
        _resolve(batch)

    def _let_go(self) -> None:
        if self._writer is None:
            return
        connection, self._writer = self._writer.connection, None
        with suppress(Exception):
            connection.rollback()
        with suppress(Exception):
            connection.invalidate()
        connection.close()


def _resolve(batch: Sequence[Entry]) -> None:
    """Tell each waiter, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Resolution]] = {}
    for entry in batch:
        future = entry.future
        if isinstance(future, ThreadFuture):
            _settle(future, entry.result, entry.error)
        else:
            by_loop.setdefault(future.get_loop(), []).append((future, entry.result, entry.error))
    for loop, resolutions in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle_all, resolutions)


def _settle_all(resolutions: list[Resolution]) -> None:
    for future, result, error in resolutions:
        _settle(future, result, error)


def _settle(future: Any, result: Any, error: Exception | None) -> None:
    # A thread's future takes no cancellation any more from here on; a task's is cancelled in this loop or not at all.
    if not future.set_running_or_notify_cancel() if isinstance(future, ThreadFuture) else future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
