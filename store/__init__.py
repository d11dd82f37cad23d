"""The event log: tables, recorder, group-commit journal, open work."""
