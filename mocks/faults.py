"""Scripts of the control plane: which calls they match, how often they act, and with which behaviours."""

from typing import Self

from pydantic import Field, TypeAdapter, model_validator

from mocks.behaviors import Behavior, Model, Op


class Match(Model):
    """Which calls a script means. Fields left out match everything."""

    op: Op | None = None
    client_ref: str | None = Field(default=None, min_length=1, max_length=255)
    """A glob, case-sensitive."""
    calendar_id: str | None = Field(default=None, min_length=1, max_length=255)
    nth: int = Field(default=1, ge=1, le=1_000_000)
    """The first matching call, counted from when the script came, that the script acts on."""


class Script(Model):
    """One instruction of the control plane."""

    match: Match = Match()
    times: int | None = Field(default=None, ge=-1, le=1_000_000)
    """How many calls it acts on, -1 for all. Default: one, or one for each of `behaviors`. A fail_then_succeed counts
    as one for all failures of one client reference."""
    seed: int = 0
    behavior: Behavior | None = None
    behaviors: tuple[Behavior, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _is_playable(self) -> Self:
        if (self.behavior is None) == (not self.behaviors):
            raise ValueError("give either behavior or behaviors")
        if self.times == 0:
            raise ValueError("times is -1 or at least 1")
        for behavior in self.turns:
            if self.match.op is not None and self.match.op not in behavior.ops():
                raise ValueError(f"{behavior.mode} means nothing on {self.match.op}")
        return self

    @property
    def turns(self) -> tuple[Behavior, ...]:
        """The behaviours, used in turn."""
        return self.behaviors if self.behavior is None else (self.behavior,)

    @property
    def limit(self) -> int:
        """How many calls it acts on, -1 for all."""
        return len(self.turns) if self.times is None else self.times


SCRIPTS: TypeAdapter[list[Script]] = TypeAdapter(list[Script])
