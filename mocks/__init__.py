"""The `/api/v2` provider as a real HTTP server with scripted faults and a ledger."""

from mocks.server import MockProvider, serve

__all__ = ["MockProvider", "serve"]
