"""How fast a tenant may ask: a burst, then evenly; each tenant for itself, in bounded memory."""

from datetime import UTC, datetime, timedelta

import pytest

from appointments.access import throttle
from appointments.access.throttle import Throttle

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_burst_goes_through_and_then_one_at_a_time() -> None:
    door = Throttle(10, 3)
    assert [door.wait_s("acme", NOON) for _ in range(3)] == [None] * 3
    assert door.wait_s("acme", NOON) == 0.1
    assert door.wait_s("acme", at(0.1)) is None
    assert door.wait_s("acme", at(0.1)) is not None


def test_over_a_long_time_the_rate_holds_exactly() -> None:
    door = Throttle(10, 5)
    let_in = sum(door.wait_s("acme", at(n / 1_000)) is None for n in range(10_000))
    assert let_in == 10 * 10 + 4


def test_one_tenant_s_haste_is_no_other_s_wait() -> None:
    door = Throttle(1, 1)
    assert door.wait_s("acme", NOON) is None
    assert door.wait_s("acme", NOON) is not None
    assert door.wait_s("other", NOON) is None


def test_without_a_rate_nobody_waits() -> None:
    door = Throttle(None, 1)
    assert all(door.wait_s("acme", NOON) is None for _ in range(1_000))


@pytest.mark.parametrize("apart_s", [2, 0], ids=["one after the other", "all at once"])
def test_only_the_last_ones_are_remembered(monkeypatch: pytest.MonkeyPatch, apart_s: float) -> None:
    """Also of more than that at once: a stranger chooses its addresses."""
    monkeypatch.setattr(throttle, "REMEMBERED_MAX", 100)
    door = Throttle(1, 1)
    for n in range(1_000):
        assert door.wait_s(f"tenant-{n}", at(n * apart_s)) is None
    assert len(door._due) == 100
    assert door.wait_s("tenant-999", at(999 * apart_s)) is not None
