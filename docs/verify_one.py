"""Verifies the export of one appointment: `python verify_one.py EXPORT FINGERPRINT`. Needs `cryptography`."""

import base64
import hashlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as PublicKey

first, *events, last = open(sys.argv[1], "rb").read().splitlines(keepends=True)  # noqa: SIM115
header, end, version, digest = json.loads(first), json.loads(last), 0, bytes(16)
signed, (key, stream) = end["checkpoint"], (bytes.fromhex(header[n].replace("-", "")) for n in ("public_key", "stream"))
for e in map(json.loads, events):
    texts = [e["type"].encode(), e["body"].encode(), base64.b64decode(e["sealed"], validate=True)]
    row = e["position"].to_bytes(8) + stream + (version := version + 1).to_bytes(8)
    row += b"".join([e["at"].to_bytes(8, "big", signed=True), *(len(x).to_bytes(8) + x for x in texts)])
    digest, position = hashlib.sha256(digest + row).digest()[:16], e["position"]
    node = hashlib.sha256(b"\x00" + row + digest).digest()
at, size = position - 1, signed["position"] - 1
for beside in map(bytes.fromhex, end["proof"]["path"]):  # RFC 9162, section 2.1.3.2
    left = at & 1 or at == size
    node = hashlib.sha256(b"\x01" + (beside + node if left else node + beside)).digest()
    while left and at and not at & 1:
        at, size = at >> 1, size >> 1
    at, size = at >> 1, size >> 1
lines = hashlib.sha256(first + b"".join(events)).hexdigest()
pairs = {(node.hex(), signed["root"]), (lines, end["sha256"]), (hashlib.sha256(key).hexdigest(), sys.argv[2])}
if size or any(one != other for one, other in pairs):
    sys.exit("NOT genuine: these are not the events, the lines, or the key that was signed")
words = (signed["format"], signed["log"], signed["position"], signed["root"], signed["at"])
for one, told in ((signed, words), (end, ("appointments-export/1", lines))):
    text = "".join(f"{word}\n" for word in told).encode()
    PublicKey.from_public_bytes(key).verify(bytes.fromhex(one["signature"]), text)
print(f"genuine: {version} events, as they were in a log of {signed['position']} on {signed['at']}")
