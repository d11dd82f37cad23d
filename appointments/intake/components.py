"""The frame of an iCalendar file: content lines, and the components that BEGIN and END make of them (RFC 5545 3.6).

Owns unfolding, nesting and where each component stands in the file, so that one broken event does not take the others
with it. Reads single lines with the `icalendar` library; what the properties mean is not decided here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from icalendar.parser import Contentline

from appointments.intake.items import LINE_CHARS_MAX, FileRefused, label

NESTING_MAX = 8
_LINE_END = re.compile(r"\r\n|\n|\r")
_NAME = re.compile(r"[A-Za-z0-9-]+")


class Property(NamedTuple):
    """One property of a component: its parameters by upper-case name, and its value with escapes resolved."""

    value: str
    parameters: dict[str, str]


@dataclass(slots=True)
class Component:
    """What stands between a BEGIN and its END. `closed` is False where the END is missing. `line` counts from 1."""

    name: str
    line: int
    closed: bool = False
    lines: list[tuple[int, str]] = field(default_factory=list)
    inner: list["Component"] = field(default_factory=list)

    def properties(self) -> tuple[dict[str, list[Property]], dict[str, int]]:
        """The properties by upper-case name, and the names (with line numbers) of those that cannot be read."""
        found: dict[str, list[Property]] = {}
        broken: dict[str, int] = {}
        for number, line in self.lines:
            try:
                name, parameters, value = Contentline(line).parts()  # type: ignore[no-untyped-call]
            except ValueError:
                name_like = _NAME.match(line)
                broken.setdefault(name_like[0].upper() if name_like else "", number)
                continue
            plain = {str(key).upper(): _first(given) for key, given in parameters.items()}
            found.setdefault(name.upper(), []).append(Property(str(value), plain))
        return found, broken


def components(text: str) -> Iterator[Component]:
    """The outermost components of a file, one by one; raises `FileRefused` where the frame is broken."""
    open_ones: list[Component] = []
    seen = False
    for number, line in _unfolded(text):
        keyword, _, name = line.partition(":")
        match keyword.strip().upper():
            case "BEGIN":
                seen = True
                if len(open_ones) == NESTING_MAX:
                    raise FileRefused(f"line {number}: components are nested deeper than {NESTING_MAX}")
                begun = Component(name.strip().upper(), number)
                if open_ones:
                    open_ones[-1].inner.append(begun)
                open_ones.append(begun)
            case "END":
                top = _close(open_ones, name.strip().upper(), number)
                if top is not None:
                    yield top
            case _ if open_ones:
                open_ones[-1].lines.append((number, line))
            case _ if not seen:
                raise FileRefused(f"line {number}: not iCalendar, which starts with BEGIN:VCALENDAR")
            case _ if not keyword.upper().startswith("X-"):
                raise FileRefused(f"line {number}: stands outside of every component: {label(line)!r}")
    if open_ones:
        yield open_ones[0]


def _close(open_ones: list[Component], name: str, number: int) -> Component | None:
    """Close the innermost component of this name; those that it leaves open inside stay unclosed."""
    if all(component.name != name for component in open_ones):
        raise FileRefused(f"line {number}: END:{label(name)} without its BEGIN")
    while True:
        ended = open_ones.pop()
        if ended.name == name:
            ended.closed = True
            return None if open_ones else ended


def _unfolded(text: str) -> Iterator[tuple[int, str]]:
    """Content lines with the number of the line where each begins; a line that starts with a blank goes on the last."""
    parts: list[str] = []
    size = begun = 0
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if parts and line[:1] in (" ", "\t"):
            parts.append(line[1:])
            size += len(line) - 1
        elif line.strip():
            if parts:
                yield begun, "".join(parts)
            parts, size, begun = [line], len(line), number
        if size > LINE_CHARS_MAX:
            raise FileRefused(f"line {begun}: longer than {LINE_CHARS_MAX} characters")
    if parts:
        yield begun, "".join(parts)


def _first(given: str | list[str]) -> str:
    return str(given if isinstance(given, str) else next(iter(given), ""))
