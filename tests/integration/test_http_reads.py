"""What is known, over HTTP: entity tags, pages along `Link` while others write, past states, formats."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from appointments.http import reads
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2",),
    given="appointments behind HTTP, and others who write",
    when="one is read again, a list or a trail is walked along its links, and a past state is asked for",
    then="what has not changed is not sent again, and a walk neither skips nor repeats",
    seen_in="answers",
)

BOOK = "/v1/appointments"
NOBODY = f"{BOOK}/00000000-0000-4000-8000-000000000000"
WAIT = "Prefer: wait=5"
NEXT = re.compile(r'<([^>]+)>; rel="next"')
THERE = 23


async def get(port: int, target: str, *lines: str) -> Answer:
    return await ask(port, head("GET", target, *lines))


async def book(port: int, key: str) -> str:
    booked = await ask(port, post(json.dumps(BOOKING).encode(), JSON, WAIT, key=key))
    assert booked.status == 201
    return booked.headers["location"]


async def walk(port: int, target: str, between: Callable[[], Awaitable[object]]) -> list[list[Any]]:
    """The pages behind one another, as their links say; `between` them something happens."""
    pages = []
    for n in count(1):
        assert n < 100, "a walk has an end"
        page = await get(port, target)
        assert page.status == 200
        pages.append(page.json["items"])
        if "link" not in page.headers:
            return pages
        found = NEXT.fullmatch(page.headers["link"])
        assert found is not None, page.headers["link"]
        target = found[1]
        await between()
    raise AssertionError


async def test_what_is_known_already_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port:
        here = await book(port, "k")
        first = await get(port, here)
        tag = first.headers["etag"]
        again = await get(port, here, f"If-None-Match: {tag}")
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers
        short = await ask(port, head("HEAD", here))
        assert (short.status, short.body, short.headers["etag"]) == (200, b"", tag)
        assert (await ask(port, head("HEAD", here, f"If-None-Match: {tag}"))).status == 304
        await ask(port, post(b"", WAIT, target=f"{here}/cancel", key="c"))
        changed = await get(port, here, f"If-None-Match: {tag}")
        assert (changed.status, changed.json["state"]) == (200, "cancelled")
        assert changed.headers["etag"] != tag
        monkeypatch.setattr(reads, "unchanged", lambda *_: False)  # the control: nobody looks at what it knows
        told = await get(port, here, f"If-None-Match: {changed.headers['etag']}")
        assert (told.status, told.body) == (200, changed.body)


@pytest.mark.parametrize("target", [NOBODY, f"{NOBODY}/events", f"{NOBODY}/state", f"{BOOK}/none"])
async def test_what_is_not_there_is_not_found_whatever_the_client_knows(target: str) -> None:
    async with serving() as port:
        assert (await get(port, target)).problem == "unknown-appointment"
        assert (await get(port, target, "If-None-Match: *")).problem == "unknown-appointment"


async def test_a_walk_over_the_list_while_others_write_neither_skips_nor_repeats() -> None:
    async with serving() as port:
        there = [await book(port, f"k{n}") for n in range(THERE)]
        left, more = iter(there), count()

        async def others_write() -> None:
            await book(port, f"new-{next(more)}")
            await ask(port, post(b"", WAIT, target=f"{next(left)}/cancel", key="c"))

        pages = await walk(port, f"{BOOK}?limit=4&calendar=main", others_write)
        seen = [one["links"]["self"] for page in pages for one in page]
        assert [len(page) for page in pages] == [4] * 5 + [3]
        assert seen == there[::-1]


async def test_control_a_walk_by_numbers_repeats_what_others_have_pushed_on() -> None:
    async with serving() as port:
        for n in range(8):
            await book(port, f"k{n}")
        first = (await get(port, f"{BOOK}?limit=4")).json["items"]
        await book(port, "new")
        second = (await get(port, f"{BOOK}?limit=8")).json["items"][4:]
        assert {one["id"] for one in first} & {one["id"] for one in second}


async def test_the_link_keeps_what_was_asked_for_and_the_last_page_has_none() -> None:
    async with serving() as port:
        for n in range(3):
            await book(port, f"k{n}")
        first = await get(port, f"{BOOK}?limit=2&q=Check-up&state=confirmed&from=2031-01-01T00:00:00%2B01:00")
        following = NEXT.fullmatch(first.headers["link"])
        assert following is not None
        for kept in ("limit=2", "q=Check-up", "state=confirmed", "from=2031-01-01T00%3A00%3A00%2B01%3A00"):
            assert kept in following[1]
        assert first.json["next_cursor"] in following[1]
        last = await get(port, following[1])
        assert (len(last.json["items"]), last.json["next_cursor"]) == (1, None)
        assert "link" not in last.headers
        other = following[1].replace("state=confirmed", "state=failed")
        assert (await get(port, other)).problem == "invalid-fields", "a cursor is that of its filter"


async def test_a_walk_over_a_trail_goes_on_into_what_is_written_meanwhile() -> None:
    async with serving() as port:
        here = await book(port, "k")
        written = asyncio.Event()

        async def cancel() -> None:
            if not written.is_set():
                written.set()
                await ask(port, post(b"", WAIT, target=f"{here}/cancel", key="c"))

        pages = await walk(port, f"{here}/events?limit=2", cancel)
        versions = [event["version"] for page in pages for event in page]
        whole = (await get(port, f"{here}/events")).json["items"]
        assert versions == [event["version"] for event in whole] == list(range(1, len(whole) + 1))
        assert {"version", "position", "type", "recorded_at", "actor", "cause", "correlation_id", "data"} <= set(
            whole[0]
        )
        assert (await get(port, f"{here}/events?after={len(whole)}")).json["items"] == []


async def test_a_past_state_is_told_by_version_or_by_instant() -> None:
    async with serving() as port:
        here = await book(port, "k")
        await ask(port, post(b"", WAIT, target=f"{here}/cancel", key="c"))
        now = await get(port, here)
        trail = (await get(port, f"{here}/events")).json["items"]
        confirmed = next(event for event in trail if event["type"].startswith("appointment-confirmed"))
        by_version = await get(port, f"{here}/state?version={confirmed['version']}")
        assert (by_version.json["state"], by_version.headers["etag"]) == ("confirmed", f'"{confirmed["version"]}"')
        at = confirmed["recorded_at"].replace("+00:00", "Z")
        assert (await get(port, f"{here}/state?at={at.replace('+', '%2B')}")).json["state"] == "confirmed"
        assert (await get(port, f"{here}/state")).json["state"] == now.json["state"] == "cancelled"
        assert (await get(port, f"{here}/state?at=1999-01-01T00:00:00Z")).problem == "illegal-transition"
        assert (await get(port, f"{here}/state?version=1&at={at}")).problem == "invalid-fields"
        replayed = await ask(port, post(b"", target=f"{here}/replay"))
        assert (replayed.status, replayed.json["matches"], replayed.json["divergences"]) == (200, True, [])


async def test_figures_and_dead_letters_are_there() -> None:
    async with serving() as port:
        await book(port, "k")
        figures = (await get(port, "/v1/figures")).json["total"]
        assert (figures["requested"], figures["confirmed"]) == (1, 1)
        until = (await get(port, "/v1/figures?until=2001-01-01T00:00:00Z")).json["total"]
        assert until["requested"] == 0
        letters = (await get(port, "/v1/dead-letters")).json
        assert not any(value for value in letters.values() if isinstance(value, list))
