"""The document: its examples are taken as they stand, and it tells of every problem. See also tests/contract."""

import json
from typing import Any

from appointments.http.openapi import BOOKING, EXAMPLES
from appointments.http.problems import TABLE
from tests.unit.http.wire import JSON, Answer, ask, head, post, serving

NEVER_HERE = {405, 431}
"""Told of no operation in particular: an address that has not this method, a head that is too large."""


async def document(port: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((await ask(port, head("GET", "/openapi.json"))).body)
    return told


async def test_every_example_is_taken() -> None:
    async with serving() as port:
        paths = (await document(port))["paths"]
        shown = {
            operation["operationId"]: (path, operation["requestBody"]["content"]["application/json"]["example"])
            for path, methods in paths.items()
            for operation in methods.values()
            if "requestBody" in operation
        }
        assert {name: example for name, (_, example) in shown.items()} == EXAMPLES

        async def take(name: str, id: str = "") -> Answer:
            path, example = shown[name]
            target = path.replace("{id}", id).replace("{provider}", "main")
            return await ask(port, post(json.dumps(example).encode(), JSON, "Prefer: wait=5", target=target, key=name))

        booked = json.loads((await take("book")).body)
        assert (booked["state"], booked["summary"]) == ("confirmed", BOOKING["summary"])
        assert (await take("reschedule", booked["id"])).status == 200
        assert (await take("act", booked["id"])).status in (200, 202)
        assert (await take("cancel", booked["id"])).status in (200, 202)
        assert (await take("ui_event")).status == 201
        report = json.loads((await take("reconcile")).body)
        assert (await take("heal", report["id"])).status == 200
        assert (await take("called_back")).problem == "bad-signature"


async def test_every_problem_is_told_of_and_every_answer_that_is_none_has_a_meaning() -> None:
    async with serving() as port:
        paths = (await document(port))["paths"]
    answers = {
        int(status): answer
        for methods in paths.values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
    }
    assert {status for status, _ in TABLE.values()} - set(answers) == NEVER_HERE
    for status, answer in answers.items():
        assert answer["description"]
        assert ("application/problem+json" in answer.get("content", {})) == (status >= 400)
