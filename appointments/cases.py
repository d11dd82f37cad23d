"""The canonical cases: run through the real stack (HTTP to the mock over loopback) and compared with what must come.

Owns the shape of `data/test_data.json`, `data/expected_postchange.json` and `results/results_post.json`.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from appointments.orchestrator import Orchestrator
from appointments.settings import Settings
from appointments.views import Appointment, AuditEvent
from domain.errors import CommandRefused
from domain.events import EndReason
from domain.identity import appointment_id
from domain.lifecycle import Phase, State
from mocks.faults import SCRIPTS
from mocks.server import MockProvider

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 -- of the mock, made for every run alike
SETTLED_WITHIN_S = 30.0
OPERATIONS = ("create", "get", "find", "cancel", "reschedule", "notify")


class Strict(BaseModel):
    """Refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid")


class Script(Strict):
    """What the provider is told to do, in the words of its control plane."""

    match: dict[str, Any]
    behavior: dict[str, Any]
    times: int = Field(default=1, ge=-1)


class Send(Strict):
    """A command of a case: when (after the case's begin, or after the end of what was sent before), what, which key."""

    command: Literal["book", "cancel", "reschedule", "ui_event"]
    key: str
    payload: dict[str, Any] = Field(default_factory=dict)
    at_ms: int | None = Field(default=None, ge=0, le=60_000)
    """Milliseconds after the first command was sent; None: once everything sent before has ended."""


class Case(Strict):
    """One case."""

    id: str = Field(pattern=r"^c\d\d$")
    title: str
    settings: dict[str, int | float] = Field(default_factory=dict)
    scripts: list[Script] = Field(default_factory=list)
    commands: list[Send] = Field(min_length=1, max_length=10)


class TestData(Strict):
    """`data/test_data.json`: the settings that hold unless a case says otherwise, and the cases."""

    __test__ = False

    settings: dict[str, int | float]
    cases: list[Case]


class Gap(Strict):
    """After the n-th create call (1-based) nothing is created for so long."""

    after: int
    at_least_ms: int


class Expected(Strict):
    """What must come of a case."""

    phase: Phase
    state: State
    reason: EndReason | None
    attempts: int
    retries: int
    provider_calls: dict[str, int]
    idempotent_hits: int
    compensated: bool
    live_bookings: int
    breaker_opened: int
    refusals: list[str] = Field(default_factory=list)
    confirmations: int
    provider_version: int | None = None
    last_timeout_ms_max: int | None = None
    gap: Gap | None = None


class Result(Strict):
    """What came of a case, and where it differs from what must come."""

    id: str
    title: str
    phase: Phase
    state: State
    reason: EndReason | None
    attempts: int
    retries: int
    provider_calls: dict[str, int]
    idempotent_hits: int
    compensated: bool
    live_bookings: int
    breaker_opened: int
    refusals: list[str]
    confirmations: int
    provider_version: int | None
    last_timeout_ms: int | None
    create_gaps_ms: list[int]
    duration_ms: int
    parked: bool
    verdict: Literal["passed", "failed"] = "passed"
    differences: list[str] = Field(default_factory=list)


class Totals(Strict):
    """All cases together."""

    total: int
    passed: int
    failed: int
    confirmed: int
    ended_failed: int
    cancelled: int


class Results(Strict):
    """`results/results_post.json`."""

    generated_at: datetime
    totals: Totals
    cases: list[Result]


class ExpectedData(Strict):
    """`data/expected_postchange.json`."""

    cases: dict[str, Expected]


class CaseSettings(Settings):
    """Settings of a case alone: from the environment a case could be sent to somebody's real systems."""

    model_config = SettingsConfigDict(extra="forbid", toml_file=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only."""
        return (init_settings,)


def load(folder: Path) -> tuple[TestData, dict[str, Expected]]:
    """The cases and what must come of them, checked; raises `OSError` and `ValueError`."""
    data = TestData.model_validate_json((folder / "test_data.json").read_bytes())
    expected = ExpectedData.model_validate_json((folder / "expected_postchange.json").read_bytes()).cases
    for case in data.cases:
        CaseSettings.model_validate({**data.settings, **case.settings})
        SCRIPTS.validate_python([script.model_dump() for script in case.scripts])
    missing = [case.id for case in data.cases if case.id not in expected]
    if missing:
        raise ValueError(f"nothing is expected of {', '.join(missing)}")
    return data, expected


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schemas beside the data files, from the models that read them."""
    return {
        "test_data.schema.json": TestData.model_json_schema(),
        "expected_postchange.schema.json": ExpectedData.model_json_schema(),
    }


async def run(data: TestData, expected: dict[str, Expected], log_file: Path | None = None) -> AsyncIterator[Result]:
    """Run case after case, each against a fresh provider, a fresh breaker and a fresh store."""
    for case in data.cases:
        result = await run_case(case, data.settings, log_file)
        yield compare(result, expected[case.id])


async def run_case(
    case: Case, defaults: dict[str, int | float], log_file: Path | None = None, store: str | None = None
) -> Result:
    """Run one case through the real stack; on a file of its own, or on an empty database (`store`)."""
    with TemporaryDirectory(prefix="appointments-case-") as folder:
        async with MockProvider(secret=SECRET) as mock:
            for script in case.scripts:
                mock.load(script.model_dump())
            settings = CaseSettings.model_validate(
                {
                    **defaults,
                    **case.settings,
                    "store": store or f"sqlite:///{folder}/case.db",
                    "state_folder": folder,
                    "provider": mock.url,
                    "callback_secret": SECRET,
                    "callback_listen": "127.0.0.1:0",
                    "log_file": log_file,
                }
            )
            async with Orchestrator.open(settings) as desk:
                return await _Play(case, desk, mock).result()


class _Play:
    def __init__(self, case: Case, desk: Orchestrator, mock: MockProvider) -> None:
        self._case, self._desk, self._mock = case, desk, mock
        self._id = appointment_id(desk.settings.tenant, case.commands[0].key)
        self._hits, self._refusals = 0, list[str]()

    async def result(self) -> Result:
        began = time.perf_counter()
        await self._commands(began)
        seen = await self._end()
        duration_ms = round((time.perf_counter() - began) * 1_000)
        trail = await self._desk.events(self._id) if seen else ()
        ledger = self._mock.ledger()
        calls = {op: count for op, count in self._mock.calls().items() if op in OPERATIONS and count}
        mine = [entry for entry in ledger["bookings"] if entry["client_ref"] == str(self._id)]
        creates = [r["at"] for r in self._mock.requests() if r["op"] == "create"]
        timeouts = [t.data["timeout_ms"] for t in trail if t.type == "step-started.v1" and t.data["step"] == "calendar"]
        return Result(
            id=self._case.id,
            title=self._case.title,
            phase=seen.phase if seen else Phase.INIT,
            state=seen.state if seen else State.INIT,
            reason=seen.reason if seen else None,
            attempts=seen.attempts if seen else 0,
            retries=seen.retries if seen else 0,
            provider_calls=calls,
            idempotent_hits=self._hits,
            compensated=any(_compensated(line) for line in trail),
            live_bookings=ledger["live"],
            breaker_opened=sum(b.opened for b in self._desk.runtime.lanes.breakers().values()),
            refusals=self._refusals,
            confirmations=sum(line.type == "appointment-confirmed.v1" for line in trail),
            provider_version=max((entry["version"] for entry in mine), default=None),
            last_timeout_ms=timeouts[-1] if timeouts else None,
            create_gaps_ms=[round((b - a) * 1_000) for a, b in itertools.pairwise(creates)],
            duration_ms=duration_ms,
            parked=seen.parked if seen else False,
        )

    async def _commands(self, began: float) -> None:
        for send in self._case.commands:
            if send.at_ms is None:
                await self._end()
            else:
                await asyncio.sleep(max(0.0, began + send.at_ms / 1_000 - time.perf_counter()))
            try:
                answer = await self._send(send)
                self._hits += answer.replayed
            except CommandRefused as refusal:
                self._refusals.append(f"{refusal.status} {refusal.problem}")

    async def _send(self, send: Send) -> Appointment:
        desk, key, payload = self._desk, send.key, send.payload
        match send.command:
            case "book":
                return await desk.book(payload, key=key)
            case "ui_event":
                return await desk.ui_event(payload, key=key)
            case "cancel":
                return await desk.cancel(self._id, key=key, **payload)
            case "reschedule":
                return await desk.reschedule(self._id, key=key, **payload)

    async def _end(self) -> Appointment | None:
        try:
            return await self._desk.show(UUID(str(self._id)), wait=SETTLED_WITHIN_S)
        except CommandRefused:
            return None


def _compensated(line: AuditEvent) -> bool:
    return line.type == "step-succeeded.v1" and line.data.get("operation") == "compensation"


def compare(result: Result, expected: Expected) -> Result:
    """The result with its verdict: field by field against what must come."""
    differences = []
    for name in Expected.model_fields:
        if name in ("provider_version", "last_timeout_ms_max", "gap"):
            continue
        want, got = getattr(expected, name), getattr(result, name)
        if want != got:
            differences.append(f"{name}: expected {want}, found {got}")
    if expected.provider_version not in (None, result.provider_version):
        differences.append(f"provider_version: expected {expected.provider_version}, found {result.provider_version}")
    limit = expected.last_timeout_ms_max
    if limit is not None and (result.last_timeout_ms is None or result.last_timeout_ms > limit):
        differences.append(f"last_timeout_ms: expected at most {limit}, found {result.last_timeout_ms}")
    if expected.gap is not None:
        gap = result.create_gaps_ms[expected.gap.after - 1 : expected.gap.after]
        if not gap or gap[0] < expected.gap.at_least_ms:
            differences.append(f"gap after create {expected.gap.after}: found {gap}, {expected.gap.at_least_ms} wanted")
    verdict: Literal["passed", "failed"] = "failed" if differences else "passed"
    return result.model_copy(update={"verdict": verdict, "differences": differences})


def summarise(results: list[Result], at: datetime) -> Results:
    """All results with their totals."""
    passed = sum(result.verdict == "passed" for result in results)
    states = [result.state for result in results if int(result.id[1:]) <= 18]
    totals = Totals(
        total=len(results),
        passed=passed,
        failed=len(results) - passed,
        confirmed=states.count(State.CONFIRMED),
        ended_failed=states.count(State.FAILED),
        cancelled=states.count(State.CANCELLED),
    )
    return Results(generated_at=at, totals=totals, cases=results)
