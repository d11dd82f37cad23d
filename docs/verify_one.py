"""Verifies the export of one appointment, in thirty lines: `python verify_one.py EXPORT FINGERPRINT`. See audit.md."""

import base64
import hashlib
import json
import sys
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


header, *events, last = [json.loads(line) for line in open(sys.argv[1], "rb").read().splitlines()]  # noqa: SIM115
key, signed, proof = bytes.fromhex(header["public_key"]), last["checkpoint"], last["proof"]
wrong = [] if sha256(key).hex() == sys.argv[2] else ["signed by another key"]
digest, row = bytes(16), b""
for version, e in enumerate(events, 1):
    texts = [e["type"].encode(), e["body"].encode(), base64.b64decode(e["sealed"])]
    row = e["position"].to_bytes(8) + UUID(e["stream"]).bytes + version.to_bytes(8) + e["at"].to_bytes(8, signed=True)
    row += b"".join(len(text).to_bytes(8) + text for text in texts)
    digest = sha256(digest, row)[:16]
    wrong += [] if digest.hex() == e["digest"] else [f"version {version} is not what was written"]
node, place, end = sha256(b"\x00", row, digest), proof["position"] - 1, signed["position"] - 1
for beside in map(bytes.fromhex, proof["path"]):  # RFC 9162, section 2.1.3.2
    left = place % 2 or place == end
    node = sha256(b"\x01", beside, node) if left else sha256(b"\x01", node, beside)
    while left and place % 2 == 0 and place:
        place, end = place >> 1, end >> 1
    place, end = place >> 1, end >> 1
wrong += [] if node.hex() == signed["root"] and end == 0 else ["not of the log that was signed"]
told = "".join(f"{signed[name]}\n" for name in ("format", "log", "position", "root", "at"))
Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signed["signature"]), told.encode())  # raises when forged
sys.exit(f"NOT genuine: {wrong[0]}" if wrong else print("genuine"))
