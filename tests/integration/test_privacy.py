"""A person who was erased is in no file any more, and everything that is built on the log goes on working."""

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appointments import Orchestrator, Settings
from domain.errors import IllegalTransition, InvalidFields, KeyReused, StoreUnavailable
from domain.provider import Rejected
from providers.local import LocalProvider
from store.chain import verify_stream
from store.sqlite_writer import SqliteLogWriter

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
PLANTED = ("Zaphod", "zaphod", "Beeblebrox", "Heartofgold")
"""In every field where somebody could write a name."""
WHO = "Zaphod.Beeblebrox@example.org"


def settings(folder: Path) -> Settings:
    return Settings(
        store=f"sqlite:///{folder}/desk.db", provider="local:", log_file=folder / "desk.log", backoff_ms=0, settle_ms=0
    )


def booking(n: int, **fields: object) -> dict[str, object]:
    return {
        "calendar": "main",
        "start": START + timedelta(days=n),
        "end": START + timedelta(days=n, hours=1),
        "time_zone": "UTC",
        "summary": "Zaphod's second head",
        "location": "On the Heartofgold",
        "attendees": [
            {"email": WHO, "name": "Zaphod Beeblebrox"},
            {"email": "trillian@example.org", "name": "Trillian"},
        ],
        "metadata": {"note": "ask Beeblebrox"},
        **fields,
    }


async def live(desk: Orchestrator, provider: LocalProvider) -> list[str]:
    """A confirmed, a cancelled, a moved and two failed appointments of the person, and one of somebody else."""
    ids = [str((await desk.book(booking(n), key=f"zaphod-{n}", wait=5, actor=WHO)).id) for n in range(3)]
    await desk.cancel(ids[1], key="cancel-zaphod", reason="Zaphod is ill", wait=5)
    moved = START + timedelta(days=40)
    await desk.reschedule(ids[2], start=moved, end=moved + timedelta(hours=1), key="move-beeblebrox", wait=5)
    await desk.act(ids[0], "park", actor="dana", reason="Zaphod called")
    provider.answer_next("create", Rejected(reason="Zaphod owes us money"))
    ids.append(str((await desk.book(booking(5), key="beeblebrox-5", wait=5)).id))
    other = booking(
        9, summary="Marvin's pain", location="Here", attendees=[{"email": "marvin@example.org"}], metadata={}
    )
    ids.append(str((await desk.book(other, key="marvin", wait=5)).id))
    await desk.list()
    return ids


def keys_in(folder: Path) -> dict[bytes, bytes]:
    with sqlite3.connect(f"file:{folder}/desk.db?mode=ro", uri=True) as connection:
        return dict(connection.execute("SELECT name, key FROM subject_keys").fetchall())


def found_in(folder: Path, *wanted: bytes) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        content = file.read_bytes() if file.is_file() else b""
        yield from (f"{file.name}: {needle!r}" for needle in wanted if needle in content)


async def erased(folder: Path) -> tuple[list[str], bytes]:
    """Live, erase, close; the ids, and the key that was destroyed."""
    provider = LocalProvider("main")
    async with Orchestrator.open(settings(folder), providers=(provider,)) as desk:
        ids = await live(desk, provider)
        before = keys_in(folder)
        plan = await desk.erase(email=WHO.upper(), reference="request-1")
        assert sorted(map(str, plan.appointments)) == sorted(ids[:4])
        assert not plan.applied
        assert keys_in(folder) == before
        assert (await desk.erase(email=WHO, reference="request-1", dry_run=False)).applied
        await desk.list()
        (key,) = set(before.values()) - set(keys_in(folder).values())
    return ids, key


@pytest.mark.evidence(
    target="erasure",
    answers=("R7.4",),
    given="appointments that name a person in every field",
    when="the person is erased",
    then="no file of the store holds the name or the key",
    seen_in="bytes of all files",
)
async def test_no_file_holds_an_erased_name_or_its_key(tmp_path: Path) -> None:
    _, key = await erased(tmp_path)
    assert list(found_in(tmp_path, key, *(name.encode() for name in PLANTED))) == []
    assert list(found_in(tmp_path, b"Marvin")), "the read model of the others is there"


async def test_what_is_read_afterwards_holds_no_erased_name(tmp_path: Path) -> None:
    ids, _ = await erased(tmp_path)
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        told = [await desk.show(id) for id in ids] + list(await desk.list()) + [await desk.health()]
        told += [event for id in ids for event in await desk.events(id)]
        text = " ".join(one.model_dump_json() for one in told)
        assert not re.search("|".join(PLANTED), text)
        for kept in ("Marvin's pain", "trillian@example.org", "(erased)", "request-1"):
            assert kept in text
        for id in ids[:4]:
            stream = await desk.runtime.store.events(desk.runtime.store and (await desk.show(id)).id)
            assert verify_stream(stream) is None
        assert [one.state for one in [await desk.show(id) for id in ids]] == [
            "confirmed",
            "cancelled",
            "confirmed",
            "failed",
            "confirmed",
        ]
        with pytest.raises(KeyReused, match=r"erased; use a new key"):
            await desk.book(booking(0), key="zaphod-0")
        again = await desk.book(booking(20), key="a-new-key", wait=5)
        assert (await desk.show(again.id)).summary == "Zaphod's second head"


async def test_an_unfinished_appointment_is_in_the_way(tmp_path: Path) -> None:
    provider = LocalProvider("main")
    async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
        ids = await live(desk, provider)
        await desk.act(ids[0], "resume", actor="dana", reason="go on")
        state = await desk.book(booking(30), key="later")
        parked = await desk.act(state.id, "park", actor="dana", reason="wait", wait=0) if not state.parked else state
        if (await desk.show(parked.id)).state not in ("confirmed", "failed"):
            with pytest.raises(IllegalTransition, match="unfinished"):
                await desk.erase(email=WHO, reference="request-1", dry_run=False)
            assert (await desk.show(parked.id)).summary == "Zaphod's second head"


@pytest.mark.parametrize("whom", [{}, {"email": WHO, "appointment": "0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11"}])
async def test_whom_to_erase_must_be_clear(tmp_path: Path, whom: dict[str, str]) -> None:
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        with pytest.raises(InvalidFields):
            await desk.erase(**whom, reference="request-1", dry_run=False)
        nobody = await desk.erase(email="nobody@example.org", reference="request-1", dry_run=False)
        assert not nobody.applied


async def test_a_reader_that_keeps_the_old_pages_delays_the_acknowledgement(tmp_path: Path) -> None:
    provider = LocalProvider("main")
    async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
        await live(desk, provider)
        before = keys_in(tmp_path)
        with sqlite3.connect(f"file:{tmp_path}/desk.db?mode=ro", uri=True) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchall()
            with pytest.raises(StoreUnavailable, match="it is deleted, but a reader"):
                await desk.erase(email=WHO, reference="request-1", dry_run=False)
            (key,) = set(before.values()) - set(keys_in(tmp_path).values())
            assert list(found_in(tmp_path, key))
            reader.rollback()
        reader.close()
        await desk.book(booking(30), key="afterwards", wait=5)
        assert list(found_in(tmp_path, key)) == []


class TestControl:
    """Without each protection, what should be gone is found."""

    async def test_the_key_stays_in_the_write_ahead_log_unless_that_is_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SqliteLogWriter, "clean_up", lambda _writer, wait: True)
        provider = LocalProvider("main")
        async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
            await live(desk, provider)
            before = keys_in(tmp_path)
            await desk.erase(email=WHO, reference="request-1", dry_run=False)
            (key,) = set(before.values()) - set(keys_in(tmp_path).values())
            assert list(found_in(tmp_path, key))

    async def test_without_sealing_the_names_lie_in_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("store.log_writer.seal", lambda parts, *_: b"".join(part.body or b"" for part in parts))
        provider = LocalProvider("main")
        async with Orchestrator.open(settings(tmp_path), providers=(provider,)) as desk:
            await desk.book(booking(0), key="zaphod-0", wait=5)
        assert list(found_in(tmp_path, *(name.encode() for name in PLANTED)))
