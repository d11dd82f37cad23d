"""Times as people type them: RFC 3339, or the wall clock of a zone."""

from datetime import datetime

from domain.errors import InvalidFields
from domain.local_time import parse_instant, parse_local, to_instant


def instant(text: str, zone: str | None, option: str) -> datetime:
    """The instant that was typed for `option`. Raises `InvalidFields`, also for a local time without a zone."""
    pointer = "/" + option.removeprefix("--")
    try:
        local = parse_local(text)
        if local is None:
            return parse_instant(text)
        if zone is None:
            raise InvalidFields("a local time needs --time-zone, or an offset such as 2027-03-01T09:00:00+01:00")
        return to_instant(local, zone)
    except InvalidFields as fault:
        raise InvalidFields(f"{option}: {fault.detail}", ((pointer, fault.detail),)) from None
