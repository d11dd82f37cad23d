"""JSON as it is taken from strangers: UTF-8, one meaning, bounded depth. Raises `Malformed` for everything else.

RFC 8259 leaves open what duplicate names, huge numbers and lone surrogates mean; nobody's booking should hang on that.
"""

import json
import math
from typing import Any

DEPTH_MAX = 32


class Malformed(Exception):
    """What came has not one meaning."""


def strict_json(body: bytes) -> Any:
    """The one value that these bytes mean. Raises `Malformed`."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except json.JSONDecodeError as fault:
        raise Malformed(f"the body is no JSON: {fault.msg} (character {fault.pos})") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer of thousands of digits
        raise Malformed("a number in the body is out of range") from None
    _check(value, 1)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("an object in the body has the same name twice")
    return made


def _no_number(told: str) -> Any:
    raise Malformed(f"{told} is no JSON number")


def _finite(told: str) -> float:
    number = float(told)
    if not math.isfinite(number):
        raise Malformed("a number in the body is out of range")
    return number


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\0" in value or not _encodable(value):
            raise Malformed("a text in the body holds NUL or half of a surrogate pair")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name, depth)
            _check_inner(inner, depth)
    elif isinstance(value, list):
        for inner in value:
            _check_inner(inner, depth)


def _check_inner(value: Any, depth: int) -> None:
    if depth >= DEPTH_MAX and isinstance(value, dict | list):
        raise _too_deep()
    _check(value, depth + 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep() -> Malformed:
    return Malformed(f"the body is nested deeper than {DEPTH_MAX}")
