"""Sittings and jobs are bounded for each tenant: one that begins many pushes out nothing of another's."""

from collections import Counter, OrderedDict
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from starlette.requests import Request

from appointments.access.access import Access, Unauthenticated
from appointments.access.roles import Permission, Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile
from appointments.console import jobs as jobs_module
from appointments.console import room, session
from appointments.console.jobs import Job, Jobs
from appointments.console.session import COOKIE, Sessions

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
MANY = 5


@dataclass
class Thing:
    tenant: str


def sat(id: str) -> Request:
    return Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={id}".encode())]})


def test_many_sittings_push_out_their_own_tenant_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SESSIONS_OF_TENANT_MAX", 2)
    with closing(TokenFile(tmp_path / "tokens")) as tokens:
        sessions = Sessions(Access(tokens, Throttle(None, 20), lambda: NOON), lambda: NOON)

        def begin(tenant: str) -> str:
            who = Principal(tenant=tenant, actor="kim", role=Role.VIEWER)
            return sessions.begin(tokens.make(who, "test", "", NOON, None)[0])

        quiet, busy = begin("quiet"), [begin("busy") for _ in range(MANY)]
        assert sessions.of(sat(quiet))[1].tenant == "quiet"
        assert [sessions.of(sat(id))[1].tenant for id in busy[-2:]] == ["busy", "busy"]
        for id in busy[:-2]:
            with pytest.raises(Unauthenticated):
                sessions.of(sat(id))


async def test_many_jobs_push_out_their_own_tenant_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "JOBS_OF_TENANT_MAX", 2)
    jobs = Jobs()

    async def work(_: Job) -> None:
        return

    def begin(tenant: str) -> int:
        return jobs.begin(Job(tenant, Permission.READ, "Compare", "/"), work).id

    quiet, busy = begin("quiet"), [begin("busy") for _ in range(MANY)]
    await jobs.finished()
    assert jobs.get(quiet, "quiet") is not None
    assert [id for id in busy if jobs.get(id, "busy")] == busy[-2:]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_nobody_loses_anything_for_one_that_has_more(seed: int) -> None:
    dice, each, all_ = Random(seed), 6, 12
    kept: OrderedDict[int, Thing] = OrderedDict()
    for n in range(300):
        before = Counter(one.tenant for one in kept.values())
        tenant = f"t{min(dice.randrange(8), dice.randrange(8))}"
        room.keep(kept, n, Thing(tenant), each, all_)
        of = Counter(one.tenant for one in kept.values())
        assert len(kept) <= all_
        assert max(of.values()) <= each
        for lost in before - of:
            assert before[lost] >= of[tenant]
    assert list(kept) == sorted(kept)
