"""The Merkle tree is that of RFC 9162; a signed checkpoint holds for one log, one position, one root and one key."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from domain.errors import HistoryError, InvalidFields
from store.checkpoint import (
    SignedCheckpoint,
    Signer,
    append_checkpoint,
    checkpoints_path,
    fingerprint,
    key_path,
    last_checkpoint,
    read_checkpoints,
    signer,
    take_checkpoint,
)
from store.memory import MemoryStore
from store.merkle import Tree, leaf, leaf_of, node, row_bytes
from store.port import Append, Private, RecordedEvent

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)
LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Leaves and roots that the authors of RFC 6962 published with their implementation."""


def defined_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return node(defined_root(hashes[:k]), defined_root(hashes[k:]))


def proved_root(index: int, size: int, hashed: bytes, path: Sequence[bytes]) -> bytes | None:
    """The verification of an inclusion proof, RFC 9162, section 2.1.3.2, word for word."""
    fn, sn = index, size - 1
    for p in path:
        if sn == 0:
            return None
        if fn % 2 or fn == sn:
            hashed = node(p, hashed)
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            hashed = node(hashed, p)
        fn, sn = fn >> 1, sn >> 1
    return hashed if sn == 0 else None


def tree(hashes: Sequence[bytes], proving: int | None = None) -> Tree:
    made = Tree(proving=proving)
    for one in hashes:
        made.add(one)
    return made


def test_the_roots_are_those_that_were_published() -> None:
    hashes = [leaf(bytes.fromhex(text)) for text in LEAVES]
    assert [tree(hashes[:size]).root.hex() for size in range(9)] == list(ROOTS)


def test_every_size_has_the_root_of_the_definition_and_a_proof_of_every_leaf() -> None:
    hashes = [leaf(bytes((n,))) for n in range(40)]
    for size in range(1, 40):
        root = defined_root(hashes[:size])
        for index in range(size):
            made = tree(hashes[:size], index)
            assert made.root == root
            assert proved_root(index, size, hashes[index], made.proof()) == root
            assert proved_root(index, size, hashes[index + 1], made.proof()) != root


def test_a_tree_goes_on_from_its_peaks() -> None:
    hashes = [leaf(bytes((n,))) for n in range(40)]
    for size in range(40):
        half = tree(hashes[:size])
        further = Tree(half.size, half.peaks)
        for one in hashes[size:]:
            further.add(one)
        assert further.root == defined_root(hashes)


def test_the_row_holds_every_field() -> None:
    event = RecordedEvent(UUID(int=5), 2, "a.v1", b"{}", 7, NOON, (), b"sealed", b"d" * 16)
    numbers = [f"{number:016x}" for number in (7, 2, 1_772_452_800_123_456, 4, 2, 6)]
    position, version, at, *lengths = numbers
    texts = [text.hex() for text in (b"a.v1", b"{}", b"sealed")]
    told = "".join(length + text for length, text in zip(lengths, texts, strict=True))
    assert row_bytes(event).hex() == position + UUID(int=5).hex + version + at + told + b"d".hex() * 16
    changes: tuple[dict[str, object], ...] = (
        {"stream_id": UUID(int=6)},
        {"version": 3},
        {"type": "b.v1"},
        {"body": b"{ }"},
        {"position": 8},
        {"at": NOON.replace(microsecond=0)},
        {"sealed": b""},
        {"digest": b"e" * 16},
    )
    leaves = {leaf_of(replace(event, **change)) for change in changes}  # type: ignore[arg-type]
    assert len(leaves | {leaf_of(event)}) == len(changes) + 1


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


async def filled(count: int, store: MemoryStore | None = None) -> MemoryStore:
    store = store or MemoryStore()
    for n in range(await store.position(), count):
        private = (Private((f"subject-{n}",), b'{"key":"k"}'),)
        event = RecordedEvent(UUID(int=n), 1, "a.v1", b"{}", at=NOON, private=private)
        await store.append(Append(UUID(int=n), 0, (event,)))
    return store


async def test_a_checkpoint_signs_the_whole_log_and_survives_being_written(tmp_path: Path) -> None:
    store, log = await filled(5), tmp_path / "x.db"
    taken = await take_checkpoint(store, Signer(KEY), NOON)
    hashes = [leaf_of(event) for event in await store.log()]
    assert (taken.position, taken.root, taken.log) == (5, defined_root(hashes).hex(), hashes[0].hex())
    append_checkpoint(checkpoints_path(log), taken)
    assert list(read_checkpoints(checkpoints_path(log))) == [taken]
    assert last_checkpoint(log, taken.public_key) == taken
    assert last_checkpoint(log, "0" * 64) is None


async def test_the_next_one_reads_only_what_came_since() -> None:
    store, by, read = await filled(900), Signer(KEY), [0]
    first = await take_checkpoint(store, by, NOON)
    await filled(1_000, store)

    def looked_at(count: int) -> None:
        read[0] += count

    resumed = await take_checkpoint(store, by, NOON, first, looked_at)
    assert resumed == await take_checkpoint(store, by, NOON)
    assert read == [100]
    assert len(resumed.model_dump_json()) < 1_500


async def test_what_is_not_the_log_that_was_signed_is_not_signed_on() -> None:
    by = Signer(KEY)
    taken = await take_checkpoint(await filled(5), by, NOON)
    for other in (await filled(5), await filled(4)):
        with pytest.raises(HistoryError, match="nothing was signed"):
            await take_checkpoint(other, by, NOON, taken)
    with pytest.raises(InvalidFields, match="nothing to sign"):
        await take_checkpoint(MemoryStore(), by, NOON)


async def test_a_log_with_a_gap_is_not_signed() -> None:
    store = await filled(5)
    del store._tables.log[2]
    store._tables.log.append(replace(store._tables.log[-1], position=6))
    with pytest.raises(HistoryError, match="position 3"):
        await take_checkpoint(store, Signer(KEY), NOON)


async def test_no_byte_of_a_checkpoint_can_be_changed(tmp_path: Path) -> None:
    log = tmp_path / "x.db"
    append_checkpoint(checkpoints_path(log), await take_checkpoint(await filled(5), Signer(KEY), NOON))
    path = checkpoints_path(log)
    line = path.read_bytes()
    assert all(isinstance(one, SignedCheckpoint) for one in read_checkpoints(path))
    for at in range(len(line) - 1):
        path.write_bytes(line[:at] + bytes((line[at] ^ 1,)) + line[at + 1 :])
        assert not any(isinstance(one, SignedCheckpoint) for one in read_checkpoints(path)), (at, line[at : at + 1])


async def test_another_key_cannot_take_a_checkpoint_over(tmp_path: Path) -> None:
    taken = await take_checkpoint(await filled(5), Signer(KEY), NOON)
    other = Signer(Ed25519PrivateKey.generate())
    assert taken.is_genuine
    assert not taken.model_copy(update={"public_key": other.public_key}).is_genuine


def test_the_key_is_made_once_beside_the_log_and_for_its_owner_alone(tmp_path: Path) -> None:
    log = tmp_path / "x.db"
    assert signer(None, log, make=False) is None
    made = signer(None, log)
    again = signer(None, log)
    assert made is not None
    assert again is not None
    assert (made.made_at, again.made_at) == (key_path(log), None)
    assert made.public_key == again.public_key
    assert key_path(log).stat().st_mode & 0o777 == 0o600
    os.chmod(key_path(log), 0o640)
    with pytest.raises(InvalidFields, match="read by others"):
        signer(None, log)


def test_a_key_is_given_as_pem_or_as_base64(tmp_path: Path) -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    given = [signer(text, tmp_path / "x.db") for text in (pem, base64.b64encode(bytes(range(32))).decode() + "\n")]
    assert {one.public_key for one in given if one} == {Signer(KEY).public_key}
    assert fingerprint(Signer(KEY).public_key) == "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "abc", "AAAA", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"])
def test_what_is_no_key_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFields, match="Ed25519 private key") as refused:
        signer(text, tmp_path / "x.db")
    assert not text or text not in str(refused.value)


def test_lines_that_are_no_checkpoints_are_told_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"format":"x"}\nnonsense \xff\n' + b"9" * 40_000 + b"\n" + json.dumps([1]).encode())
    told = list(read_checkpoints(path))
    assert all(isinstance(one, str) and "is no checkpoint" in one for one in told)
    assert len(told) == 6


async def test_a_line_that_a_kill_tore_spoils_no_later_one(tmp_path: Path) -> None:
    log, store = tmp_path / "x.db", await filled(5)
    path, taken = checkpoints_path(log), await take_checkpoint(store, Signer(KEY), NOON)
    append_checkpoint(path, taken)
    path.write_bytes(path.read_bytes()[:-100])
    append_checkpoint(path, taken)
    torn, whole = read_checkpoints(path)
    assert isinstance(torn, str)
    assert whole == taken


@pytest.mark.parametrize("dying", ["fsync", "link"])
def test_a_kill_while_the_key_is_made_leaves_none_or_a_whole_one(
    tmp_path: Path, dying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt  # nothing but what a kill leaves

    log = tmp_path / "x.db"
    with monkeypatch.context() as broken:
        broken.setattr(os, dying, stop)
        broken.setattr(os, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            signer(None, log)
    assert not key_path(log).exists()
    made = signer(None, log)
    assert made is not None
    assert made.made_at == key_path(log)


def test_of_two_who_make_the_key_at_once_both_sign_by_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, fsync, others = tmp_path / "x.db", os.fsync, []

    def meanwhile(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        others.append(signer(None, log))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    mine = signer(None, log)
    (other,) = others
    assert mine is not None
    assert other is not None
    assert mine.public_key == other.public_key
    assert [path.name for path in tmp_path.iterdir()] == [key_path(log).name]
