"""Compares the legacy system (A) with this one (B) on the same cases, in the environment of the project."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
ENVIRONMENT = ROOT / ".venv"
NEEDED = ("appointments", "pytest")
BY_HAND = f"""\
No Python here has what the project needs, and there is no bash to run setup.sh. In {ROOT}:
  python -m venv .venv
  .venv/bin/python -m pip install --require-hashes -r requirements.lock
  .venv/bin/python -m pip install --no-deps --no-build-isolation --editable ."""


def _python() -> Path:
    """The interpreter of the project's environment, which is made where it is missing."""
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return Path(sys.executable)
    found = [ENVIRONMENT / "bin" / "python", ENVIRONMENT / "Scripts" / "python.exe"]
    if not any(path.exists() for path in found):
        print("Setting up the project's environment ...", flush=True)
        try:
            subprocess.run(["bash", str(ROOT / "setup.sh")], check=True)  # noqa: S603, S607 -- our own script
        except FileNotFoundError:
            sys.exit(BY_HAND)
        except subprocess.CalledProcessError as fault:
            sys.exit(f"setup.sh ended with {fault.returncode}: see above")
    return next(path for path in found if path.exists())


if __name__ == "__main__":
    python = _python()
    if python != Path(sys.executable):
        again = [str(python), str(Path(__file__).absolute()), *sys.argv[1:]]
        sys.exit(subprocess.run(again, check=False).returncode)  # noqa: S603 -- this very script
    sys.path.insert(0, str(ROOT))
    from Shared.harness.main import main

    sys.exit(main(sys.argv[1:]))
