"""Verifies an export without the program that made it: `python verify_history.py EXPORT FINGERPRINT`.

FINGERPRINT is that of the public key, got from somewhere other than the export. Needs Python 3.11 and `cryptography`;
the numbers in comments are the steps of docs/audit.md.
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


def row(e: dict) -> bytes:
    body, kind, sealed = e["body"].encode(), e["type"].encode(), base64.b64decode(e["sealed"], validate=True)
    numbers = [e["position"].to_bytes(8), UUID(e["stream"]).bytes, e["version"].to_bytes(8)]
    texts = [len(text).to_bytes(8) + text for text in (kind, body, sealed)]
    return b"".join([*numbers, e["at"].to_bytes(8, "big", signed=True), *texts])


def root_by_proof(leaf: bytes, index: int, size: int, path: list[str]) -> bytes:
    fn, sn = index, size - 1  # RFC 9162, section 2.1.3.2
    for p in map(bytes.fromhex, path):
        if fn % 2 or fn == sn:
            leaf = sha256(b"\x01", p, leaf)
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            leaf = sha256(b"\x01", leaf, p)
        fn, sn = fn >> 1, sn >> 1
    must(sn == 0, "the proof has another length than the tree")
    return leaf


def verify(path: str, fingerprint: str) -> str:
    whole, heads, peaks, size, before = hashlib.sha256(), {}, [], 0, None
    with open(path, "rb") as file:
        header = json.loads(line := file.readline())
        key = bytes.fromhex(header["public_key"])
        must(header["format"] == "appointments-export/1", "another format")
        must(sha256(key).hex() == fingerprint, "signed by another key")  # 1
        while "checkpoint" not in (e := json.loads(following := file.readline())):
            whole.update(line)
            line, where = following, f"stream {e['stream']} version {e['version']} (position {e['position']})"
            version, digest = heads.get(e["stream"], (0, bytes(16)))
            must(e["version"] == version + 1, f"{where} does not follow version {version}")  # 2
            must(sha256(digest, row(e))[:16].hex() == e["digest"], f"{where} is not what was written")
            heads[e["stream"]] = (e["version"], bytes.fromhex(e["digest"]))
            before, leaf = e, sha256(b"\x00", row(e), bytes.fromhex(e["digest"]))  # 3
            if header["stream"] is None:
                size += 1
                must(e["position"] == size, f"position {size} is missing")
                rest, node = size, leaf
                while rest % 2 == 0:
                    rest, node = rest // 2, sha256(b"\x01", peaks.pop(), node)
                peaks.append(node)
            else:
                must(e["stream"] == header["stream"], f"{where} is of another appointment")
        whole.update(line)
        must(not file.read(1), "something follows the last line")
    end, proof = e["checkpoint"], e["proof"]
    must(end["log"] == header["log"], "the checkpoint is of another log")
    if header["stream"] is None:
        must(size == end["position"], f"the log has {end['position']} events, here are {size}")
        root = peaks.pop()
        while peaks:
            root = sha256(b"\x01", peaks.pop(), root)
    else:
        must(before is not None and proof["position"] == before["position"], "the proof is of another event")
        root = root_by_proof(leaf, proof["position"] - 1, end["position"], proof["path"])
    must(root.hex() == end["root"], "the events are not those of the log that was signed")  # 4
    told = (end["format"], end["log"], str(end["position"]), end["root"], end["at"])
    public = Ed25519PublicKey.from_public_bytes(key)
    public.verify(bytes.fromhex(end["signature"]), "".join(f"{line}\n" for line in told).encode())  # 5
    must(whole.hexdigest() == e["sha256"], "a line was changed")
    public.verify(bytes.fromhex(e["signature"]), f"{header['format']}\n{e['sha256']}\n".encode())
    return f"{sum(v for v, _ in heads.values())} events, as they were in a log of {end['position']} on {end['at']}"


if __name__ == "__main__":
    try:
        print("genuine:", verify(sys.argv[1], sys.argv[2]))
    except Exception as fault:
        sys.exit(f"NOT genuine: {str(fault) or type(fault).__name__}")
