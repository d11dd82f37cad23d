"""How a command ends: an exit code, and one clear line for everything that can go wrong. Never a traceback."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from rich.text import Text

from appointments.cli.session import Session, console
from domain.errors import AppointmentsError, CommandRefused

Work = Callable[[], Coroutine[Any, Any, "ExitCode"]]


class ExitCode(IntEnum):
    """What the shell gets to know."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    IN_PROGRESS = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a command did not end well, as the HTTP API would say it (RFC 9457)."""

    code: ExitCode
    problem: str
    status: int
    detail: str
    errors: tuple[tuple[str, str], ...] = ()


def run(session: Session, work: Work, debug: bool = False) -> ExitCode:
    """Run a command on an event loop of its own; whatever ends it becomes an exit code and one clear line."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_stoppable(work))
    except BrokenPipeError:
        # The reader went away. Without this the interpreter would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as fault:
        if debug and not isinstance(fault, AppointmentsError | KeyboardInterrupt):
            raise
        return tell(trouble(fault), session.as_json and not session.answered)


def trouble(fault: BaseException) -> Trouble:
    """What to tell about a fault."""
    match fault:
        case CommandRefused():
            return Trouble(ExitCode.REFUSED, fault.problem, fault.status, fault.detail, fault.errors)
        case AppointmentsError():
            problem, status = getattr(fault, "problem", "failed"), getattr(fault, "status", 500)
            return Trouble(ExitCode.FAILED, problem, status, str(fault))
        case KeyboardInterrupt() | asyncio.CancelledError():
            # What was accepted is durable, and what was on its way will be looked up at the next start.
            detail = "interrupted; nothing is lost: run the same command again and it goes on"
            return Trouble(ExitCode.IN_PROGRESS, "interrupted", 503, detail)
        case OSError() if fault.filename is not None:
            detail = f"{fault.filename}: {fault.strerror}"
            return Trouble(ExitCode.FAILED, "file-unusable", 500, detail)
        case _:
            detail = f"{type(fault).__name__}: {fault} (appointments --debug … shows where)"
            return Trouble(ExitCode.FAILED, "internal-error", 500, detail)


def tell(what: Trouble, as_json: bool) -> ExitCode:
    """Say it in one line on standard error, or as a problem document on standard output where JSON was asked for."""
    # An argument may hold bytes that are no text; they are told as escapes, since no stream would take them.
    detail = _text(what.detail)
    if as_json:
        document = {
            "type": f"urn:appointments:problem:{what.problem}",
            "status": what.status,
            "detail": detail,
            "errors": [{"pointer": pointer, "detail": _text(told)} for pointer, told in what.errors],
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        console(stderr=True).print(Text(detail), soft_wrap=True)
    return what.code


def _text(told: str) -> str:
    return told.encode("utf-8", "backslashreplace").decode()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it does not exist for every platform
        return None
    return uvloop.new_event_loop


async def _stoppable(work: Work) -> ExitCode:
    """SIGTERM ends a command as Ctrl-C does, also where a shell started it in the background and ignores that."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread: nobody sends us signals here
        return await work()
    try:
        return await work()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def uncancel() -> None:
    """The interruption of this command was heard: what follows may be interrupted once more."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
