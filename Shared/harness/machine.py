"""Where and on what a run was made: the processor, the system, the commit."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from Shared.harness.models import Machine

CPUINFO = Path("/proc/cpuinfo")


def machine() -> Machine:
    """This machine; the load is that before the call."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        load_before=load,
    )


def commit(folder: Path) -> str:
    """The commit of the code in a folder, with `+changes` where files that git knows differ from it."""
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return "unknown"

    def ask(*arguments: str) -> str:
        told = subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
        return told.stdout.strip()

    code = ("--", ".", ":(exclude)Shared/results")
    changed = ask("status", "--porcelain", "--untracked-files=no", *code)
    return (ask("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else "")


def _processor() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
