"""Which of several formats a client wants (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from appointments.http.problems import Refusal


def best(accept: str, formats: Sequence[str]) -> str:
    """The format with the highest weight, of equals the first of `formats`. Raises `Refusal` (406) for none of them."""
    weights = {offered: _weight(accept, offered) for offered in formats}
    found = max(formats, key=lambda offered: weights[offered])
    if not weights[found]:
        raise Refusal("not-acceptable", f"it is there as {', '.join(formats)}")
    return found


def _weight(accept: str, offered: str) -> float:
    """That of the most specific range that takes it in."""
    found, specific = 0.0, -1
    for told in accept.split(","):
        range_, *parameters = (part.strip().lower() for part in told.split(";"))
        kind, _, _ = offered.partition("/")
        level = {"*/*": 0, f"{kind}/*": 1, offered: 2}.get(range_, -1)
        if level > specific:
            specific = level
            found = next((_number(p.removeprefix("q=")) for p in parameters if p.startswith("q=")), 1.0)
    return found


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
