"""What happened, when and why, whether it is true at the provider, and what was done about it (R3, R6.1, R7.4, R8)."""

import json
import re
import sys
from typing import Literal

import pytest

from appointments import AppointmentFilter
from tests.acceptance.office import CHECK_UP, ROOT, WAIT_S, Office

LATER = {"start": "2031-03-04T14:00:00Z", "end": "2031-03-04T14:30:00Z"}


@pytest.mark.evidence(target="audit replay", answers=("R3.2", "G7"), seen_in="`replay`, audit trail")
async def test_every_decision_follows_again_from_the_recorded_facts(office: Office) -> None:
    """
    Given an appointment with a retry, a move and a cancel in its history
    When its decisions are made again from the recorded facts
    Then each equals the recorded one, and the state at every past version can be read
    """
    office.provider.script("create", "fail_then_succeed", failures=1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await desk.reschedule(booked.id, **LATER, key="move-1", wait=WAIT_S)
        gone = await desk.cancel(booked.id, key="cancel-1", wait=WAIT_S)
        verdict = await desk.replay(booked.id)
        states = [(await desk.state_at(booked.id, version=n)).state for n in range(1, gone.version + 1)]
        trail = await desk.events(booked.id)
    assert verdict.ok
    assert verdict.decisions > 5
    assert (states[0], states[booked.version - 1], states[-1]) == ("requested", "confirmed", "cancelled")
    assert [line.version for line in trail] == list(range(1, gone.version + 1))


@pytest.mark.evidence(target="audit replay", answers=("R3.2", "R4.3"), seen_in="`appointments audit --json`")
async def test_the_audit_trail_can_be_read_beside_the_desk_that_is_open(office: Office) -> None:
    """
    Given a desk that is open and has booked
    When `appointments audit ID --json` is run beside it, as another process
    Then it lists the same events with who, when, why and cause
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", actor="dana", wait=WAIT_S)
        trail = await desk.events(booked.id)
        said = await office.run("audit", str(booked.id), "--json")
    assert said.code == 0
    told = said.json["items"]
    assert [line["type"] for line in told] == [line.type for line in trail]
    assert [line["cause"] for line in told] == [line.cause for line in trail]
    assert told[0]["actor"] == "dana"


@pytest.mark.evidence(target="tamper evidence", answers=("R3.2",), seen_in="`appointments check`, exit code")
async def test_one_changed_byte_is_found_where_it_is(office: Office) -> None:
    """
    Given a log that was signed by a checkpoint and is well
    When one byte of one event is changed with an SQL client
    Then `appointments check` ends with exit code 1 and names the appointment and the version
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (await office.run("checkpoint")).code == 0
    assert (await office.run("check", "--json")).code == 0
    one_event = "UPDATE events SET at = at + 1 WHERE stream_id = :id AND version = 2"
    assert office.change(one_event, id=booked.id.bytes) == 1
    said = await office.run("check", "--json")
    assert said.code == 1
    assert [(one["kind"], one["subject"]) for one in said.json["findings"]] == [
        ("changed", "log"),
        ("changed", str(booked.id)),
    ]
    assert "version 2 " in said.json["findings"][1]["detail"]


@pytest.mark.evidence(
    target="tamper evidence", answers=("R3.2",), seen_in="`appointments export`, docs/verify_history.py"
)
async def test_an_outsider_can_verify_an_exported_history(office: Office) -> None:
    """
    Given an exported history, and the fingerprint of the key that signed it
    When a program that shares no code with ours verifies it, before and after a word in it was changed
    Then it says genuine the first time, and not genuine the second
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    said = await office.run("export", str(booked.id), "--output", "history.jsonl")
    assert said.code == 0
    (fingerprint,) = re.findall(r"signed by the key\s+([0-9a-f]{64})", said.err)
    verifier = (str(ROOT / "docs" / "verify_history.py"), "history.jsonl", fingerprint)
    genuine = await office.process(sys.executable, *verifier)
    assert (genuine.code, genuine.out[:8]) == (0, "genuine:")
    file = office.folder / "history.jsonl"
    file.write_text(file.read_text("utf-8").replace("step-started.v1", "step-pending.v1", 1), "utf-8")
    forged = await office.process(sys.executable, *verifier)
    assert (forged.code, forged.err[:11]) == (1, "NOT genuine")


@pytest.mark.evidence(target="reconciliation", answers=("R3.3", "R8.1"), seen_in="reconciliation report")
async def test_our_own_writes_are_no_differences(office: Office) -> None:
    """
    Given appointments that were booked, moved and cancelled by us, and an answer that was lost
    When the provider's calendar is compared with the log
    Then everything is matched, and nothing is proposed
    """
    office.provider.script("create", "lost_response", how="close", times=1)
    async with office.desk() as desk:
        _, two, three = [await desk.book(CHECK_UP, key=f"order-{n}", wait=WAIT_S) for n in range(3)]
        await desk.reschedule(two.id, **LATER, key="move-2", wait=WAIT_S)
        await desk.cancel(three.id, key="cancel-3", wait=WAIT_S)
        report = await desk.reconcile("main")
    assert report.agrees
    assert (report.counts["matched"], report.findings) == (3, ())
    assert len(office.live()) == 2


@pytest.mark.evidence(target="reconciliation", answers=("R3.3", "R8.1", "R8.5"), seen_in="report, ledger, audit trail")
@pytest.mark.parametrize(
    ("op", "policy", "kind", "state", "starts"),
    [
        ("reschedule", "adopt", "drifted", "confirmed", [LATER["start"]]),
        ("reschedule", "restore", "drifted", "confirmed", [CHECK_UP["start"]]),
        ("reschedule", "park", "drifted", "confirmed", [LATER["start"]]),
        ("cancel", "adopt", "missing", "cancelled", []),
        ("cancel", "park", "missing", "confirmed", []),
    ],
)
async def test_an_edit_in_the_calendar_is_found_and_healed_by_policy(
    office: Office, op: Literal["reschedule", "cancel"], policy: str, kind: str, state: str, starts: list[str]
) -> None:
    """
    Given a confirmed appointment, and somebody who moves or cancels it in the provider's calendar
    When the calendar is compared, the plan is looked at as a dry run, and then applied under a policy
    Then the dry run changes nothing; applied, log and calendar are as the policy says; twice is once
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await office.edit(booked, op, **(LATER if op == "reschedule" else {}))
        report = await desk.reconcile("main", policy=policy)
        (finding,) = report.findings
        assert (finding.appointment, finding.kind, finding.version) == (booked.id, kind, booked.version)
        assert finding.event is not None
        assert finding.event.type == "appointment-confirmed.v1"
        assert [one.outcome for one in await desk.heal(report)] == ["planned"]
        assert (await desk.show(booked.id)).version == booked.version
        (healed,) = await desk.heal(report, dry_run=False, wait=WAIT_S, actor="dana")
        assert healed.outcome == "given"
        seen = await desk.show(booked.id)
        await desk.heal(report, dry_run=False, wait=WAIT_S, actor="dana")
        assert (await desk.show(booked.id)).version == seen.version
        agrees = (await desk.reconcile("main")).agrees
    assert (seen.state, seen.parked, agrees) == (state, policy == "park", policy != "park")
    assert [one["start"] for one in office.live()] == starts


@pytest.mark.evidence(target="reconciliation", answers=("R8.5", "R7.2"), seen_in="`heal`, ledger")
async def test_what_the_provider_does_not_let_be_restored_is_told_as_failed(office: Office) -> None:
    """
    Given a booking that somebody cancelled at a provider that takes no second one under the same reference
    When it is healed under the policy restore
    Then the healing says failed, the appointment has failed with rejected, and none is live
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await office.edit(booked, "cancel")
        report = await desk.reconcile("main", policy="restore")
        (healed,) = await desk.heal(report, dry_run=False, wait=WAIT_S, actor="dana")
        seen = await desk.show(booked.id)
    assert (healed.outcome, healed.detail) == ("failed", "failed: rejected")
    assert (seen.state, seen.reason, office.live()) == ("failed", "rejected", [])


@pytest.mark.evidence(target="reconciliation", answers=("R3.3", "R4.3"), seen_in="`reconcile --format csv` and html")
async def test_a_report_comes_as_a_page_and_as_a_table_for_spreadsheets(office: Office) -> None:
    """
    Given an appointment that somebody cancelled in the provider's calendar
    When `appointments reconcile main` is run with --format html, and with --format csv
    Then both name the appointment and its class, hold no name of a person, and the exit code is 1
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await office.edit(booked, "cancel")
    for format in ("html", "csv"):
        said = await office.run("reconcile", "main", "--format", format)
        assert said.code == 1
        assert str(booked.id) in said.out
        assert "missing" in said.out
        assert "Pat Example" not in said.out


@pytest.mark.evidence(target="erasure", answers=("R7.4",), seen_in="`show`, bytes of all files")
async def test_an_erased_person_is_in_no_file_and_replay_holds(office: Office) -> None:
    """
    Given a cancelled appointment of a person, and another person's
    When the first person is erased, as a dry run and then in earnest
    Then the dry run changes nothing; then no file holds the name, replay and chain are whole, the other is there
    """
    other = {**CHECK_UP, "summary": "Follow-up", "attendees": [{"email": "kim@example.org", "name": "Kim Other"}]}
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await desk.book(other, key="order-2", wait=WAIT_S)
        await desk.cancel(booked.id, key="cancel-1", wait=WAIT_S)
        await desk.list()
        plan = await desk.erase(email="pat@example.org", reference="request-118")
        assert (plan.applied, plan.appointments) == (False, (booked.id,))
        assert (await desk.show(booked.id)).summary == "Check-up"
        await desk.erase(email="pat@example.org", reference="request-118", dry_run=False)
        seen, verdict = await desk.show(booked.id), await desk.replay(booked.id)
        assert (await desk.health()).ok
    assert (seen.summary, seen.state, verdict.ok) == ("(erased)", "cancelled", True)
    files = [file for file in office.folder.rglob("*") if file.is_file()]
    assert [file.name for file in files if b"Pat Example" in file.read_bytes()] == []
    assert [file.name for file in files if b"Kim Other" in file.read_bytes()]


@pytest.mark.evidence(target="figures", answers=("R3.4", "R3.5"), seen_in="`figures`")
async def test_the_figures_are_those_of_the_provider_s_ledger_and_of_a_rebuild(office: Office) -> None:
    """
    Given ten bookings, of which two needed a retry and one was rejected for good
    When the figures are read, and read again after every read model was thrown away and rebuilt
    Then success rate, attempts and retries agree with the calls in the provider's ledger, and both readings are equal
    """
    office.provider.script("create", "fail_then_succeed", failures=1, times=2)
    async with office.desk() as desk:
        for n in range(10):
            if n == 9:
                office.provider.script("create", "reject")
            await desk.book(CHECK_UP, key=f"order-{n}", wait=WAIT_S)
        first = await desk.figures()
        rebuilt = await desk.rebuild()
        again = await desk.figures()
    total = first.total
    assert (total.requested, total.confirmed, total.failed) == (10, 9, {"rejected": 1})
    assert total.success_rate == pytest.approx(0.9)
    calls = office.provider.calls()
    assert (total.attempts, total.retries) == (calls["create"] + calls["notify"], calls["create"] - 10)
    assert again == first
    assert len(rebuilt.projections) >= 2


@pytest.mark.evidence(target="lists", answers=("R3.1",), seen_in="`list`")
async def test_a_walk_over_pages_neither_skips_nor_repeats_while_others_book(office: Office) -> None:
    """
    Given twelve appointments, listed five at a time
    When another is booked after each page
    Then the walk shows each of the twelve exactly once, and a filter finds the one that is cancelled
    """
    async with office.desk() as desk:
        ids = [(await desk.book(CHECK_UP, key=f"order-{n}", wait=WAIT_S)).id for n in range(12)]
        wanted, seen = AppointmentFilter(limit=5), []
        while True:
            page = await desk.list(wanted)
            seen += [one.id for one in page]
            await desk.book(CHECK_UP, key=f"later-{len(seen)}", wait=WAIT_S)
            if page.next_cursor is None:
                break
            wanted = wanted.model_copy(update={"cursor": page.next_cursor})
        await desk.cancel(ids[3], key="cancel-3", wait=WAIT_S)
        cancelled = await desk.list(AppointmentFilter.model_validate({"state": "cancelled"}))
    assert sorted(seen) == sorted(ids)
    assert [one.id for one in cancelled] == [ids[3]]


@pytest.mark.evidence(target="what-if", answers=("R8.4",), seen_in="`appointments what-if --json`")
async def test_what_if_shows_what_more_attempts_would_have_booked(office: Office) -> None:
    """
    Given four bookings, one of which failed because it had two attempts and the provider refused twice
    When `appointments what-if --retry attempts=4` lives through the record again
    Then the control reproduces all four ends, one would have been confirmed, nobody is called, nothing written
    """
    office.provider.script("create", "fail_then_succeed", failures=2)
    async with office.desk(attempts_max=2) as desk:
        ends = [await desk.book(CHECK_UP, key=f"order-{n}", wait=WAIT_S) for n in range(4)]
        position = (await desk.list()).position
    calls = office.provider.calls()
    said = await office.run("what-if", "--retry", "attempts=4", "--json")
    assert [end.state for end in ends] == ["failed", "confirmed", "confirmed", "confirmed"]
    assert said.json["control"] == {"compared": 4, "equal": 4}
    assert said.json["by_kind"] == {"failed (retry_exhausted) -> confirmed": 1}
    assert office.provider.calls() == calls
    assert (await office.run("check", "--json")).json["events"] == position


@pytest.mark.evidence(target="logs", answers=("R6.1", "R7.4"), seen_in="log file")
async def test_the_log_tells_every_fact_and_names_nobody(office: Office) -> None:
    """
    Given a booking by a UI event that needed a retry, and was asked for twice
    When the log file is read
    Then its lines carry its ids, label and attempt, one says idempotent_hit, and none names anybody
    """
    office.provider.script("create", "fail_then_succeed", failures=1)
    async with office.desk() as desk:
        event = {"target": {"dataset": {"action": "book"}}, "payload": CHECK_UP}
        for _ in range(2):
            booked = await desk.ui_event(event, key="pat@example.org-1", wait=WAIT_S)
    text = office.log.read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    mine = [line for line in lines if line.get("appointment_id") == str(booked.id)]
    assert all({"correlation_id", "idempotency_key", "action_label"} <= line.keys() for line in mine)
    assert {line["attempt"] for line in mine if "attempt" in line} >= {1, 2}
    assert sum(line["event"] == "idempotent_hit" for line in mine) == 1
    assert not re.search("pat@example|Pat Example|Check-up", text)
