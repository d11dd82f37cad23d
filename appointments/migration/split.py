"""The split: which system leads a new appointment, and who answers a read, by the key and by figures set at run time.

Owns the decision (pure), and the small file beside the log that holds every change of it. It calls nobody. An
appointment that has begun is led to its end by whoever began it: the split is asked for new ones alone.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from domain.commands import Instant, Name, Reason
from domain.errors import InvalidFields, StoreUnavailable
from domain.provider import Value

BUCKETS = 10_000
TAIL_BYTES = 65_536
"""How much of the file is read: its last hundreds of changes."""


class Leader(StrEnum):
    """The system that calls the provider."""

    OURS = "ours"
    LEGACY = "legacy"


def _hundredths(percent: float) -> float:
    if abs(percent * 100 - round(percent * 100)) > 1e-6:
        raise ValueError("a percentage has at most two decimals")
    return round(percent, 2)


Percent = Annotated[float, Field(ge=0, le=100), AfterValidator(_hundredths)]


class Shares(Value):
    """How much is ours, in per cent. `stopped`: nothing new is, whatever the figures say."""

    writes: Percent = 0.0
    reads: Percent = 0.0
    stopped: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.writes > self.reads:
            raise ValueError(
                f"reads go first: writes ({self.writes:g} %) cannot be ahead of reads ({self.reads:g} %); "
                "raise reads, reconcile, then raise writes"
            )
        return self

    def leads(self, tenant: str, key: str) -> Leader:
        """Who books what is asked for under this key for the first time."""
        return self._leader(self.writes, tenant, key)

    def answers(self, tenant: str, key: str) -> Leader:
        """Who answers a read of the appointment with this key."""
        return self._leader(self.reads, tenant, key)

    def _leader(self, percent: float, tenant: str, key: str) -> Leader:
        ours = not self.stopped and bucket(tenant, key) < round(percent * BUCKETS / 100)
        return Leader.OURS if ours else Leader.LEGACY


class Change(Shares):
    """One line of the file: the shares from then on, who set them and why."""

    at: Instant
    actor: Name
    reason: Annotated[Reason, Field(pattern=r"\S")]


class Standing(Value):
    """What is in force, since which change (None: none was made), and what could not be read on the way."""

    shares: Shares = Shares()
    change: Change | None = None
    fault: str | None = None


def bucket(tenant: str, key: str) -> int:
    """0 to 9,999, the same for ever: a key that is ours at 10 % is ours at 20 %, for reads as for writes."""
    return int.from_bytes(sha256(f"split\x00{tenant}\x00{key}".encode()).digest()[:8]) % BUCKETS


class Split:
    """The split of one log, followed as it is changed. `file` None (a log in memory): nothing is ours, for good."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, ...] | None = None
        self._standing = Standing()

    def standing(self) -> Standing:
        """What is in force now. Costs one look at the file's dates while nothing was changed.

        A file that has gone, or cannot be read, leaves what was known in force, and is named.
        """
        if self._file is None:
            return self._standing
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen != self._seen:
                self._standing, self._seen = read(self._file), seen
        except FileNotFoundError:
            if self._seen is not None:
                self._standing = self._standing.model_copy(update={"fault": f"{self._file.name} has gone"})
        except OSError as fault:
            told = f"{self._file.name} cannot be read: {fault.strerror}"
            self._standing, self._seen = self._standing.model_copy(update={"fault": told}), None
        return self._standing

    @property
    def shares(self) -> Shares:
        """The shares that are in force now."""
        return self.standing().shares

    def change(self, change: Change) -> None:
        """Add a change; whoever serves the log follows at its next decision. Raises `StoreUnavailable`."""
        if self._file is None:
            raise InvalidFields("a log in memory is served by this process alone; its split cannot be changed")
        try:
            with _append_alone(self._file) as opened:
                size = os.fstat(opened).st_size
                # What a crash tore off ends here, so that it takes no good line with it.
                torn = size > 0 and os.pread(opened, 1, size - 1) != b"\n"
                line = b"\n" * torn + change.model_dump_json().encode() + b"\n"
                if os.write(opened, line) != len(line):
                    raise OSError(None, "it was written in part only")
                os.fsync(opened)
        except OSError as fault:
            raise StoreUnavailable(f"{self._file} cannot be written: {fault.strerror}") from None


def split_file(log: Path) -> Path:
    """Where the split of a log is kept."""
    return log.with_name(f"{log.name}.split.jsonl")


def read(file: Path) -> Standing:
    """The last change that can be read. One behind it that cannot is named, and changes nothing."""
    fault = None
    for back, line in enumerate(_last_lines(file), 1):
        try:
            change = Change.model_validate_json(line)
        except ValidationError as faults:
            why = faults.errors(include_url=False, include_input=False)[0]["msg"]
            fault = fault or f"{file.name}: line {back} from the end cannot be read ({why}); the one before it holds"
            continue
        shares = Shares.model_validate(change.model_dump(include=set(Shares.model_fields)))
        return Standing(shares=shares, change=change, fault=fault)
    return Standing(fault=fault)


def history(file: Path) -> Iterator[Change]:
    """The changes that can be read, the newest first."""
    if file.exists():
        for line in _last_lines(file):
            try:
                yield Change.model_validate_json(line)
            except ValidationError:
                continue


def _last_lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - TAIL_BYTES))
        lines = opened.read(TAIL_BYTES).split(b"\n")
    if size > TAIL_BYTES:
        del lines[0]
    return (line for line in reversed(lines) if line.strip())


@contextmanager
def _append_alone(file: Path) -> Iterator[int]:
    opened = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened
    finally:
        os.close(opened)
