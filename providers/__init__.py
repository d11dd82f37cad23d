"""Adapters of the provider port (`domain/provider.py`)."""
