"""Action labels: target before srcElement, attribute before dataset, in every shape that browsers gave them."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import UnknownLabel
from domain.labels import LABELS, action_label

pytestmark = pytest.mark.evidence(
    target="legacy UI events",
    answers=("R1.3",),
    given="events in every form of the legacy front end",
    when="the label is read",
    then="target wins over srcElement, an attribute over dataset; else a clear refusal",
    seen_in="refusal",
)

ATTRIBUTE_MAP = {"attributes": {"data-action": "book"}}
ATTRIBUTE_PAIRS = {"attributes": [["class", "x"], ["data-action", "book"]]}
ATTRIBUTE_NODES = {"attributes": [{"name": "class", "value": "x"}, {"name": "data-action", "value": "book"}]}
PLAIN = {"data-action": "book"}
DATASET = {"dataset": {"action": "book"}}
SHAPES = (ATTRIBUTE_MAP, ATTRIBUTE_PAIRS, ATTRIBUTE_NODES, PLAIN, DATASET)


@pytest.mark.parametrize("side", ["target", "srcElement"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read_on_either_side(side: str, shape: dict[str, Any]) -> None:
    assert action_label({"type": "click", side: shape}) == "book"


@pytest.mark.parametrize("shape", SHAPES)
def test_target_wins_over_src_element(shape: dict[str, Any]) -> None:
    assert action_label({"target": shape, "srcElement": {"data-action": "cancel"}}) == "book"
    assert action_label({"srcElement": {"data-action": "cancel"}, "target": shape}) == "book"


@pytest.mark.parametrize("shape", [ATTRIBUTE_MAP, ATTRIBUTE_PAIRS, ATTRIBUTE_NODES, PLAIN])
def test_an_attribute_wins_over_dataset(shape: dict[str, Any]) -> None:
    assert action_label({"target": {**shape, "dataset": {"action": "cancel"}}}) == "book"


@pytest.mark.parametrize(
    "empty", [None, {}, {"attributes": {}}, {"dataset": {}}, {"dataset": {"action": ""}}, "button", 7]
)
def test_a_target_without_a_label_lets_src_element_speak(empty: Any) -> None:
    assert action_label({"target": empty, "srcElement": PLAIN}) == "book"


@pytest.mark.parametrize("empty", [{"attributes": {"data-action": ""}}, {"data-action": " "}, {"data-action": None}])
def test_an_empty_attribute_lets_dataset_speak(empty: Any) -> None:
    assert action_label({"target": {**empty, "dataset": {"action": "cancel"}}}) == "cancel"


def test_an_unknown_label_on_target_is_not_passed_over() -> None:
    with pytest.raises(UnknownLabel, match="'delete' is not one of: book"):
        action_label({"target": {"data-action": "delete"}, "srcElement": PLAIN})


@pytest.mark.parametrize("label", ["Book", "book;drop", "x" * 10_000, "\0"])
def test_an_unknown_label_is_refused_and_named_in_short(label: str) -> None:
    with pytest.raises(UnknownLabel) as refused:
        action_label({"target": {"data-action": label}})
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("event", [{}, {"type": "click"}, {"target": {}, "srcElement": {}}, {"currentTarget": PLAIN}])
def test_a_missing_label_is_refused_with_what_was_expected(event: dict[str, Any]) -> None:
    with pytest.raises(UnknownLabel, match="carries no data-action label"):
        action_label(event)


@pytest.mark.parametrize("label", LABELS)
def test_the_list_of_labels_is_closed_and_each_is_a_command(label: str) -> None:
    assert action_label({"target": {"data-action": f" {label} "}}) == label
    assert LABELS[label] in ("book", "cancel", "reschedule")


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["target", "srcElement", "attributes", "dataset", "data-action", "name", "value"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["target", "srcElement"]), ANYTHING))
def test_whatever_a_browser_sends_the_answer_is_a_label_or_a_refusal(event: dict[str, Any]) -> None:
    with suppress(UnknownLabel):
        assert action_label(event) in LABELS
