"""Verifies an export without the program that made it: `python verify_history.py EXPORT FINGERPRINT`.

FINGERPRINT is that of the public key, got from somewhere other than the export. Needs Python 3.11 and `cryptography`.
"""

import base64
import hashlib
import json
import sys
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def must(true: object, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def root(leaf: bytes, at: int, size: int, path: list[str]) -> bytes:
    if size == 1:
        return leaf
    left, beside = 1 << (size - 1).bit_length() - 1, bytes.fromhex(path[-1])
    if at < left:
        return sha256(b"\x01", root(leaf, at, left, path[:-1]), beside)
    return sha256(b"\x01", beside, root(leaf, at - left, size - left, path[:-1]))


sys.excepthook = lambda kind, fault, _: print("NOT genuine:", str(fault) or kind.__name__, file=sys.stderr)
heads, leaves = {}, []
with open(sys.argv[1], "rb") as file:
    header = json.loads(line := next(file))
    lines = hashlib.sha256(line)
    while "checkpoint" not in (e := json.loads(line := next(file))):
        lines.update(line)
        version, digest = heads.get(e["stream"], (0, bytes(16)))
        texts = [e["type"].encode(), e["body"].encode(), base64.b64decode(e["sealed"], validate=True)]
        row = e["position"].to_bytes(8) + UUID(e["stream"]).bytes + e["version"].to_bytes(8)
        row += b"".join([e["at"].to_bytes(8, "big", signed=True), *(len(x).to_bytes(8) + x for x in texts)])
        digest, where = sha256(digest, row)[:16], f"{e['stream']} version {e['version']} (position {e['position']})"
        must(e["version"] == version + 1 and digest.hex() == e["digest"], f"{where} is not what was written")
        heads[e["stream"]], last = (e["version"], digest), e["position"]
        leaves.append(sha256(b"\x00", row, digest))
    must(not file.read(1), "something follows the last line")
signed, count = e["checkpoint"], len(leaves)
if header["stream"]:  # one appointment: its last event leads to the root by its proof
    must(heads.keys() == {header["stream"]}, "events of another appointment are among these")
    leaves = [root(leaves[-1], last - 1, signed["position"], e["proof"]["path"])]
while len(leaves) > 1:  # the whole log: all leaves, pair by pair and level by level
    pairs = zip(leaves[::2], leaves[1::2], strict=False)
    leaves = [sha256(b"\x01", *pair) for pair in pairs] + leaves[len(leaves) & ~1 :]
must(leaves[0].hex() == signed["root"], "the events are not those of the log that was signed")
must(lines.hexdigest() == e["sha256"], "a line was changed")
must(sha256(key := bytes.fromhex(header["public_key"])).hex() == sys.argv[2], "signed by another key")
for signature, told in (
    (signed["signature"], [signed[name] for name in ("format", "log", "position", "root", "at")]),
    (e["signature"], ["appointments-export/1", e["sha256"]]),
):
    text = "".join(f"{line}\n" for line in told).encode()
    Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signature), text)
print(f"genuine: {count} events, as they were in a log of {signed['position']} on {signed['at']}")
