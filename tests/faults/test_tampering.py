"""Whatever is changed in the file, the check finds it and says where. Each change is made to a log that was well."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from appointments.privacy import ErasureRequest, erase
from domain.commands import BookAppointment
from domain.personal import subject
from domain.provider import BookingDetails, Call, Rejected, Retryable, WriteOutcome
from projections.health import Health, health
from projections.read_models import beside_the_log
from projections.views import PROJECTIONS, Views
from providers.local import LocalProvider
from saga.clock import WallClock
from store.chain import START, link
from store.checkpoint import (
    SignedCheckpoint,
    append_checkpoint,
    checkpoints_path,
    read_checkpoints,
    signer,
    take_checkpoint,
)
from store.port import Store
from store.sqlite import SqliteStore

RUNS = {("booking", 1, "main")}
EVERY = 4
"""Of so many events one is changed in each column; which one differs between the columns."""
MORE = {"calendar": "main", "time_zone": "UTC"}


class Hanging(LocalProvider):
    """Never answers a booking that is called so: its call stays in flight."""

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        if details.summary == "hangs":
            await asyncio.Event().wait()
        return await super().create(call, details)


def command(n: int, **more: Any) -> BookAppointment:
    start = datetime(2031, 3, 3, 9, n, tzinfo=UTC)
    fields = {"start": start, "end": start.replace(hour=10), "summary": "x", "attendees": [{"email": f"p{n}@a.org"}]}
    return BookAppointment.model_validate({**MORE, **fields, **more})


async def live_through(log: Path) -> dict[str, UUID]:
    """Appointments of every kind; the log is signed twice on the way, and its read models are level with it."""
    provider, clock = Hanging("main"), WallClock()
    settings = Settings(store=f"sqlite:///{log}", provider="local:", log_level="error", settle_ms=0)
    ids: dict[str, UUID] = {}
    async with Orchestrator.open(settings, providers=(provider,)) as desk:
        store = desk.runtime.store
        for n, key in enumerate(("confirmed", "cancelled", "moved", "parked")):
            ids[key] = (await desk.book(command(n), key=key, wait=10)).id
        await sign(store, log)
        ids["anonymous"] = (await desk.book(command(5, attendees=[]), key="anonymous", wait=10)).id
        provider.answer_next("create", Rejected(reason="no"))
        ids["failed"] = (await desk.book(command(6), key="failed", wait=10)).id
        await desk.cancel(ids["cancelled"], key="cancel", wait=10)
        times = {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T09:30:00Z"}
        await desk.reschedule(ids["moved"], **times, key="move", wait=10)
        await desk.act(ids["parked"], "park", actor="ops", reason="look")
        provider.answer_next("create", Retryable(reason="busy", retry_after_ms=60_000))
        several = [{"email": "p7@a.org"}, {"email": "p8@a.org"}]
        boss = {"email": "boss@a.org"}
        ids["waits"] = (await desk.book(command(7, attendees=several, organizer=boss), key="waits", wait=0.2)).id
        ids["hangs"] = (await desk.book(command(9, summary="hangs"), key="hangs", wait=0.2)).id
        request = ErasureRequest(actor="ops", reference="r-1")
        assert (await erase(store, subject("default", "p0@a.org"), request, clock, desk.runtime.forget)).applied
        await sign(store, log)
        views = Views(store, folder(log))
        await views.catch_up()
        await views.close()
    return ids


def folder(log: Path) -> Path:
    return log.with_name(log.name + ".views")


async def sign(store: Store, log: Path) -> None:
    by = signer(None, log)
    assert by is not None
    append_checkpoint(checkpoints_path(log), await take_checkpoint(store, by, WallClock().now()))


@dataclass(frozen=True)
class Run:
    """A log that is well, with all that lies beside it."""

    log: Path
    ids: dict[str, UUID]
    ended_at: datetime

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.log.parent, to)
        return to / self.log.name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    log = tmp_path_factory.mktemp("well") / "x.db"
    ids = asyncio.run(live_through(log))
    return Run(log, ids, WallClock().now())


@pytest.fixture
def log(run: Run, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    return run.copy(tmp_path / "copy")


def check(log: Path, run: Run) -> Health:
    """What `appointments check` does."""

    async def walk() -> Health:
        store = SqliteStore.open(log, "checker", read_only=True)
        try:
            found = list(read_checkpoints(checkpoints_path(log))) if checkpoints_path(log).exists() else []
            signed = [one for one in found if isinstance(one, SignedCheckpoint)]
            further = await beside_the_log(store, folder(log), PROJECTIONS)
            return await health(store, run.ended_at, RUNS, signed=signed, further=further)
        finally:
            await store.close()

    return asyncio.run(walk())


def rows(log: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(log)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()


def stream(log: Path, id: UUID) -> list[Any]:
    return [row for row in rows(log, "SELECT * FROM events ORDER BY version") if row["stream_id"] == id.bytes]


def change(log: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def faults(found: Health) -> list[tuple[str, str, str]]:
    return [(one.kind, one.subject, one.detail) for one in found.findings if one.kind != "parked"]


def flipped(value: Any, at: int = 0) -> Any:
    """The value with one bit of one byte changed."""
    if isinstance(value, int):
        return value ^ 1 << 12
    raw = bytearray(value if isinstance(value, bytes) else value.encode())
    raw[at % len(raw)] ^= 1
    return bytes(raw) if isinstance(value, bytes) else raw.decode()


def test_the_log_is_well_before_anything_is_done_to_it(run: Run, log: Path) -> None:
    """The control of every test here."""
    found = check(log, run)
    assert faults(found) == []
    assert (found.ok, found.parked, found.unfinished, found.appointments) == (True, 1, 3, 8)
    assert (found.checkpoints, found.signed_until) == (2, found.events)
    types = {row["type"] for row in rows(log, "SELECT type FROM events")}
    assert {"appointment-failed.v1", "appointment-rescheduled.v1", "personal-data-erased.v1"} <= types


EVENT_COLUMNS = ("position", "stream_id", "version", "type", "at", "body", "sealed", "digest")


@pytest.mark.evidence(
    target="tamper evidence",
    answers=("R3.2",),
    given="a log that is well",
    when="one byte of any event is changed in the file",
    then="the check finds it and says where",
    seen_in="findings of `appointments check`",
)
@pytest.mark.parametrize("column", EVENT_COLUMNS)
def test_a_changed_byte_of_any_event_is_found_and_named(run: Run, log: Path, column: str) -> None:
    whole, nth = log.read_bytes(), EVENT_COLUMNS.index(column) % EVERY
    for number, row in enumerate(rows(log, "SELECT * FROM events ORDER BY position")):
        if row[column] == b"" or number % EVERY != nth:
            continue
        changed = flipped(row[column], number)
        change(log, f"UPDATE events SET {column} = ? WHERE position = ?", changed, row["position"])
        found = faults(check(log, run))
        streams = {str(UUID(bytes=row["stream_id"]))}
        if column == "stream_id":
            streams.add(str(UUID(bytes=changed)))
        named = [detail for _, subject, detail in found if subject in streams]
        assert any(f"version {row['version']}" in detail for detail in named), (dict(row), found)
        log.write_bytes(whole)


@pytest.mark.parametrize(("column", "kind"), [("name", "key_misnamed"), ("ref", "key_gone"), ("key", "unopenable")])
def test_a_changed_byte_of_any_key_is_found_and_its_stream_named(run: Run, log: Path, column: str, kind: str) -> None:
    whole = log.read_bytes()
    for number, row in enumerate(rows(log, "SELECT * FROM subject_keys")):
        changed = flipped(row[column], number)
        change(log, f"UPDATE subject_keys SET {column} = ? WHERE name = ?", changed, row["name"])
        about = {
            str(UUID(bytes=e["stream_id"])) for e in rows(log, "SELECT * FROM events") if row["ref"] in e["sealed"]
        }
        found = faults(check(log, run))
        assert {subject for found_kind, subject, _ in found if found_kind == kind} == about, found
        log.write_bytes(whole)


@pytest.mark.parametrize("column", ["tenant", "lane", "starts_at", "deadline_at", "in_flight", "parked", "version"])
def test_a_changed_column_of_open_work_contradicts_its_stream(run: Run, log: Path, column: str) -> None:
    whole, tried = log.read_bytes(), 0
    for row in rows(log, "SELECT * FROM open_work"):
        if row[column] in (None, ""):
            continue
        changed = 1 - row[column] if column in ("in_flight", "parked") else flipped(row[column])
        change(log, f"UPDATE open_work SET {column} = ? WHERE stream_id = ?", changed, row["stream_id"])
        found = faults(check(log, run))
        assert {subject for _, subject, _ in found} == {str(UUID(bytes=row["stream_id"]))}, (dict(row), found)
        log.write_bytes(whole)
        tried += 1
    assert tried


@pytest.mark.parametrize("due_at", [None, 1, 2**55])
def test_open_work_that_would_never_or_long_not_be_taken_up_is_found(run: Run, log: Path, due_at: int | None) -> None:
    for name in ("waits", "hangs"):
        change(log, "UPDATE open_work SET due_at = ? WHERE stream_id = ?", due_at, run.ids[name].bytes)
    assert {subject for _, subject, _ in faults(check(log, run))} == {str(run.ids[n]) for n in ("waits", "hangs")}


def test_open_work_that_is_gone_or_belongs_to_nobody_is_found(run: Run, log: Path) -> None:
    change(log, "UPDATE open_work SET stream_id = ? WHERE stream_id = ?", b"x" * 16, run.ids["waits"].bytes)
    found = {(kind, subject) for kind, subject, _ in faults(check(log, run))}
    assert found == {("unowned", str(run.ids["waits"])), ("leftover", str(UUID(bytes=b"x" * 16)))}


def test_open_work_that_no_program_of_ours_writes_is_found(run: Run, log: Path) -> None:
    change(log, "UPDATE open_work SET starts_at = 'soon' WHERE stream_id = ?", run.ids["waits"].bytes)
    assert [(kind, subject) for kind, subject, _ in faults(check(log, run))] == [
        ("contradiction", str(run.ids["waits"]))
    ]


def test_a_deleted_event_is_found_wherever_it_stood(run: Run, log: Path) -> None:
    whole, end = log.read_bytes(), len(rows(log, "SELECT 1 FROM events"))
    for position in (*range(1, end, EVERY), end):
        change(log, "DELETE FROM events WHERE position = ?", position)
        found, last = faults(check(log, run)), position == end
        wanted = ("ahead", "current_state") if last else ("gap", "log")
        assert wanted in {(kind, subject) for kind, subject, _ in found}, found
        assert last or any(f"positions {position} to {position} are missing" in detail for *_, detail in found)
        log.write_bytes(whole)


def test_a_whole_stream_that_is_gone_leaves_its_gaps(run: Run, log: Path) -> None:
    change(log, "DELETE FROM events WHERE stream_id = ?", run.ids["moved"].bytes)
    found = faults(check(log, run))
    assert ("changed", "log") in {(kind, subject) for kind, subject, _ in found}
    assert "gap" in {kind for kind, _, _ in found}


def test_an_inserted_event_is_found(run: Run, log: Path) -> None:
    """Even one with a digest of its own making, behind the last of its stream and of the log."""
    last = rows(log, "SELECT * FROM events ORDER BY position DESC LIMIT 1")[0]
    head = stream(log, run.ids["waits"])[-1]
    position, version = last["position"] + 1, head["version"] + 1
    forged = (position, head["stream_id"], version, "appointment-confirmed.v1", head["at"], b"{}", b"")
    digest = link(head["digest"], *forged)
    change(log, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *forged, digest)
    assert str(run.ids["waits"]) in {subject for _, subject, _ in faults(check(log, run))}


@pytest.mark.parametrize("column", ["position", "version"])
def test_two_events_that_change_places_are_found(run: Run, log: Path, column: str) -> None:
    stream = run.ids["moved"].bytes
    four, five = (
        next(
            row for row in rows(log, "SELECT * FROM events") if row["stream_id"] == stream and row["version"] == version
        )
        for version in (4, 5)
    )
    for row, value in ((four, -1), (five, four[column]), (four, five[column])):
        where = -1 if row is four and value != -1 and column == "position" else row["position"]
        change(log, f"UPDATE events SET {column} = ? WHERE position = ?", value, where)
    found = [detail for _, subject, detail in faults(check(log, run)) if subject == str(run.ids["moved"])]
    assert any("version 4" in detail or "version 5" in detail for detail in found), found


def test_a_duplicated_event_is_found(run: Run, log: Path) -> None:
    end = len(rows(log, "SELECT 1 FROM events"))
    change(
        log,
        "INSERT INTO events SELECT ?, stream_id, 900, type, at, body, sealed, digest FROM events WHERE position = 3",
        end + 1,
    )
    assert any("version 900" in detail for *_, detail in faults(check(log, run)))


def test_a_sealed_part_that_is_moved_to_another_event_is_found(run: Run, log: Path) -> None:
    """Also when the digests are made to fit: the part does not open in another place."""
    moved = run.ids["moved"]
    sealed = stream(log, moved)[0]["sealed"]
    change(log, "UPDATE events SET sealed = ? WHERE stream_id = ? AND version = 3", sealed, moved.bytes)
    compute_the_chain_anew(log)
    assert ("unopenable", str(moved)) in {(kind, subject) for kind, subject, _ in faults(check(log, run))}


@pytest.mark.parametrize("witness", ["checkpoints", "read models"])
def test_a_log_whose_end_was_cut_off_is_found(run: Run, log: Path, witness: str) -> None:
    """As one does who knows how: the open work goes with the events, and the rest of the log is well."""
    second = rows(log, "SELECT position FROM events WHERE type = 'appointment-requested.v1' ORDER BY position")[-3][0]
    change(log, "DELETE FROM events WHERE position >= ?", second)
    change(log, "DELETE FROM open_work WHERE stream_id NOT IN (SELECT stream_id FROM events)")
    if witness == "checkpoints":
        shutil.rmtree(folder(log))
    else:
        checkpoints_path(log).unlink()
    kinds = {kind for kind, _, detail in faults(check(log, run)) if f"{second - 1}" in detail}
    assert ("cut_off" if witness == "checkpoints" else "ahead") in kinds


def compute_the_chain_anew(log: Path) -> None:
    """What somebody does who knows how the digests are made."""
    heads: dict[bytes, bytes] = {}
    for row in rows(log, "SELECT * FROM events ORDER BY position"):
        before = heads.get(row["stream_id"], START)
        heads[row["stream_id"]] = link(before, *tuple(row)[:-1])
        change(log, "UPDATE events SET digest = ? WHERE position = ?", heads[row["stream_id"]], row["position"])


@pytest.mark.evidence(
    target="tamper evidence",
    answers=("R3.2",),
    given="a log and a signed checkpoint of it",
    when="an event is changed and all digests are computed anew",
    then="the check finds it against the checkpoint",
    seen_in="findings of `appointments check`",
)
def test_a_chain_that_was_computed_anew_shows_against_what_was_signed(run: Run, log: Path) -> None:
    signed = [one.position for one in read_checkpoints(checkpoints_path(log)) if isinstance(one, SignedCheckpoint)]
    target = rows(log, "SELECT * FROM events WHERE type = 'step-started.v1' ORDER BY position DESC")[0]
    assert signed[0] < target["position"] <= signed[1]
    change(log, "UPDATE events SET at = at + 1 WHERE position = ?", target["position"])
    compute_the_chain_anew(log)
    shutil.rmtree(folder(log))
    assert [fault[:2] for fault in faults(check(log, run))] == [("changed", "log")]
    assert f"positions {signed[0] + 1} to {signed[1]}" in faults(check(log, run))[0][2]
    checkpoints_path(log).unlink()
    assert check(log, run).ok, "nobody can tell without what was signed"


def test_a_log_written_anew_from_its_first_event_is_another_log(run: Run, log: Path) -> None:
    change(log, "UPDATE events SET at = at + 1 WHERE position = 1")
    compute_the_chain_anew(log)
    assert ("changed", "log") in {(kind, subject) for kind, subject, _ in faults(check(log, run))}


def test_an_erasure_that_is_undone_is_found(run: Run, log: Path) -> None:
    """A key that was kept aside is put back."""
    erased = run.ids["confirmed"]
    gone = stream(log, erased)[0]["sealed"][1:9]
    change(log, "INSERT INTO subject_keys VALUES (?, ?, ?)", b"n" * 16, gone, b"k" * 32)
    assert ("key_kept", str(erased)) in {(kind, subject) for kind, subject, _ in faults(check(log, run))}


def test_a_key_that_is_destroyed_without_an_event_that_tells_of_it_is_found(run: Run, log: Path) -> None:
    whole = log.read_bytes()
    for row in rows(log, "SELECT * FROM subject_keys"):
        change(log, "DELETE FROM subject_keys WHERE name = ?", row["name"])
        assert {kind for kind, *_ in faults(check(log, run))} == {"key_gone"}
        log.write_bytes(whole)


@pytest.mark.parametrize("column", ["type", "at", "body", "sealed", "version", "digest", "position"])
def test_a_value_of_another_kind_stops_nothing(run: Run, log: Path, column: str) -> None:
    moved = run.ids["moved"]
    value: Any = b"\xff\xfe" if column == "type" else 2**62 if column in ("at", "position") else "text"
    change(log, f"UPDATE events SET {column} = ? WHERE stream_id = ? AND version = 2", value, moved.bytes)
    found = check(log, run)
    assert str(moved) in {subject for _, subject, _ in faults(found)}, found
    assert found.appointments >= 7
