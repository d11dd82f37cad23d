"""CSV files (RFC 4180): a header row with the names of `POST /v1/appointments`, then one booking a row.

`attendees` holds e-mail addresses with `;` between them, `organizer` one; `metadata.<name>` is one entry of the
metadata; an empty cell is a field that is not given.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from appointments.intake.fields import Rows
from appointments.intake.items import ROW_CHARS_MAX, FileRefused, Item, Scope, label

COLUMNS = (
    "key",
    "calendar",
    "start",
    "end",
    "time_zone",
    "summary",
    "location",
    "organizer",
    "attendees",
    "deadline_ms",
    "all_day",
    "recurrence",
)
REQUIRED = ("start", "end", "summary")
METADATA_PREFIX = "metadata."


def read(text: str, scope: Scope) -> Iterator[Item]:
    """The items of a CSV file, in its order; empty rows are passed over. Raises `FileRefused` for a broken frame."""
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = Rows("csv", scope)
    try:
        columns = _header(next(table, []))
        begun = table.line_num + 1
        for cells in table:
            number, begun = begun, table.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                yield rows.refusal(number, f"the row has {len(cells)} cells, the header {len(columns)}")
            elif any(len(cell) > ROW_CHARS_MAX for cell in cells):
                yield rows.refusal(number, f"a cell is longer than {ROW_CHARS_MAX} characters")
            else:
                yield rows.item(number, _fields(columns, cells))
    except csv.Error as malformed:
        raise FileRefused(f"line {table.line_num}: not CSV: {malformed}") from None


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if name not in COLUMNS and not (name.startswith(METADATA_PREFIX) and name != METADATA_PREFIX):
            raise FileRefused(
                f"the header has an unknown column {label(name)!r}; "
                f"there are: {', '.join(COLUMNS)}, {METADATA_PREFIX}<name>"
            )
    if len(set(names)) != len(names):
        raise FileRefused("the header has a column twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise FileRefused(f"the header has no column {', '.join(missing)}")
    return names


def _fields(columns: list[str], cells: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, cell in zip(columns, (cell.strip() for cell in cells), strict=True):
        if not cell:
            continue
        if name.startswith(METADATA_PREFIX):
            metadata[name.removeprefix(METADATA_PREFIX)] = cell
        elif name == "attendees":
            fields[name] = [{"email": email.strip()} for email in cell.split(";") if email.strip()]
        elif name == "organizer":
            fields[name] = {"email": cell}
        else:
            fields[name] = cell
    if metadata:
        fields["metadata"] = metadata
    return fields
