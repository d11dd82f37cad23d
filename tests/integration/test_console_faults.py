"""What goes wrong has a page in the look of the console, without a trace of the program."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appointments.access.access import FAILED_BURST
from appointments.access.roles import Role
from tests.integration.console_house import House, open_house, visitor

ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/nowhere", "Nothing is here"),
        ("/static/nothing.css", "Nothing is here"),
        ("/jobs/77", "Nothing is here"),
        ("/appointments/nonsense", "No such appointment"),
        (f"/appointments/{ID}", "No such appointment"),
        ("/reconciliation/nonsense", "No such reconciliation"),
        (f"/reconciliation/{ID}", "No such reconciliation"),
    ],
)
async def test_what_there_is_not(house: House, path: str, heading: str) -> None:
    async with visitor(house, Role.OPERATOR) as came:
        status, text, headers = await came.get(path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (404, "text/html")
        assert f"<h1>{heading}</h1>" in text
        assert "Sign out" in text


@pytest.mark.parametrize(
    ("came_from", "back"),
    [("/parked?x=1", "/console/parked?x=1"), ("//evil.example", "/console/"), ("", "/console/")],
)
async def test_leads_back_to_where_one_came_from(house: House, came_from: str, back: str) -> None:
    async with visitor(house, Role.OPERATOR) as came:
        _, text, _ = await came.get("/nowhere", headers={"Referer": house.url + came_from if came_from else ""})
        assert f'<a href="{back}">Back</a>' in text


async def test_while_the_process_stops_a_form_gets_a_page_and_does_nothing(house: House) -> None:
    (letter, *_) = await house.dead_letters("crm", 2)
    asked = {"sink": "crm", "letter": letter, "reason": "again", "sure": "yes"}
    async with visitor(house, Role.OPERATOR) as came:
        house.door.standing.stop()
        before = await house.desk.runtime.store.position()
        for path, fields in (("/dead-letters/deliver", asked), ("/sign-in", {"token": house.token(Role.OPERATOR)})):
            status, text, headers = await came.post(path, **fields)
            assert (status, headers["Content-Type"].partition(";")[0]) == (503, "text/html")
            assert "<h1>This process stops</h1>" in text
            assert "Set-Cookie" not in headers
            assert (headers["Retry-After"], headers["Connection"].lower()) == ("1", "close")
        assert await house.desk.runtime.store.position() == before
        assert (await came.get("/dead-letters"))[0] == 200
        async with came.session.post(house.url.removesuffix("/console") + "/v1/appointments", json={}) as answer:
            assert (answer.status, answer.content_type) == (503, "application/problem+json")


async def test_not_by_this_method(house: House) -> None:
    async with visitor(house, Role.OPERATOR) as came:
        for status, text, headers in (await came.get("/parked/act"), await came.post("/parked")):
            assert (status, "<h1>Not by this method</h1>" in text) == (405, True)
            assert headers["Allow"]


async def test_a_fault_of_ours_is_told_without_a_word_of_what_and_logged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[object] = []

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(house.desk, "pulse", broken)
    asyncio.get_running_loop().set_exception_handler(lambda _, about: logged.append(about["exception"]))
    async with visitor(house) as came:
        came_in = await came.post("/sign-in", token=house.token(Role.OPERATOR))
        assert came_in[0] == 303
        for part in ({}, {"HX-Request": "true"}):
            status, text, _ = await came.get("/", headers=part)
            assert (status, "A fault on this side" in text, "<html" in text) == (500, True, not part)
            assert "of the program" not in text
    assert [str(fault) for fault in logged] == ["a secret of the program"] * 2


async def test_who_asks_too_fast_is_told_to_slow_down_as_over_the_api(tmp_path: Path) -> None:
    async with open_house(tmp_path, rate=0.1) as house, visitor(house, Role.VIEWER) as came:
        answers = [await came.get("/") for _ in range(21)]
        status, text, headers = answers[-1]
        assert ([one[0] for one in answers[:19]], status) == ([200] * 19, 429)
        assert "<h1>Too many requests</h1>" in text
        assert int(headers["Retry-After"]) > 0
        async with visitor(house, Role.VIEWER, "other") as other:
            assert (await other.get("/"))[0] == 200


async def test_who_guesses_tokens_too_fast_is_told_only_to_slow_down(house: House) -> None:
    async with visitor(house) as came:
        answers = [await came.post("/sign-in", token="appt_nonsense")]
        while answers[-1][0] == 401 and len(answers) < 1_000:
            answers.append(await came.post("/sign-in", token="appt_nonsense"))
        assert len(answers) > FAILED_BURST
        status, text, headers = answers[-1]
        assert (status, "<h1>Too many requests</h1>" in text) == (429, True)
        assert int(headers["Retry-After"]) > 0
        # Control: a token that is valid opens the door all the same.
        assert (await came.post("/sign-in", token=house.token(Role.VIEWER)))[0] == 303
