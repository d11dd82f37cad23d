"""Measurements beside the targets; no part of the test suite."""
