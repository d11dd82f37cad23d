"""Where the last reading of each calendar ended: a small file beside the log. Losing it costs one full reading."""

import os
from contextlib import suppress
from pathlib import Path

from pydantic import Field, ValidationError

from domain.provider import Value
from projections.reconciliation.intended import Scope

OPEN_MAX = 10_000
"""Differences that are kept to be looked at again; with more, the next reading is a full one."""
CALENDARS_MAX = 10_000
FILE_MAX = 67_108_864


class Subject(Value):
    """A client reference, and where bookings under it were listed."""

    client_ref: str
    refs: tuple[str, ...] = ()


class Bookmark(Value):
    """The provider's token, and what was not matched then: it is looked at again, changed or not."""

    token: str = Field(max_length=65_536)
    open: tuple[Subject, ...] = Field(default=(), max_length=OPEN_MAX)


class _File(Value):
    calendars: dict[str, Bookmark] = Field(default_factory=dict, max_length=CALENDARS_MAX)


class Bookmarks:
    """The bookmarks of one log. A file that cannot be read is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, scope: Scope) -> Bookmark | None:
        """Where the last reading ended; None where no usable one is kept."""
        return self._load().calendars.get(_name(scope))

    def write(self, scope: Scope, bookmark: Bookmark | None) -> None:
        """Keep where this reading ended; None forgets. Where nothing can be written, the next reading is a full one."""
        calendars = {**self._load().calendars}
        calendars.pop(_name(scope), None)
        if bookmark is not None and len(calendars) < CALENDARS_MAX:
            calendars[_name(scope)] = bookmark
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            # Replaced as a whole: a crash leaves the file before or the one after.
            written = self._path.with_suffix(f".{os.getpid()}.tmp")
            written.write_text(_File(calendars=calendars).model_dump_json(), encoding="utf-8")
            written.replace(self._path)

    def _load(self) -> _File:
        try:
            if self._path.stat().st_size > FILE_MAX:
                return _File()
            return _File.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return _File()


def _name(scope: Scope) -> str:
    return f"{scope.provider}/{scope.tenant}/{scope.calendar}"
