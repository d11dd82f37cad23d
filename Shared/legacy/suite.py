# ruff: noqa: PT009 -- the standard library alone: unittest's assertions say what was found
"""A's own suite: `python -m Shared.legacy.suite` prints TAP and exits 1 with the two failures that are known.

KNOWN: the names of the two failing tests. ASSUMED: what they assert in detail, and all tests that pass.
Nothing is marked as an expected failure: the suite fails as that of A does.
"""

import sys
import unittest
from typing import Any

from Shared.legacy.front import on_click
from Shared.legacy.labels import action_label

NOWHERE = "http://192.0.2.1/api/v2"
"""Documentation address (RFC 5737): a test that called it would hang, so no test here books."""


class LabelExtractor(unittest.TestCase):
    """The first line of each docstring is the name of the test."""

    def test_target(self) -> None:
        """reads data-action from event.target"""
        self.assertEqual(action_label({"target": {"attributes": {"data-action": "save"}}}), "save")

    def test_target_dataset(self) -> None:
        """falls back to the dataset of event.target"""
        self.assertEqual(action_label({"target": {"dataset": {"action": "save"}}}), "save")

    def test_no_label(self) -> None:
        """an element without a label gives nothing"""
        self.assertIsNone(action_label({"target": {"attributes": {}}}))

    def test_no_op(self) -> None:
        """a click without a label does nothing"""
        self.assertEqual(on_click({"target": {}}, NOWHERE), {"told": "no_op"})

    def test_src_element(self) -> None:
        """IE11-style events expose attributes only via srcElement"""
        self.assertEqual(action_label({"srcElement": {"attributes": {"data-action": "save"}}}), "save")

    def test_src_element_dataset(self) -> None:
        """dataset fallback should read from srcElement"""
        self.assertEqual(action_label({"srcElement": {"dataset": {"action": "save"}}}), "save")


class Tap(unittest.TestResult):
    """Prints each test as a line of the Test Anything Protocol."""

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 -- named by unittest
        """One line."""
        print(f"ok {self.testsRun} - {test.shortDescription()}")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802 -- named by unittest
        """One line, and the reason."""
        super().addFailure(test, err)
        print(f"not ok {self.testsRun} - {test.shortDescription()}\n  # {str(err[1]).splitlines()[0]}")

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802 -- named by unittest
        """An error is a failure too."""
        self.addFailure(test, err)


if __name__ == "__main__":
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(LabelExtractor)
    print(f"1..{tests.countTestCases()}")
    sys.exit(not tests.run(Tap()).wasSuccessful())
