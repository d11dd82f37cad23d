"""One invocation: the settings that it runs under, and where it prints."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console, RenderableType
from rich.text import Text

from appointments.settings import Settings, ignored, without_password
from domain.commands import refusal
from domain.errors import InvalidFields

PLAIN_WIDTH = 200
"""Columns where there is no terminal: one line stays one line."""


@dataclass(slots=True)
class Session:
    """What every command is given."""

    settings: Settings
    as_json: bool
    out: Console
    err: Console
    given: frozenset[str] = frozenset()
    """Settings that were given as options of this command."""
    answered: bool = False
    """Standard output holds a JSON document already: no second one may follow."""

    def answer(self, value: Any, shown: RenderableType) -> None:
        """Print the answer: `value` as one JSON document, or `shown` to a person."""
        self.answered = True
        if self.as_json:
            self.out.file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
        else:
            self.out.print(shown)

    def note(self, text: str) -> None:
        """A line beside the answer: what to know or to do next. Never mixed into the JSON."""
        self.err.print(Text(text), soft_wrap=True)

    def again(self, *words: str) -> str:
        """A command line on the same store, to copy."""
        store = self.settings.shard or without_password(self.settings.store)
        return shlex.join(("appointments", *words, "--store", store))


def console(stderr: bool = False) -> Console:
    """A console that prints what it is given: no markup, no guessed colours; wide where nobody looks at a terminal."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = PLAIN_WIDTH
    return made


def open_session(as_json: bool, given: dict[str, Any]) -> Session:
    """A session under the settings in force, with the options that were given on top. Raises `InvalidFields`.

    Names of settings that are none are told on standard error.
    """
    options = frozenset(name for name, value in given.items() if value is not None)
    session = Session(read_settings(given), as_json, console(), console(stderr=True), options)
    for line in ignored():
        session.note(line)
    return session


def read_settings(given: dict[str, Any]) -> Settings:
    """The settings in force. Raises `InvalidFields` that names each setting at fault."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as faults:
        found = refusal(faults)
        raise InvalidFields(f"the settings are not usable: {found.detail}", found.errors) from None
    except (SettingsError, ValueError, OSError) as fault:
        raise InvalidFields(f"the settings cannot be read: {fault}") from None
