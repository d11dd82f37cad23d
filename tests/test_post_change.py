"""The twenty canonical cases through the real stack, compared field by field and with the provider's ledger."""

import json
from pathlib import Path

import jsonschema
import pytest

from appointments.cases import Case, compare, load, run_case, schemas

DATA = Path(__file__).parents[1] / "data"
CASES, EXPECTED = load(DATA)


@pytest.mark.evidence(
    target="twenty cases",
    answers=("R6.2", "R6.3", "R7.2", "G2", "G5"),
    given="one of the twenty cases, a fresh provider, breaker and store",
    when="its commands are sent over loopback HTTP",
    then="end, reason, attempts, calls and live bookings are those of data/expected_postchange.json",
    seen_in="logs/log_post.txt, results/results_post.json, ledger",
)
@pytest.mark.parametrize("case", CASES.cases, ids=lambda case: f"{case.id} {case.title}")
async def test_case_comes_out_as_expected(case: Case, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    result = compare(await run_case(case, CASES.settings, log), EXPECTED[case.id])
    assert not result.differences, log.read_text() if log.exists() else ""


@pytest.mark.evidence(
    target="twenty cases on PostgreSQL",
    answers=("R6.2", "R7.3", "G2", "G5"),
    given="one of the twenty cases, a fresh provider, breaker and database",
    when="its commands are sent over loopback HTTP",
    then="what comes of it is the same as on a file",
    seen_in="ledger, state of the store",
)
@pytest.mark.parametrize("case", CASES.cases, ids=lambda case: case.id)
async def test_case_comes_out_the_same_on_postgresql(case: Case, postgres_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    result = compare(await run_case(case, CASES.settings, log, postgres_url), EXPECTED[case.id])
    assert not result.differences, log.read_text() if log.exists() else ""


async def test_a_wrong_expectation_is_found(tmp_path: Path) -> None:
    """The control: the comparison can fail, in every field."""
    result = await run_case(CASES.cases[0], CASES.settings)
    wrong = EXPECTED["c03"]
    found = compare(result, wrong)
    assert found.verdict == "failed"
    assert {difference.partition(":")[0] for difference in found.differences} >= {"state", "attempts", "live_bookings"}


def test_every_case_has_an_expectation() -> None:
    assert {case.id for case in CASES.cases} == set(EXPECTED) == {f"c{n:02}" for n in range(1, 21)}


@pytest.mark.evidence(
    target="case data",
    answers=("R6.2",),
    given="the cases and what is expected of them",
    when="they are held against their JSON Schemas",
    then="they fit, and the schemas are those of the models",
    seen_in="data/*.schema.json",
)
@pytest.mark.parametrize("name", ["test_data", "expected_postchange"])
def test_data_fits_its_schema_and_the_schema_is_that_of_the_models(name: str) -> None:
    schema = json.loads((DATA / f"{name}.schema.json").read_text())
    assert schema == schemas()[f"{name}.schema.json"]
    jsonschema.validate(json.loads((DATA / f"{name}.json").read_text()), schema)
