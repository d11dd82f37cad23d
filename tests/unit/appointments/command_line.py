"""The command line as a test drives it: in a folder and an environment of its own."""

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from appointments.cli.app import app

PROVIDER_GONE = "http://127.0.0.1:9/api/v2"
"""Nobody listens on the discard port: every call is refused before a byte is sent."""
BOOKING = (
    *("--calendar", "main", "--start", "2031-03-03T09:00", "--end", "2031-03-03T09:30"),
    *("--time-zone", "Europe/Berlin", "--summary", "Check-up"),
)


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON document and nothing else."""
        return json.loads(self.out)


def appointments(*words: str) -> Said:
    """Run `appointments …` in this process."""
    result = CliRunner().invoke(app, words)
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def booked(key: str = "order-1", *more: str) -> dict[str, Any]:
    """An appointment, booked."""
    said = appointments("book", *BOOKING, "--key", key, "--json", *more)
    assert said.code == 0, said
    document: dict[str, Any] = said.json
    return document
