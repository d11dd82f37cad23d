"""Every real calendar file that the locked packages ship is read to its end."""

import pytest

from appointments.intake import Intake, Item, read_file
from appointments.intake.corpus import CORPUS_PACKAGES, corpus, corpus_versions

FILES_MIN = 200
ITEMS_MIN = 1_000
INTAKES_MIN = 500


def read_all() -> dict[str, list[Item]]:
    return {str(path): list(read_file(path, "main")) for path in corpus()}


@pytest.fixture(scope="module")
def items() -> dict[str, list[Item]]:
    return read_all()


def test_every_file_gives_something(items: dict[str, list[Item]]) -> None:
    assert len(items) >= FILES_MIN
    assert [name for name, found in items.items() if not found] == []
    assert corpus_versions().keys() == CORPUS_PACKAGES.keys()


def test_most_events_are_booked_and_every_refusal_has_a_reason(items: dict[str, list[Item]]) -> None:
    found = [item for of_file in items.values() for item in of_file]
    intakes = [item for item in found if isinstance(item, Intake)]
    assert len(found) >= ITEMS_MIN
    assert len(intakes) >= INTAKES_MIN
    assert all(item.reason.isprintable() and item.reason for item in found if not isinstance(item, Intake))
    assert not [item for item in found if not isinstance(item, Intake) and "cannot be read: " in item.reason]


def test_within_one_file_no_key_comes_twice(items: dict[str, list[Item]]) -> None:
    for name, found in items.items():
        keys = [item.key for item in found if isinstance(item, Intake)]
        assert len(keys) == len(set(keys)), name


def test_reading_again_in_another_order_gives_the_same(items: dict[str, list[Item]]) -> None:
    backwards = {str(path): list(read_file(path, "main")) for path in reversed(corpus())}
    assert backwards == items
