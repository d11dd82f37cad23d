"""What is shipped to run it: the wheel holds every file, and the examples in `deploy/` fit the program."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from typer.testing import CliRunner

from appointments.cli.app import app
from appointments.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\n"))


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    # From a copy: the build leaves a folder behind that the next wheel would be made of.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    rooms = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    wanted = {file for file in tracked() if file.split("/")[0] in rooms}
    for file in (*wanted, "pyproject.toml", "README.md"):
        (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / file).write_bytes((ROOT / file).read_bytes())
    build = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path)
    subprocess.run([*build, tmp_path / "src"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert len(wanted) > 200
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_example_settings_are_settings_and_keep_their_limits() -> None:
    given = tomllib.loads((DEPLOY / "appointments.toml").read_text("utf-8"))
    assert len(given) > 5
    assert given.keys() <= Settings.model_fields.keys()
    Settings(**given)


def test_the_commands_that_unit_and_image_start_are_understood() -> None:
    units = [(DEPLOY / f"appointments{which}.service").read_text("utf-8") for which in ("", "-worker@")]
    image = (DEPLOY / "Containerfile").read_text("utf-8")
    starts = [re.search(r"^ExecStart=\S+/appointments (.*)$", unit, re.MULTILINE) for unit in units]
    runs = re.search(r"^CMD \[(.*)\]$", image, re.MULTILINE)
    assert all(starts)
    assert runs is not None
    for words in (*(shlex.split(start[1]) for start in starts), shlex.split(runs[1].replace(",", " "))):
        told = CliRunner().invoke(app, [*words, "--help"])
        assert told.exit_code == 0, told.output
        refused = CliRunner().invoke(app, [*words, "--no-such-option"])
        assert "--no-such-option" in refused.output
