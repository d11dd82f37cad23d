"""Signed checkpoints: what the whole log was at an instant, in a form that nobody can make up without the key.

Owns their form, their signature (Ed25519, RFC 8032) and the files beside the log: `<log>.key` and
`<log>.checkpoints.jsonl`. Whoever keeps a checkpoint elsewhere can tell whether the log up to there was changed since.
"""

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import Field, StringConstraints, ValidationError, model_validator

from domain.errors import HistoryError, InvalidFields
from domain.provider import Value
from store.merkle import HASH_BYTES, Tree, leaf_of, root_of
from store.port import Store

FORMAT: Literal["appointments-checkpoint/1"] = "appointments-checkpoint/1"
POSITION_MAX = 2**63 - 1
LINE_MAX = 16_384
"""Characters of a checkpoint; one of the largest log has about 5,000."""
PAGE = 1_000

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Progress = Callable[[int], None]
"""Called with the number of events that were just looked at."""


class SignedCheckpoint(Value):
    """The log up to `position`: its identity (the leaf of its first event), its Merkle root and peaks, and when."""

    format: Literal["appointments-checkpoint/1"] = FORMAT
    log: Hash
    position: int = Field(ge=1, le=POSITION_MAX, strict=True)
    root: Hash
    at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00$")
    peaks: tuple[Hash, ...] = Field(max_length=63)
    public_key: Hash
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @model_validator(mode="after")
    def _peaks_give_the_root(self) -> Self:
        peaks = [bytes.fromhex(peak) for peak in self.peaks]
        if len(peaks) != self.position.bit_count() or root_of(peaks).hex() != self.root:
            raise ValueError("its peaks do not give its root")
        return self

    @property
    def tree(self) -> Tree:
        """The tree as it was, to go on from."""
        return Tree(self.position, (bytes.fromhex(peak) for peak in self.peaks))

    @property
    def is_genuine(self) -> bool:
        """Whether it was signed by the key that it names."""
        told = signed_text(self.log, self.position, self.root, self.at)
        return verified(self.public_key, self.signature, told)


def signed_text(log: str, position: int, root: str, at: str) -> bytes:
    """What is signed of a checkpoint: five lines of text."""
    return f"{FORMAT}\n{log}\n{position}\n{root}\n{at}\n".encode()


def verified(public_key: str, signature: str, told: bytes) -> bool:
    """Whether `signature` is that of `public_key` (both in hex) under `told`."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), told)
    except (InvalidSignature, ValueError):
        return False
    return True


class Signer:
    """Signs by a key that it lets nobody see."""

    def __init__(self, key: Ed25519PrivateKey, made_at: Path | None = None) -> None:
        self._key = key
        self.made_at = made_at
        """Where the key was kept, if it was made just now."""
        self.public_key = key.public_key().public_bytes_raw().hex()

    def sign(self, told: bytes) -> str:
        """The signature, in hex."""
        return self._key.sign(told).hex()

    def checkpoint(self, log: str, tree: Tree, at: datetime) -> SignedCheckpoint:
        """The log whose tree this is, at this instant (UTC)."""
        position, root, instant = tree.size, tree.root.hex(), at.isoformat()
        return SignedCheckpoint(
            log=log,
            position=position,
            root=root,
            at=instant,
            peaks=tuple(peak.hex() for peak in tree.peaks),
            public_key=self.public_key,
            signature=self.sign(signed_text(log, position, root, instant)),
        )


def fingerprint(public_key: str) -> str:
    """What people compare: SHA-256 of the 32 bytes of a public key, in hex."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


def key_path(log: Path) -> Path:
    """The key file beside a log."""
    return log.with_name(log.name + ".key")


def checkpoints_path(log: Path) -> Path:
    """The checkpoints beside a log, one a line."""
    return log.with_name(log.name + ".checkpoints.jsonl")


def signer(configured: str | None, log: Path, make: bool = True) -> Signer | None:
    """The key that was configured, else the one beside the log, made at its first use if it is to be made.

    Raises `InvalidFields` for a key that is none, or one that others may read.
    """
    if configured is not None:
        return Signer(_private_key(configured, "signing_key"))
    path = key_path(log)
    made = None
    if not path.exists():
        if not make:
            return None
        made = _make(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise InvalidFields(f"{path} can be read by others: make a new key, or chmod 600 {path} if nobody did")
        return Signer(_private_key(file.read(LINE_MAX), str(path)), made)


async def take_checkpoint(
    store: Store, by: Signer, at: datetime, last: SignedCheckpoint | None = None, progress: Progress | None = None
) -> SignedCheckpoint:
    """Sign the log as it stands. Goes on from `last`, one of ours, so that only what came since is read.

    Raises `InvalidFields` for an empty log, `HistoryError` for one that is not the log of `last`, or has a gap.
    """
    goal = await store.position()
    if not goal:
        raise InvalidFields("the log is empty: there is nothing to sign yet")
    log = leaf_of((await store.log(0, 1))[0]).hex()
    tree = Tree() if last is None else last.tree
    if last is not None and (last.log != log or last.position > goal):
        raise HistoryError(
            f"the checkpoint at position {last.position} is not of this log, or the log was cut off after position"
            f" {goal}: run `appointments check`; nothing was signed"
        )
    while tree.size < goal:
        batch = await store.log(tree.size, min(PAGE, goal - tree.size))
        for event in batch:
            if event.position != tree.size + 1:
                raise HistoryError(f"position {tree.size + 1} of the log is missing: nothing was signed")
            tree.add(leaf_of(event))
        if progress is not None:
            progress(len(batch))
    return by.checkpoint(log, tree, at)


def append_checkpoint(path: Path, taken: SignedCheckpoint) -> None:
    """Add it to a file as its last line; what a kill has left of an earlier one stays a line of its own."""
    line = taken.model_dump_json().encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, b"\n" + line if torn else line)
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoints(path: Path) -> Iterator[SignedCheckpoint | str]:
    """The checkpoints of a file; for a line that holds no genuine one, what is wrong with it. OSError: unreadable."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        number = 0
        while line := file.readline(LINE_MAX):
            number += 1
            where = f"line {number} of {path.name}"
            try:
                found = SignedCheckpoint.model_validate_json(line)
            except ValidationError as fault:
                yield f"{where} is no checkpoint: {fault.errors(include_url=False)[0]['msg']}"
                continue
            if found.model_dump_json() != line.removesuffix("\n"):
                yield f"{where} is not as it was written"
            elif not found.is_genuine:
                yield f"{where}: the signature is not that of its key under what it says"
            else:
                yield found


def last_checkpoint(log: Path, public_key: str) -> SignedCheckpoint | None:
    """The last one beside the log that was signed by this key."""
    try:
        found = [one for one in read_checkpoints(checkpoints_path(log)) if isinstance(one, SignedCheckpoint)]
    except FileNotFoundError:
        return None
    return next((one for one in reversed(found) if one.public_key == public_key), None)


def _private_key(text: str, where: str) -> Ed25519PrivateKey:
    try:
        if "-----BEGIN" in text:
            key = load_pem_private_key(text.encode(), None)
        else:
            raw = base64.b64decode(text.strip(), validate=True)
            key = Ed25519PrivateKey.from_private_bytes(raw)
        if isinstance(key, Ed25519PrivateKey):
            return key
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        pass
    raise InvalidFields(
        f"{where} holds no key to sign with: it must be an Ed25519 private key, as PEM without a password or as"
        f" {HASH_BYTES} bytes in base64",
        (("/signing_key", "no Ed25519 private key"),),
    )


def _make(path: Path) -> Path | None:
    """Make a key there, whole or not at all; None where another process was faster."""
    key = Ed25519PrivateKey.generate()
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner alone
    with open(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(handle)
    try:
        os.link(part, path)
    except FileExistsError:
        return None
    finally:
        os.unlink(part)
    return path
