"""The whole system on a virtual clock, between a store and providers that fail as the seed says."""
