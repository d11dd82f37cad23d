"""The comparison: A and B on the same cases, each against a provider of its own; all it says was measured."""
