"""Three-way reconciliation: what was intended (the log), what was attempted (its recorded calls), what is there.

`classify` is the pure heart; `run` reads both sides and checks every difference again before it is told; `healing`
turns findings into ordinary commands. Nothing here writes to the log or to a provider.
"""
