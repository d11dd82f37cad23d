"""Reconciliations over HTTP: a report is made, shown in three formats, and healed once."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appointments.access.roles import Principal, Role
from appointments.access.tokens import TokenFile
from appointments.http import reports
from domain.errors import ProviderUnavailable
from domain.provider import BookingDetails, Call, Page
from providers.local import LocalProvider
from saga.clock import WallClock
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2", "R3.3", "R8.1"),
    given="a calendar in which somebody has moved one booking and made another",
    when="a reconciliation is asked for, read and healed, and healed again",
    then="the report tells both, a dry run changes nothing, healing mends what may be mended, a second time nothing",
    seen_in="answers, calendar",
)

RECONCILE = "/v1/reconciliations"
NOBODY = f"{RECONCILE}/00000000-0000-4000-8000-000000000000"
THERE = BookingDetails(
    calendar="main",
    start=datetime(2031, 3, 3, 14, tzinfo=UTC),
    end=datetime(2031, 3, 3, 15, tzinfo=UTC),
    time_zone="UTC",
    summary="Check-up",
)
RESTORE = {"calendar": "main", "policy": "restore"}


class Unreadable(LocalProvider):
    """A calendar that cannot be listed."""

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """It does not answer."""
        raise ProviderUnavailable("main does not answer")


async def send(port: int, target: str, fields: Any, *lines: str, key: str = "k") -> Answer:
    return await ask(port, post(json.dumps(fields).encode(), JSON, *lines, target=target, key=key))


async def edited(port: int, provider: LocalProvider) -> str:
    """The id of the booking that somebody has moved in the calendar; there is a stranger's as well, on another day."""
    booked = (await send(port, "/v1/appointments", BOOKING, "Prefer: wait=5")).json
    call = Call(operation_id="by-hand", client_ref="theirs", timeout_ms=1_000)
    await provider.reschedule(call, booked["provider_ref"], None, THERE)
    later = {"start": datetime(2031, 4, 1, tzinfo=UTC), "end": datetime(2031, 4, 2, tzinfo=UTC)}
    await provider.create(call, THERE.model_copy(update=later))
    return str(booked["id"])


def kinds(report: Answer) -> dict[str, str | None]:
    return {finding["kind"]: finding["appointment"] for finding in report.json["findings"]}


async def test_a_report_is_made_and_read_in_the_format_that_is_asked_for() -> None:
    provider = LocalProvider("main")
    async with serving(provider=provider) as port:
        moved = await edited(port, provider)
        made = await send(port, RECONCILE, {"calendar": "main"})
        assert (made.status, kinds(made)) == (201, {"drifted": moved, "orphaned": None})
        here = made.headers["location"]
        assert made.json["links"] == {"self": here, "heal": f"{here}/heal"}
        assert (await ask(port, head("GET", here))).body == made.body

        as_csv = await ask(port, head("GET", here, "Accept: text/csv"))
        assert (as_csv.headers["content-type"], as_csv.headers["vary"]) == ("text/csv; charset=utf-8", "Accept")
        rows = list(csv.DictReader(io.StringIO(as_csv.body.decode(), newline="")))
        assert {row["class"] for row in rows} == {"drifted", "orphaned"}
        as_page = await ask(port, head("GET", here, "Accept: text/html, */*;q=0.1"))
        assert (as_page.headers["content-type"], moved.encode() in as_page.body) == ("text/html; charset=utf-8", True)
        assert (await ask(port, head("GET", here, "Accept: image/png"))).problem == "not-acceptable"


async def test_a_dry_run_changes_nothing_and_healing_heals_once() -> None:
    provider = LocalProvider("main")
    async with serving(provider=provider) as port:
        moved = await edited(port, provider)
        heal = (await send(port, RECONCILE, RESTORE)).json["links"]["heal"]
        for fields in ({"dry_run": True}, {}):
            shown = (await send(port, heal, fields)).json
            assert (shown["dry_run"], [one["outcome"] for one in shown["items"]]) == (True, ["planned"])
        assert kinds(await send(port, RECONCILE, RESTORE)) == {"drifted": moved, "orphaned": None}

        healed = (await send(port, heal, {"dry_run": False})).json["items"]
        assert [(one["appointment"], one["command"], one["outcome"]) for one in healed] == [(moved, "restore", "given")]
        mended = await ask(port, head("GET", f"/v1/appointments/{moved}"))
        assert mended.json["start"] == BOOKING["start"]
        events = (await ask(port, head("GET", f"/v1/appointments/{moved}/events"))).json["items"]
        assert "tester" in {event["actor"] for event in events}
        again = (await send(port, heal, {"dry_run": False})).json["items"]
        assert [one["outcome"] for one in again] in (["repeated"], ["refused"])
        after = (await ask(port, head("GET", f"/v1/appointments/{moved}"))).json
        assert (after["state"], kinds(await send(port, RECONCILE, RESTORE))) == ("confirmed", {"orphaned": None})


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ({}, {"drifted", "orphaned"}),
        ({"to": "2031-03-31T00:00:00Z"}, {"drifted"}),
        ({"from": "2031-03-31T00:00:00Z"}, {"orphaned"}),
        ({"from": "2031-03-03T00:00:00Z", "to": "2031-03-03T08:00:00Z"}, set[str]()),
    ],
    ids=["control: everything", "to", "from", "both"],
)
async def test_only_what_lies_between_is_told(between: dict[str, str], found: set[str]) -> None:
    provider = LocalProvider("main")
    async with serving(provider=provider) as port:
        await edited(port, provider)
        report = await send(port, RECONCILE, {"calendar": "main", **between})
        assert set(kinds(report)) == found
        assert {kind for kind, many in report.json["counts"].items() if many and kind != "matched"} == found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"calendar": "Main"},
        {"calendar": "main", "policy": "guess"},
        {"calendar": "main", "from": "2031-03-03"},
        {"calendar": "main", "from": "2031-03-03T00:00:00Z", "to": "2031-03-03T00:00:00Z"},
    ],
)
async def test_what_cannot_be_compared_is_refused(fields: Any) -> None:
    async with serving() as port:
        assert (await send(port, RECONCILE, fields)).problem == "invalid-fields"


async def test_a_provider_that_does_not_answer_is_told_as_that() -> None:
    async with serving(provider=Unreadable("main")) as port:
        assert (await send(port, RECONCILE, {"calendar": "main"})).problem == "provider-unavailable"


async def test_a_report_that_is_not_there_any_more_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPORTS_MAX", 1)
    async with serving() as port:
        assert (await ask(port, head("GET", NOBODY))).problem == "unknown-report"
        assert (await send(port, f"{NOBODY}/heal", {"dry_run": False})).problem == "unknown-report"
        first, second = [(await send(port, RECONCILE, {"calendar": "main"})).headers["location"] for _ in range(2)]
        assert (await ask(port, head("GET", first))).problem == "unknown-report"
        assert (await ask(port, head("GET", second))).status == 200


async def test_tokens_decide_who_may_compare_read_and_heal_and_whose(tmp_path: Path) -> None:
    tokens, now = TokenFile(tmp_path / "tokens"), WallClock().now()

    def token(tenant: str, role: Role) -> str:
        who = Principal(tenant=tenant, actor="tester", role=role)
        return f"Authorization: Bearer {tokens.make(who, 'tester', '', now, None)[0]}"

    auditor, booker, stranger = token("ours", Role.AUDITOR), token("ours", Role.BOOKER), token("theirs", Role.ADMIN)
    async with serving(tokens=tokens) as port:
        assert (await send(port, RECONCILE, RESTORE, booker)).problem == "forbidden"
        here = (await send(port, RECONCILE, RESTORE, auditor)).headers["location"]
        assert (await ask(port, head("GET", here, auditor))).status == 200
        assert (await send(port, f"{here}/heal", {"dry_run": False}, auditor)).problem == "forbidden"
        assert (await ask(port, head("GET", here, stranger))).problem == "unknown-report"
        assert (await send(port, f"{here}/heal", {"dry_run": False}, stranger)).problem == "unknown-report"
        assert (await send(port, f"{here}/heal", {}, token("ours", Role.OPERATOR))).status == 200
