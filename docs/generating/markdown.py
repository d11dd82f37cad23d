"""Markdown as the documents write it."""

import json
from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def one_line(text: str | None) -> str:
    """A docstring as one line."""
    return " ".join((text or "").split())


def json_block(value: Any) -> str:
    """A value as a fenced JSON example, short fields beside each other."""
    body = ",\n".join(f" {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in value.items())
    return f"```json\n{{{body.lstrip()}}}\n```"
