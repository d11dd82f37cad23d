"""A report in every form: no personal text, no formula, no markup from outside; and a plan that repeats exactly."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from domain.commands import Act, OperatorAction, Repair, ReportBooking
from domain.events import Operation
from domain.provider import BookingStatus, ProviderBooking
from projections.reconciliation.bookmarks import OPEN_MAX, Bookmark, Bookmarks, Subject
from projections.reconciliation.healing import REASON_MAX, plan
from projections.reconciliation.intended import Scope
from projections.reconciliation.model import (
    Attempted,
    Difference,
    Finding,
    Kind,
    Origin,
    Proposal,
    Report,
    Unchecked,
)
from projections.reconciliation.page import ROWS_MAX, page, when_started
from projections.reconciliation.table import COLUMNS, to_csv

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SEEN = ProviderBooking(
    provider_ref="ref-1",
    client_ref="c",
    status=BookingStatus.ACCEPTED,
    start=NOON,
    end=NOON + timedelta(hours=1),
    summary="Ms Pat Example",
)
EVIL = "=cmd|' /C calc'!A0<script>alert(1)</script>\"'"
SCOPE = Scope("main", "main", "default")


def finding(**changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "kind": Kind.DRIFTED,
        "appointment": UUID(int=7),
        "version": 6,
        "provider_ref": "ref-1",
        "event": Origin(6, "appointment-confirmed.v1", NOON),
        "detail": "edited in the calendar: start",
        "fields": (Difference(field="start", intended="a", there="b"), Difference(field="summary", there="differs")),
        "attempted": Attempted(1, Operation.ACTION, 2, "succeeded"),
        "repair": Proposal.RESTORE,
        "seen": SEEN,
    }
    return Finding(**{**fields, **changes})


def report(*findings: Finding, **changes: Any) -> Report:
    counts = {kind: sum(found.kind is kind for found in findings) for kind in Kind}
    fields: dict[str, Any] = {
        "calendar": "main",
        "provider": "main",
        "tenant": "default",
        "began": NOON,
        "ended": NOON + timedelta(seconds=2),
        "mode": "full",
        "listed": 3,
        "checked_again": len(findings),
        "in_progress": 1,
        "counts": counts,
        "findings": findings,
    }
    return Report(**{**fields, **changes})


class Tags(HTMLParser):
    """Every tag with its attributes; fails on a tag that is closed out of turn."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, document: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(document)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_holds_one_line_for_each_finding_and_for_each_that_was_not_checked() -> None:
    unchecked = Unchecked(appointment=UUID(int=8), reason="the provider's answer was of no use: unknown")
    rows = rows_of(to_csv(report(finding(), unchecked=(unchecked,))))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["class"] == "drifted"
    assert rows[0]["fields"] == "start: a -> b; summary: differs"
    assert (rows[0]["event_version"], rows[0]["calls"], rows[0]["repair"]) == ("6", "1", "restore")
    assert (rows[1]["class"], rows[1]["appointment"]) == ("unchecked", str(UUID(int=8)))


@pytest.mark.parametrize("ref", [EVIL, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", '"=1'])
def test_no_cell_of_the_csv_is_a_formula(ref: str) -> None:
    cell = rows_of(to_csv(report(finding(provider_ref=ref))))[0]["provider_ref"]
    assert not cell.lstrip(" \t\r\n").startswith(("=", "+", "-", "@"))
    assert cell.removeprefix("'") == ref


def test_the_page_lets_nothing_in_and_runs_nothing() -> None:
    document = page(report(finding(provider_ref=EVIL, detail=EVIL), finding(appointment=None, event=None), note=EVIL))
    assert "<script" not in document
    tags = Tags(document)
    policy = next(given["content"] for tag, given in tags.seen if given.get("http-equiv") == "Content-Security-Policy")
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; form-action 'none'", policy or ""
    )
    for tag, given in tags.seen:
        assert tag not in ("script", "link", "img", "iframe", "object", "a", "form")
        assert not any(name in ("src", "href", "style") or name.startswith("on") for name in given), (tag, given)
    assert document.count("<style>") == 1


def test_the_page_shows_both_charts_and_each_class_that_was_found() -> None:
    document = page(report(finding(), finding(kind=Kind.PARKED, repair=Proposal.BY_HAND)))
    assert document.count("<svg") == 2
    assert re.findall(r"<h2>(.*?)</h2>", document) == ["Drifted (1)", "Parked (1)"]
    assert "prefers-color-scheme: dark" in document
    assert "@media print" in document


def test_the_page_of_what_agrees_says_so() -> None:
    document = page(report())
    assert "agrees with the log" in document
    assert document.count("<svg") == 1


def test_the_page_is_bounded_and_says_what_it_leaves_out() -> None:
    findings = tuple(finding(appointment=UUID(int=n)) for n in range(ROWS_MAX + 3))
    document = page(report(*findings))
    assert "3 further findings" in document
    assert document.count("<tr>") == ROWS_MAX + 1


@pytest.mark.parametrize(
    ("minutes", "bars", "span"),
    [([0], 1, "1 minute"), ([0, 5], 6, "1 minute"), ([0, 300], 6, "1 hour"), ([0, 60 * 24 * 4000], 28, "148 days")],
)
def test_the_chart_of_beginnings_has_few_bars_and_loses_no_finding(minutes: list[int], bars: int, span: str) -> None:
    starts = [Origin(1, "x", NOON + timedelta(minutes=minute)) for minute in minutes]
    made, words = when_started([finding(event=start) for start in starts])
    assert (len(made), words) == (bars, span)
    assert sum(bar.count for bar in made) == len(minutes)


def test_no_form_of_a_report_holds_what_was_seen() -> None:
    told = report(finding())
    for text in (to_csv(told), page(told), told.model_dump_json(), repr(told)):
        assert "Pat" not in text


def test_a_plan_holds_a_command_for_what_a_program_may_mend() -> None:
    findings = [
        finding(repair=repair, kind=kind)
        for kind, repair in (
            (Kind.DRIFTED, Proposal.RESTORE),
            (Kind.STUCK, Proposal.RETRY),
            (Kind.PARKED, Proposal.BY_HAND),
            (Kind.MATCHED, Proposal.NONE),
        )
    ]
    cures = plan([*findings, finding(appointment=None, repair=Proposal.REMOVE)])
    assert [cure.word for cure in cures] == ["restore", "retry"]
    assert isinstance(cures[0].command, ReportBooking)
    assert (cures[0].command.seen, cures[0].command.repair) == (SEEN, Repair.RESTORE)
    assert isinstance(cures[1].command, Act)
    assert cures[1].command.action is OperatorAction.RETRY
    assert (cures[0].version, cures[0].appointment) == (6, UUID(int=7))


def test_the_same_finding_has_the_same_key_and_another_one_another() -> None:
    other = SEEN.model_copy(update={"start": NOON + timedelta(hours=1)})
    keys = [
        plan([one])[0].key
        for one in (
            finding(),
            finding(detail="in other words"),
            finding(version=7),
            finding(seen=other),
            finding(repair=Proposal.ADOPT),
            finding(kind=Kind.MISSING),
            finding(kind=Kind.MISSING, seen=None),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 6
    assert all(re.fullmatch(r"[!-~]{1,255}", key) for key in keys)


def test_what_was_read_back_from_a_file_has_no_plan_but_for_an_absence() -> None:
    read = Report.model_validate_json(report(finding(), finding(kind=Kind.MISSING)).model_dump_json())
    assert [cure.key.split("-")[1] for cure in plan(read.findings)] == ["missing"]


def test_what_no_command_takes_is_left_to_a_person() -> None:
    half = SEEN.model_copy(update={"start": NOON, "end": None})
    assert plan([finding(seen=half)]) == ()


def test_a_reason_is_cut_to_what_a_command_takes() -> None:
    (cure,) = plan([finding(repair=Proposal.RETRY, detail="long " * 500)])
    assert len(cure.reason) == REASON_MAX


def test_a_bookmark_is_kept_for_each_calendar(tmp_path: Path) -> None:
    bookmarks = Bookmarks(tmp_path / "log.db.views" / "reconciliation.json")
    assert bookmarks.read(SCOPE) is None
    kept = Bookmark(token="t-1", open=(Subject(client_ref="c", refs=("r",)),))
    bookmarks.write(SCOPE, kept)
    bookmarks.write(Scope("other", "main", "default"), Bookmark(token="t-2"))
    assert bookmarks.read(SCOPE) == kept
    bookmarks.write(SCOPE, None)
    assert bookmarks.read(SCOPE) is None
    assert [path.name for path in (tmp_path / "log.db.views").iterdir()] == ["reconciliation.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", json.dumps({"calendars": {"main/default/main": {"token": 7}}}).encode()],
)
def test_a_bookmark_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reconciliation.json"
    path.write_bytes(content)
    bookmarks = Bookmarks(path)
    assert bookmarks.read(SCOPE) is None
    bookmarks.write(SCOPE, Bookmark(token="t"))
    assert bookmarks.read(SCOPE) == Bookmark(token="t")


def test_where_nothing_can_be_written_the_next_reading_is_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")
    bookmarks = Bookmarks(tmp_path / "in-the-way" / "reconciliation.json")
    bookmarks.write(SCOPE, Bookmark(token="t"))
    assert bookmarks.read(SCOPE) is None


def test_more_open_differences_than_are_kept_are_refused() -> None:
    with pytest.raises(ValueError):
        Bookmark(token="t", open=(Subject(client_ref="c"),) * (OPEN_MAX + 1))
