"""Power loss: before each acknowledgement the log is synced after its last write, in the order of system calls.

The child appends and writes a byte into a pipe for each acknowledgement. Its system calls are followed with ptrace
through ctypes (Linux 5.3 or later, x86_64 and aarch64), which needs neither root, nor a compiler, nor strace.
"""

import asyncio
import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from store import sqlite_file
from store.port import Append, OpenWork, RecordedEvent
from store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
APPENDS = 1_000
STREAMS = 100
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

SYSCALLS = {
    "x86_64": {"write": 1, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75},
    "aarch64": {"write": 64, "pwrite64": 68, "writev": 66, "fsync": 82, "fdatasync": 83},
}
TRACEME, SETOPTIONS, SYSCALL, GET_SYSCALL_INFO = 0, 0x4200, 24, 0x420E
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000  # TRACESYSGOOD, FORK, VFORK, CLONE, EXITKILL
SYSCALL_STOP = signal.SIGTRAP | 0x80
WAIT_ALL_THREADS = 0x40000000  # __WALL
ENTRY, EXIT = 1, 2


class SyscallInfo(ctypes.Structure):
    """`struct ptrace_syscall_info` of ptrace(2), as it is at an entry (nr, args) or exit (result in `nr`)."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("nr", ctypes.c_int64),
        ("args", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64 * 2),
    )


@dataclass
class Order:
    """What was seen: writes and syncs of the log, and the acknowledgements that came too early."""

    log: str
    acknowledgements: int = 0
    unsynced: int = 0
    without_write: int = 0
    syncs: int = 0
    dirty: bool = False
    written: bool = False
    syncing: dict[int, bool] = field(default_factory=dict)

    def entered(self, thread: int, name: str, file: str, to_acknowledge: bool) -> None:
        if to_acknowledge:
            self.acknowledgements += 1
            self.unsynced += self.dirty
            self.without_write += not self.written
            self.written = False
        elif file == self.log and name in ("fsync", "fdatasync"):
            self.syncing[thread] = True
        elif file == self.log:
            self.dirty = self.written = True

    def left(self, thread: int, result: int) -> None:
        if self.syncing.pop(thread, False) and result == 0:
            self.syncs += 1
            self.dirty = False


def trace(log: str, acknowledgement_file: int, command: list[str]) -> Order:
    """Run `command` and follow its system calls to its end."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long

    def ptrace(request: int, thread: int, address: int = 0, data: object = 0) -> None:
        if libc.ptrace(request, thread, address, data) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace request {request:#x}: {os.strerror(ctypes.get_errno())}")

    names = {number: name for name, number in SYSCALLS[platform.machine()].items()}
    order, info = Order(log), SyscallInfo()
    child = os.fork()
    if child == 0:
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.execv(command[0], command)
    os.waitpid(child, 0)
    ptrace(SETOPTIONS, child, 0, OPTIONS)
    ptrace(SYSCALL, child)
    while True:
        thread, status = os.waitpid(-1, WAIT_ALL_THREADS)
        if not os.WIFSTOPPED(status):
            if thread == child:
                assert os.waitstatus_to_exitcode(status) == 0, f"the child ended with {status:#x}"
                return order
            continue
        stopped_by, deliver = os.WSTOPSIG(status), 0
        if stopped_by == SYSCALL_STOP:
            libc.ptrace(GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info))
            if info.op == EXIT:
                order.left(thread, info.nr)
            elif info.op == ENTRY and info.nr in names:
                number = info.args[0]
                to_acknowledge = number == acknowledgement_file and names[info.nr] == "write"
                order.entered(thread, names[info.nr], _file(thread, number), to_acknowledge)
        elif stopped_by not in (signal.SIGTRAP, signal.SIGSTOP):
            deliver = stopped_by
        libc.ptrace(SYSCALL, thread, 0, deliver)  # fails only when the thread has just been killed


def _file(thread: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{number}")
    except OSError:
        return ""


async def append_and_acknowledge(path: str, acknowledgement_file: int) -> None:
    store = SqliteStore.open(path, "child")
    for number in range(1, APPENDS + 1):
        stream_id, version = UUID(int=number % STREAMS), (number - 1) // STREAMS + 1
        work = OpenWork(stream_id, "acme", "main", None, NOON, None, version=version)
        event = RecordedEvent(stream_id, version, "step-started.v1", b'{"step":"calendar"}')
        await store.append(Append(stream_id, version - 1, (event,), work))
        os.write(acknowledgement_file, b".")
    await store.close()


def run(tmp_path: Path, synchronous: str) -> dict[str, int]:
    """The order seen, traced by a process of its own, because tracing waits for every child."""
    assert sys.platform == "linux", "system calls are followed with ptrace, on Linux only"
    assert platform.machine() in SYSCALLS, f"no system call numbers for {platform.machine()}"
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tests.faults.test_power_loss"]
    with os.fdopen(reading, "rb") as acknowledged:
        with subprocess.Popen(
            [*command, "trace", str(tmp_path / "log.db"), str(writing), synchronous],
            cwd=ROOT,
            pass_fds=(writing,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as tracer:
            os.close(writing)
            output, errors = tracer.communicate(timeout=120)
        assert tracer.returncode == 0, errors
        assert acknowledged.read() == b"." * APPENDS
    seen = json.loads(output)
    print(seen)
    return seen


@pytest.mark.evidence(
    target="power loss",
    answers=("R7.1", "G1"),
    given="a desk under strace",
    when="commands are acknowledged",
    then="a sync stands between the last write of the log and each acknowledgement",
    seen_in="order of system calls",
)
def test_every_acknowledgement_follows_a_sync_of_the_log(tmp_path: Path) -> None:
    seen = run(tmp_path, "FULL")
    assert seen["acknowledgements"] == APPENDS
    assert (seen["unsynced"], seen["without_write"]) == (0, 0)
    assert seen["syncs"] >= APPENDS


def test_control_without_a_sync_at_each_commit_the_order_is_wrong(tmp_path: Path) -> None:
    seen = run(tmp_path, "NORMAL")
    assert seen["acknowledgements"] == APPENDS
    assert seen["without_write"] == 0
    assert seen["unsynced"] > APPENDS * 0.9


def _main(role: str, path: str, acknowledgement_file: str, synchronous: str) -> None:
    if role == "trace":
        os.set_inheritable(int(acknowledgement_file), True)
        own = [sys.executable, "-m", "tests.faults.test_power_loss", "append", path, acknowledgement_file, synchronous]
        order = trace(f"{Path(path).resolve()}-wal", int(acknowledgement_file), own)
        print(json.dumps({name: value for name, value in asdict(order).items() if name != "log"}))
    else:
        sqlite_file.SYNCHRONOUS = synchronous
        asyncio.run(append_and_acknowledge(path, int(acknowledgement_file)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
