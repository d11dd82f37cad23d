"""Structured logs: one JSON line per fact, personal fields masked by an allow-list. Reads nothing, decides nothing."""

import hashlib
import hmac
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from appointments.settings import Settings
from domain import events as e
from domain.appointment import Appointment
from domain.personal import PRIVATE
from saga.inputs import Input, Turn

SHOWN = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "appointment_id",
        "correlation_id",
        "traceparent",
        "idempotency_key",
        "action_label",
        "attempt",
        "step",
        "operation",
        "kind",
        "reason",
        "version",
        "tenant",
        "provider",
        "state",
        "phase",
        "timeout_ms",
        "due_at",
        "until",
        "retry_after_ms",
        "in_flight",
        "conflict",
        "via",
        "replayed",
        "trusted",
        "look_at",
        "cleanup_until",
        "poll_at",
        "status",
        "operation_id",
        "action",
        "actor",
        "deadline_at",
        "definition",
        "forced",
        "recovered",
        "attempts",
        "retries",
        "duration_ms",
        "case",
        "verdict",
        "problem",
        "position",
        "opened",
        "failures",
        "calendar",
        "target",
    }
)
"""Only these keys are printed as they are; the value of any other is masked."""

MASK = "***"
OPEN_KEY = re.compile(r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-HJKMNP-TV-Z]{26})$", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_.:/-]{0,128}")
FREE_TEXT = frozenset(event.type for event, texts in PRIVATE.items() if "reason" in texts)
"""Events whose `reason` is somebody's prose: masked."""

NAMES: dict[type[e.Event], str] = {e.RetryScheduled: "retry_scheduled", e.CallDeferred: "circuit_open"}


def masked_key(key: str, secret: str) -> str:
    """A UUID or ULID as it is; any other key as a keyed hash, for people put names into keys."""
    if OPEN_KEY.fullmatch(key):
        return key
    return "hash:" + hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()[:16]


def masked_name(name: str, secret: str) -> str:
    """A name of a process or a conversation as it is; an address, or prose, as a keyed hash."""
    return name if NAME.fullmatch(name) else masked_key(name, secret)


def mask(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
    """Mask every value whose key is not in the allow-list."""
    return {key: value if key in SHOWN or value is None else MASK for key, value in line.items()}


def open_log(settings: Settings) -> tuple[FilteringBoundLogger, TextIO | None]:
    """A logger as the settings say; and the file to close, where there is one."""
    file: TextIO | None = None
    if settings.log_file is not None:
        Path(settings.log_file).parent.mkdir(parents=True, exist_ok=True)
        file = Path(settings.log_file).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 -- Parts.close closes it
    level = "warning" if file is None and settings.log_level == "info" else settings.log_level
    logger = structlog.wrap_logger(
        structlog.PrintLogger(file or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", logger), file


class TurnLog:
    """Writes one line for each event of a turn, after it is durable; so a log that takes no lines stops nothing."""

    def __init__(self, logger: FilteringBoundLogger, file: TextIO | None, key_secret: str) -> None:
        self._logger, self._file, self._secret = logger, file, key_secret
        self._failing = False
        self._quiet = not logger.is_enabled_for(logging.INFO)

    def __call__(self, before: Appointment, turned: Turn, given: Input) -> None:
        """Write the lines of one turn."""
        if self._quiet:
            return
        state = turned.state
        base = self.about(state)
        for event in turned.events:
            fields = event.model_dump(mode="json", exclude_defaults=True)
            fields.pop("at", None)
            fields.pop("key", None)
            if "actor" in fields:
                fields["actor"] = masked_name(fields["actor"], self._secret)
            if event.type in FREE_TEXT and "reason" in fields:
                fields["reason_text"] = fields.pop("reason")
            name = NAMES.get(type(event), event.type.rpartition(".")[0].replace("-", "_"))
            if getattr(event, "operation", None) is e.Operation.COMPENSATION and isinstance(event, e.StepStarted):
                name = "compensation"
            self._write(name, {**fields, **base, "attempt": fields.get("attempt", base["attempt"])})
            if isinstance(event, e.CompensationBegun) and event.reason is e.EndReason.RETRY_EXHAUSTED:
                self._write("retry_exhausted", base)

    def hit(self, state: Appointment) -> None:
        """A key that had been used before, with the same payload."""
        self._write("idempotent_hit", self.about(state))

    def unreadable(self, client_ref: str, provider: str) -> None:
        """A callback was kept for an operator, as the stream that it is for cannot be read."""
        self._write(
            "callback_kept", {"appointment_id": client_ref, "provider": provider, "kind": "unreadable"}, logging.ERROR
        )

    def fact(self, name: str, **fields: Any) -> None:
        """A fact that is no event of an appointment."""
        self._write(name, fields, logging.WARNING)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, name: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
        try:
            self._logger.log(level, name, **fields)
        except OSError as fault:
            if not self._failing:
                sys.stderr.write(f"the log takes no lines: {fault.strerror}; the work goes on without\n")
            self._failing = True
        else:
            self._failing = False

    def about(self, state: Appointment) -> dict[str, Any]:
        """The fields that every line about an appointment carries."""
        return {
            "appointment_id": str(state.id),
            "correlation_id": masked_name(state.correlation_id, self._secret),
            "idempotency_key": masked_key(state.key, self._secret),
            "action_label": state.action_label,
            "attempt": max((step.attempts for step in state.actions), default=0),
            "state": str(state.state),
            "version": state.version,
        }
