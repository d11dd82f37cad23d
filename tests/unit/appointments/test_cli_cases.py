"""`cases`: a table that fills in on a terminal, plain lines elsewhere; and nothing outside is touched."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import PROVIDER_GONE, appointments
from rich.console import Console

from appointments import Settings
from appointments.cli.case_table import table
from appointments.cli.cases import PROJECT, Places, run_cases
from appointments.cli.session import Session

pytestmark = pytest.mark.usefixtures("own_folder")
TWO = ["c01", "c05"]
UNPLAYABLE = {
    "id": "c01",
    "title": "x",
    "scripts": [{"match": {"op": "create"}, "behavior": {"mode": "nonsense"}}],
    "commands": [{"command": "book", "key": "k"}],
}


def session(**more: Any) -> Session:
    out = Console(file=io.StringIO(), width=100, markup=False, highlight=False, **more)
    return Session(Settings(), False, out, Console(file=io.StringIO()))


def printed(one: Session) -> str:
    assert isinstance(one.out.file, io.StringIO)
    return one.out.file.getvalue()


async def test_on_a_terminal_a_table_fills_in_as_the_cases_run() -> None:
    one = session(force_terminal=True, color_system=None)
    await run_cases(one, Places(), TWO)
    begun, first, second = (frame for frame in printed(one).split("what it shows")[1:4])
    assert "c01" in begun
    assert "c05" in begun
    assert [frame.count("running") for frame in (begun, first, second)] == [1, 1, 0]
    assert [frame.count("passed") for frame in (begun, first, second)] == [0, 1, 2]
    assert [frame.count("confirmed") for frame in (begun, first, second)] == [0, 1, 2]


async def test_elsewhere_each_case_is_a_plain_line() -> None:
    one = session()
    await run_cases(one, Places(), TWO)
    lines = printed(one).splitlines()
    assert [line.split()[0] for line in lines] == TWO
    assert all("calls 1/1/0" in line and line.endswith("passed") for line in lines)


async def test_a_difference_is_told_in_the_table() -> None:
    one = session(force_terminal=True, color_system=None)
    found = await run_cases(session(), Places(), ["c01"])
    wrong = found.cases[0].model_copy(update={"verdict": "failed", "differences": ["state: expected x, found y"]})
    one.out.print(table([wrong], [wrong]))  # type: ignore[list-item]
    assert "failed" in printed(one)
    assert "state: expected x, found y" in printed(one)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFY_URL", PROVIDER_GONE),
        ("CALLBACK_URL", PROVIDER_GONE),
        ("CALENDARS", '{"main": "elsewhere"}'),
        ("TENANT", "acme"),
    ],
)
def test_no_case_hears_of_the_environment(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would tell a real downstream about bookings that are none."""
    monkeypatch.setenv(f"APPOINTMENTS_{name}", value)
    said = appointments("cases", "--case", "c09", "--json")
    assert (said.code, said.json["totals"]["passed"]) == (0, 1)


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("expected_postchange.json", {"cases": {}}, "nothing is expected of c01, c02"),
        ("test_data.json", {"settings": {"jitter": 7}}, "/jitter: Input should be less than or equal to 1"),
        ("test_data.json", {"settings": {"attempts": 7}}, "/attempts: Extra inputs are not permitted"),
        ("test_data.json", {"cases": [UNPLAYABLE]}, "Input tag 'nonsense'"),
    ],
)
def test_cases_that_cannot_be_used_are_refused(file: str, change: dict[str, Any], told: str, own_folder: Path) -> None:
    for name in ("test_data.json", "expected_postchange.json"):
        shutil.copy(PROJECT / "data" / name, own_folder)
    given = json.loads((own_folder / file).read_text("utf-8"))
    (own_folder / file).write_text(json.dumps({**given, **change}), "utf-8")
    said = appointments("cases", "--cases", str(own_folder))
    assert said.code == 2
    assert told in said.err
    assert not (own_folder / "results").exists()


@pytest.mark.parametrize("option", [("--store", "memory:"), ("--provider", "local:")])
def test_a_store_or_a_provider_of_ones_own_is_refused(option: tuple[str, str]) -> None:
    said = appointments("cases", "--case", "c01", *option)
    assert said.code == 2
    assert "of its own" in said.err
