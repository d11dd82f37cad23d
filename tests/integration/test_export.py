"""An export is verified by a script that shares no code with this program, on real exports and on tampered ones."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from appointments import Orchestrator, Settings
from appointments.cli.app import app
from appointments.privacy import ErasureRequest, erase
from domain.commands import BookAppointment
from domain.personal import subject
from domain.provider import Rejected
from projections.export import signed_text
from providers.local import LocalProvider
from saga.clock import WallClock
from store.chain import START, link
from store.checkpoint import Signer, checkpoints_path, fingerprint

DOCS = Path(__file__).parents[2] / "docs"
VERIFIER = DOCS / "verify_history.py"
VERIFIER_OF_ONE = DOCS / "verify_one.py"
LINES_MAX = 45
"""Lines of code that an auditor has to read."""
NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)


async def _fill(log: Path) -> list[str]:
    provider = LocalProvider("main")
    settings = Settings(store=f"sqlite:///{log}", provider="local:", log_level="error")
    ids = []
    async with Orchestrator.open(settings, providers=(provider,)) as desk:
        for n in range(6):
            if n == 3:
                provider.answer_next("create", Rejected(reason="no"))
            fields = {"calendar": "main", "start": NINE, "end": NINE.replace(hour=10), "time_zone": "UTC"}
            asked = BookAppointment.model_validate(
                {**fields, "summary": f"Müllers visit {n}", "attendees": [{"email": f"p{n}@a.org"}]}
            )
            ids.append(str((await desk.book(asked, key=f"k{n}", wait=10)).id))
        request = ErasureRequest(actor="ops", reference="r-1")
        await erase(desk.runtime.store, subject("default", "p2@a.org"), request, WallClock(), desk.runtime.forget)
    return ids


@dataclass(frozen=True)
class Log:
    """A log, its appointments, and the command line on it."""

    path: Path
    ids: list[str]
    key: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(Signer(Ed25519PrivateKey.from_private_bytes(base64.b64decode(self.key))).public_key)

    def run(self, *words: str) -> Any:
        environment = {"APPOINTMENTS_SIGNING_KEY": self.key, "APPOINTMENTS_PROVIDER": "local:"}
        return CliRunner().invoke(app, (*words, "--store", f"sqlite:///{self.path}"), env=environment)

    def export(self, *words: str) -> bytes:
        output = self.path.with_name("export.jsonl")
        done = self.run("export", *words, "--output", str(output))
        assert done.exit_code == 0, done.output
        assert self.fingerprint in done.stderr
        return output.read_bytes()

    def verify(self, exported: bytes, key: str | None = None) -> str:
        """What the outsider's script says; "" when it finds the export genuine."""
        path = self.path.with_name("received.jsonl")
        path.write_bytes(exported)
        said = [self._said(script, path, key) for script in (VERIFIER, VERIFIER_OF_ONE)]
        if b'"stream":null' not in exported.partition(b"\n")[0]:
            assert bool(said[0]) == bool(said[1]), said
        return said[0]

    def _said(self, script: Path, path: Path, key: str | None) -> str:
        command = [sys.executable, "-I", str(script), str(path), key or self.fingerprint]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert (done.returncode == 0) == done.stdout.startswith("genuine:")
        return done.stderr


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    path = tmp_path_factory.mktemp("log") / "x.db"
    return Log(path, asyncio.run(_fill(path)), base64.b64encode(bytes(range(32))).decode())


def lines(exported: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported.splitlines()]


def written(told: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in told).encode()


def test_exports_of_every_kind_are_genuine(log: Log) -> None:
    """The control of what follows."""
    for words in (("--all",), ("--all", "--no-personal"), *((id,) for id in log.ids)):
        assert log.verify(log.export(*words)) == ""


def test_the_script_is_short_enough_to_be_read_and_imports_nothing_of_ours() -> None:
    text = VERIFIER.read_text(encoding="utf-8")
    imports = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports <= {*sys.stdlib_module_names, "cryptography"}
    lines_of_code = [
        line for line in text.rpartition('"""')[2].splitlines() if line and not line.startswith(("import", "from"))
    ]
    assert len(lines_of_code) <= LINES_MAX
    whole = VERIFIER_OF_ONE.read_text(encoding="utf-8").partition("\n")[2]
    assert sum(bool(line.strip()) for line in whole.splitlines()) <= 30


def test_an_export_says_what_happened_and_what_was_erased(log: Log) -> None:
    header, first, *_, last = lines(log.export(log.ids[1]))
    assert header["stream"] == log.ids[1]
    assert first["event"]["details"]["summary"] == "Müllers visit 1"
    assert last["proof"]["position"] < last["checkpoint"]["position"]
    erased = lines(log.export(log.ids[2]))
    assert erased[1]["event"]["details"]["summary"] == "(erased)"
    assert erased[-2]["type"] == "personal-data-erased.v1"
    assert b"p2@a.org" not in log.export("--all")
    assert b"visit 2" not in log.export("--all")


def test_without_personal_data_an_export_names_nobody(log: Log) -> None:
    exported = log.export("--all", "--no-personal")
    assert not any(text in exported for text in (b"visit", b"@a.org", "Müller".encode()))
    assert b"visit 1" in log.export("--all"), "the control"


def test_no_other_key_passes_for_the_one_that_was_expected(log: Log) -> None:
    assert "another key" in log.verify(log.export("--all"), "0" * 64)


Change = Callable[[list[dict[str, Any]]], None]


def _set(line: int, name: str, value: Any) -> Change:
    return lambda told: told[line].__setitem__(name, value)


CHANGES: dict[str, Change] = {
    "position": _set(3, "position", 900),
    "stream": _set(3, "stream", "00000000-0000-0000-0000-000000000001"),
    "version": _set(3, "version", 9),
    "type": _set(3, "type", "step-started.v2"),
    "at": _set(3, "at", 5),
    "body": _set(3, "body", "{}"),
    "sealed": _set(3, "sealed", "AAAA"),
    "digest": _set(3, "digest", "0" * 32),
    "in clear": _set(3, "event", {"type": "invented"}),
    "dropped": lambda told: told.__delitem__(3),
    "last dropped": lambda told: told.__delitem__(-2),
    "doubled": lambda told: told.insert(3, told[3]),
    "swapped": lambda told: told.__setitem__(slice(2, 4), told[3:1:-1]),
    "root": lambda told: told[-1]["checkpoint"].__setitem__("root", "0" * 64),
    "signed at": lambda told: told[-1]["checkpoint"].__setitem__("at", "2020-01-01T00:00:00+00:00"),
    "signed position": lambda told: told[-1]["checkpoint"].__setitem__("position", 8),
    "sha256": _set(-1, "sha256", "0" * 64),
    "signature": _set(-1, "signature", "0" * 128),
    "log": _set(0, "log", "0" * 64),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("scope", ["all", "one"])
def test_an_export_in_which_something_was_changed_is_not_genuine(log: Log, scope: str, what: str) -> None:
    told = lines(log.export("--all" if scope == "all" else log.ids[0]))
    CHANGES[what](told)
    assert "NOT genuine" in log.verify(written(told))


def signed_anew(log: Log, told: list[dict[str, Any]]) -> bytes:
    """The last line made to fit the others, by somebody who has the key and an old checkpoint."""
    sha256 = hashlib.sha256(written(told[:-1])).hexdigest()
    signature = Signer(Ed25519PrivateKey.from_private_bytes(base64.b64decode(log.key))).sign(signed_text(sha256))
    return written([*told[:-1], {**told[-1], "sha256": sha256, "signature": signature}])


def chained_anew(told: list[dict[str, Any]]) -> None:
    heads: dict[str, bytes] = {}
    for one in told[1:-1]:
        sealed, stream = base64.b64decode(one["sealed"]), UUID(one["stream"]).bytes
        numbers = one["position"], stream, one["version"], one["type"], one["at"]
        heads[one["stream"]] = link(heads.get(one["stream"], START), *numbers, one["body"].encode(), sealed)
        one["digest"] = heads[one["stream"]].hex()


@pytest.mark.parametrize("scope", ["all", "one"])
def test_the_chain_and_the_root_hold_even_if_the_lines_are_signed_anew(log: Log, scope: str) -> None:
    told = lines(log.export("--all" if scope == "all" else log.ids[0]))
    assert log.verify(signed_anew(log, told)) == "", "the control"
    told[3]["at"] += 1
    assert f"(position {told[3]['position']}) is not what was written" in log.verify(signed_anew(log, told))
    chained_anew(told)
    assert "not those of the log that was signed" in log.verify(signed_anew(log, told))


def test_no_byte_of_an_export_can_be_changed(log: Log) -> None:
    """One byte in each line, here and there; the last line is signed by what it says, not by how it is written."""
    exported = log.export(log.ids[0])
    starts = [0, *(at + 1 for at, byte in enumerate(exported[:-1]) if byte == 10)]
    for start in starts[:-1]:
        for at in (start + 20, exported.index(b"\n", start) - 3):
            assert "NOT genuine" in log.verify(exported[:at] + bytes((exported[at] ^ 1,)) + exported[at + 1 :])
    for cut in (2, 200, len(exported) - starts[-1]):
        assert "NOT genuine" in log.verify(exported[:-cut])


def test_a_proof_of_another_appointment_does_not_do(log: Log) -> None:
    mine, other = lines(log.export(log.ids[0])), lines(log.export(log.ids[1]))
    assert "NOT genuine" in log.verify(written([*mine[:-1], {**mine[-1], "proof": other[-1]["proof"]}]))


def test_an_export_is_whole_or_not_there_at_all(log: Log, tmp_path: Path) -> None:
    for words in ((), ("--all", log.ids[0]), ("00000000-0000-0000-0000-000000000001",), ("nonsense",)):
        done = log.run("export", *words, "--output", str(tmp_path / "x.jsonl"))
        assert done.exit_code == 2, done.output
    other = log.run("export", log.ids[0], "--tenant", "other", "--output", str(tmp_path / "x.jsonl"))
    assert other.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_an_export_on_standard_output_is_nothing_but_its_lines(log: Log) -> None:
    done = log.run("export", log.ids[0])
    assert done.exit_code == 0
    assert log.verify(done.stdout.encode()) == ""


def test_the_commands_sign_and_check(log: Log, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    taken = log.run("checkpoint", "--output", str(kept))
    assert taken.exit_code == 0, taken.output
    assert taken.stdout == kept.read_text(encoding="utf-8")
    assert log.fingerprint in taken.stderr
    found = json.loads(log.run("check", "--json", "--checkpoint", str(kept)).stdout)
    assert (found["ok"], found["checkpoints"], found["signed_by"]) == (True, 2, [log.fingerprint])
    assert found["signed_until"] == json.loads(taken.stdout)["position"]
    assert "up to position" in log.run("check", "--checkpoint", str(kept)).stdout


def test_a_checkpoint_that_was_changed_or_is_of_another_log_fails_the_check(log: Log, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    line = log.run("checkpoint").stdout
    kept.write_text(line.replace('"position":', '"position":1'), encoding="utf-8")
    done = log.run("check", "--json", "--checkpoint", str(kept))
    assert (done.exit_code, [one["kind"] for one in json.loads(done.stdout)["findings"]]) == (1, ["checkpoint"])
    other = Log(tmp_path / "y.db", [], log.key)
    asyncio.run(_fill(other.path))
    kept.write_text(other.run("checkpoint").stdout, encoding="utf-8")
    done = log.run("check", "--json", "--checkpoint", str(kept))
    assert (done.exit_code, {one["kind"] for one in json.loads(done.stdout)["findings"]}) == (1, {"changed"})


def test_after_a_change_of_the_key_the_checkpoints_of_both_count_once_they_are_named(log: Log, tmp_path: Path) -> None:
    old, new = (Log(log.path, log.ids, base64.b64encode(bytes((n,)) * 32).decode()) for n in (1, 2))
    kept = tmp_path / "kept.jsonl"
    for one in (old, new):
        assert one.run("checkpoint", "--output", str(kept)).exit_code == 0
    checkpoints_path(log.path).unlink()
    check = ("check", "--json", "--checkpoint", str(kept))
    found = json.loads(new.run(*check).stdout)
    assert (found["ok"], found["checkpoints"], found["signed_by"]) == (False, 1, [new.fingerprint])
    assert old.fingerprint in found["findings"][0]["detail"]
    both = new.run(*check, "--signed-by", old.fingerprint, "--signed-by", new.fingerprint)
    found = json.loads(both.stdout)
    assert (found["ok"], found["checkpoints"]) == (True, 2)
    assert found["signed_by"] == sorted((old.fingerprint, new.fingerprint))
    assert log.run(*check, "--signed-by", "Zaphod").exit_code == 2


def test_whoever_has_the_file_but_not_the_named_key_convinces_nobody(log: Log, tmp_path: Path) -> None:
    """The key and the checkpoints beside the log are the attacker's own: only who names the true key sees it."""
    copy = tmp_path / "x.db"
    copy.write_bytes(log.path.read_bytes())
    theirs = Log(copy, log.ids, base64.b64encode(b"a" * 32).decode())
    assert theirs.run("checkpoint").exit_code == 0
    assert json.loads(theirs.run("check", "--json").stdout)["ok"], "the control"
    done = theirs.run("check", "--json", "--signed-by", log.fingerprint)
    assert (done.exit_code, json.loads(done.stdout)["checkpoints"]) == (1, 0)
    checkpoints_path(copy).unlink()
    assert theirs.run("check", "--json").exit_code == 0, "the control"
    done = theirs.run("check", "--json", "--signed-by", log.fingerprint)
    assert "no checkpoint was signed by" in json.loads(done.stdout)["findings"][0]["detail"]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_export_on_standard_output_is_in_utf_8_whatever_the_terminal_speaks(log: Log, encoding: str) -> None:
    command = [sys.executable, "-m", "appointments.cli", "export", log.ids[0], "--store", f"sqlite:///{log.path}"]
    environment = {**os.environ, "APPOINTMENTS_SIGNING_KEY": log.key, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert "Müller".encode() in done.stdout
    assert log.verify(done.stdout) == ""


def test_an_export_replaces_files_alone(log: Log, tmp_path: Path) -> None:
    """Not a device, not a pipe; through a link it is written where that leads, and never through a link of others."""
    pipe, folder, target, link = (tmp_path / name for name in ("pipe", "folder", "target", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    for place in (pipe, folder):
        done = log.run("export", log.ids[0], "--output", str(place))
        assert (done.exit_code, "no file" in done.stderr) == (2, True), done.stderr
    assert pipe.is_fifo()
    link.symlink_to(target)
    precious = tmp_path / "precious"
    precious.write_text("precious", encoding="utf-8")
    target.with_name("target.part").symlink_to(precious)
    assert log.run("export", log.ids[0], "--output", str(link)).exit_code == 0
    assert link.is_symlink()
    assert log.verify(target.read_bytes()) == ""
    assert target.stat().st_mode & 0o777 == 0o600
    assert precious.read_text(encoding="utf-8") == "precious"


def test_a_reader_who_goes_away_early_is_no_crash(log: Log) -> None:
    command = [sys.executable, "-m", "appointments.cli", "export", "--all", "--store", f"sqlite:///{log.path}"]
    environment = {**os.environ, "APPOINTMENTS_SIGNING_KEY": log.key}
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writes)
    assert (done.returncode, b"xception" in done.stderr, b"Error" in done.stderr) == (1, False, False), done.stderr
