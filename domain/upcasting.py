"""Upcasters: how a stored event of an old version is read as one of today. The log itself is never rewritten."""

from collections.abc import Callable
from typing import Any

Upcaster = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]

UPCASTERS: dict[str, Upcaster] = {}
"""Old type name to a function that gives the next type name and body. Empty: every type is still at v1."""

UPCASTS_MAX = 50


def upcast(type_: str, body: dict[str, Any], upcasters: dict[str, Upcaster] = UPCASTERS) -> tuple[str, dict[str, Any]]:
    """Follow the chain from an old version to the newest one. Raises ValueError for a chain that does not end."""
    for _ in range(UPCASTS_MAX):
        if type_ not in upcasters:
            return type_, body
        type_, body = upcasters[type_](body)
    raise ValueError(f"the upcasters of {type_} do not end")
