"""The console's door, over plain HTTP, as somebody would come who means no good; and what each role may see and do."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appointments import Orchestrator, Settings
from appointments.access.roles import MAY, Permission, Role
from appointments.sharding import shard_of
from mocks.server import MockProvider
from tests.integration.console_house import House, in_front_of, open_house, visitor, wanted

pytestmark = pytest.mark.evidence(
    target="console",
    answers=("R4.4", "R7.4"),
    given="a console, and visitors of every role, of another tenant, of another site and of none",
    when="each page is asked for and each form is sent, by those who may and those who may not",
    then="each role gets what the table of roles gives it; whoever else gets a page that says so, and does nothing",
    seen_in="answers, the log",
)

ID = "00000000-0000-0000-0000-000000000000"
PAGES = {
    "/": Permission.READ,
    "/appointments": Permission.READ,
    "/appointments/{id}": Permission.READ,
    "/appointments/{id}?version=1": Permission.AUDIT,
    "/appointments/{id}/state?version=1": Permission.AUDIT,
    "/parked": Permission.AUDIT,
    "/dead-letters": Permission.AUDIT,
    "/reconciliation": Permission.RECONCILE,
    "/reconciliation/{report}": Permission.AUDIT,
    "/reconciliation/{report}/healing": Permission.HEAL,
}
FORMS = {
    "/appointments/{id}/replay": Permission.AUDIT,
    "/appointments/{id}/act": Permission.OPERATE,
    "/parked/act": Permission.OPERATE,
    "/dead-letters/deliver": Permission.OPERATE,
    "/reconciliation/compare": Permission.RECONCILE,
    "/reconciliation/{report}/heal": Permission.HEAL,
    "/check": Permission.AUDIT,
    "/sign-out": Permission.READ,
}
TRAIL = ("/appointments/{id}", "/appointments/{id}?version=1")
ACT = {"action": "retry", "reason": "x", "sure": "yes"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_gets_what_the_table_of_roles_gives_it_and_nothing_else(house: House, role: Role) -> None:
    one = await house.desk.book(wanted(1), key="k", wait=10)
    report = house.door.reports.keep(await house.desk.reconcile("main"))
    here = {"id": one.id, "report": report.id}
    async with visitor(house, role) as came:
        for path, needs in PAGES.items():
            for asked_by in ({}, {"HX-Request": "true"}):
                status, text, _ = await came.get(path.format(**here), headers=asked_by)
                assert status in (200, 403)
                assert (status == 403) is (needs not in MAY[role]), (path, asked_by, status)
                assert ("appointment-requested" in text) is (audits(role) and path in TRAIL), path
        for path, needs in FORMS.items():
            status, _, _ = await came.post(path.format(**here))  # nothing is filled in: who may is told what is missing
            assert (status == 403) is (needs not in MAY[role]), (path, status)
    assert (await house.desk.show(one.id)).version == one.version


def audits(role: Role) -> bool:
    return Permission.AUDIT in MAY[role]


async def test_jobs_are_for_those_who_could_have_begun_them(house: House) -> None:
    async with visitor(house, Role.AUDITOR) as auditor, visitor(house, Role.VIEWER) as viewer:
        _, _, headers = await auditor.post("/reconciliation/compare", calendar="main", policy="park")
        job = headers["Location"].removeprefix("/console")
        assert (await auditor.get(job))[0] in (200, 303)
        assert (await viewer.get(job))[0] == 403
        async with visitor(house, Role.ADMIN, "other") as stranger:
            assert (await stranger.get(job))[0] == 404


async def test_without_a_token_every_page_leads_to_the_sign_in_and_no_form_does_anything(house: House) -> None:
    async with visitor(house) as nobody:
        for path in (*PAGES, "/jobs/1"):
            status, _, headers = await nobody.get(path.format(id=ID, report=ID))
            assert (status, headers["Location"].partition("?")[0]) == (303, "/console/sign-in"), path
        for path in FORMS:
            status, _, headers = await nobody.post(path.format(id=ID, report=ID))
            assert (status, headers["Location"]) == (303, "/console/sign-in"), path
        assert (await nobody.post("/sign-in", token="appt_nonsense"))[0] == 401
        assert (await nobody.get("/", headers={"HX-Request": "true"}))[2]["HX-Redirect"] == "/console/sign-in"


async def test_a_form_of_another_site_does_nothing(house: House) -> None:
    (one,) = await house.parked(1)
    async with visitor(house, Role.OPERATOR) as came:
        for secret in ("guessed", ""):
            for path in FORMS:
                status, text, _ = await came.post(path.format(id=one.id, report=ID), **ACT, form_secret=secret)
                assert (status, "not from this sitting" in text) == (403, True), path
        assert (await house.desk.show(one.id)).version == one.version
        # Control: the same form of this sitting is taken.
        assert (await came.post(f"/appointments/{one.id}/act", **ACT, version=str(one.version)))[0] == 200
    assert (await house.desk.show(one.id)).version > one.version


@pytest.mark.parametrize("missing", ["reason", "sure", "action"])
async def test_an_action_without_a_reason_or_a_tick_does_nothing(house: House, missing: str) -> None:
    (one,) = await house.parked(1)
    async with visitor(house, Role.OPERATOR) as came:
        form = {name: value for name, value in ACT.items() if name != missing}
        status, text, _ = await came.post(f"/appointments/{one.id}/act", **form, version=str(one.version))
        assert (status, "Nothing was changed" in text) == (422, True)
    assert (await house.desk.show(one.id)).version == one.version


async def test_an_action_is_for_the_version_that_was_looked_at(house: House) -> None:
    (one,) = await house.parked(1)
    async with visitor(house, Role.OPERATOR) as came:
        status, text, _ = await came.post(f"/appointments/{one.id}/act", **ACT, version=str(one.version - 1))
        assert (status, "It has changed since" in text) == (412, True)
    assert (await house.desk.show(one.id)).version == one.version


async def test_another_tenant_s_appointment_and_report_are_not_there(house: House) -> None:
    (one,) = await house.parked(1)
    report = house.door.reports.keep(await house.desk.reconcile("main"))
    async with visitor(house, Role.ADMIN, "other") as stranger:
        for path in ("/appointments/{id}", "/appointments/{id}/state?version=1", "/reconciliation/{report}"):
            assert (await stranger.get(path.format(id=one.id, report=report.id)))[0] == 404
        for path in ("/parked", "/dead-letters", "/"):
            assert "Check-up" not in (await stranger.get(path))[1]


async def test_a_filter_that_is_none_is_told_and_shows_nothing(house: House) -> None:
    await house.desk.book(wanted(1), key="k", wait=10)
    async with visitor(house, Role.VIEWER) as came:
        for query in ("from=yesterday", "state=nonsense", "cursor=x", "q=" + "x" * 300):
            status, told, _ = await came.get(f"/appointments?{query}")
            assert (status, 'role="alert"' in told, "Check-up" in told) == (422, True, False), query


async def test_a_revoked_token_ends_the_sitting(house: House) -> None:
    async with visitor(house, Role.OPERATOR) as came:
        assert (await came.get("/"))[0] == 200
        for token in house.tokens.all():
            house.tokens.revoke(token.id, "test", "", datetime.now(UTC))
        assert (await came.get("/"))[0] == 303


async def test_every_answer_forbids_what_is_not_ours(house: House) -> None:
    async with visitor(house) as nobody:
        for path in ("/sign-in", "/", "/static/console.css", "/nowhere"):
            _, _, headers = await nobody.get(path)
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == ("no-cache" if "static" in path else "no-store")


async def test_the_cookie_goes_to_no_script_no_other_site_and_behind_tls_over_tls_alone(house: House) -> None:
    async with visitor(house) as came:
        for forwarded, secure in (({}, False), ({"X-Forwarded-Proto": "https"}, True)):
            data = {"token": house.token(Role.VIEWER)}
            url = house.url + "/sign-in"
            async with came.session.post(url, data=data, headers=forwarded, allow_redirects=False) as answer:
                cookie = answer.headers["Set-Cookie"]
            assert ("HttpOnly" in cookie, "SameSite=strict" in cookie, "Path=/console" in cookie) == (True,) * 3
            assert ("Secure" in cookie) is secure


async def test_a_sign_in_from_another_site_is_none(house: House) -> None:
    async with visitor(house) as came:
        data = {"token": house.token(Role.VIEWER)}
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
            headers = {"Sec-Fetch-Site": site}
            async with came.session.post(
                house.url + "/sign-in", data=data, headers=headers, allow_redirects=False
            ) as answer:
                assert answer.status == status


class TestBackToWhereOneWanted:
    """After the sign-in."""

    @pytest.mark.parametrize(
        "page", ["/", "/parked", f"/appointments/{ID}?version=3", "/appointments?q=a%26b&state=failed"]
    )
    async def test_one_comes_to_the_page_that_was_asked_for(self, house: House, page: str) -> None:
        async with visitor(house) as came:
            _, _, headers = await came.get(page)
            _, text, _ = await came.get(headers["Location"].removeprefix("/console"))
            given = text.partition('name="next" value="')[2].partition('"')[0].replace("&amp;", "&")
            status, _, headers = await came.post("/sign-in", token=house.token(Role.VIEWER), next=given)
            assert (status, headers["Location"]) == (303, "/console" + page)

    @pytest.mark.parametrize(
        "elsewhere",
        [
            "//evil.example",
            "///evil.example",
            "https://evil.example/console/",
            "https:evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/console/\\evil.example",
            "/console//evil.example",
            "/console/../..//evil.example",
            "/console/%2e%2e//evil.example",
            "/console/%2f%2fevil.example",
            "%2f%2fevil.example",
            "/%09/evil.example",
            "/\t/evil.example",
            "/console/\r\nSet-Cookie: a=b",
            "/console/@evil.example",
            "/consoleevil",
            "javascript:alert(1)",
            "/v1/appointments",
            "/console/?x=" + "a" * 2_000,
            "",
        ],
    )
    async def test_and_to_no_other_place(self, house: House, elsewhere: str) -> None:
        async with visitor(house) as came:
            _, text, _ = await came.get("/sign-in", params={"next": elsewhere})
            assert 'name="next" value="/console/"' in text
            status, _, headers = await came.post("/sign-in", token=house.token(Role.VIEWER), next=elsewhere)
            assert (status, headers["Location"]) == (303, "/console/")


async def test_of_two_shards_each_tenant_sees_and_has_done_what_is_in_its_own(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        shards = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("north", "south")}
        desks = []
        for store in shards.values():
            settings = Settings(store=store, provider=mock.url, log_level="error")
            desk = await stack.enter_async_context(Orchestrator.open(settings, listen=False))
            desk.settings = settings.model_copy(update={"shards": shards})
            desks.append(desk)
        house = await stack.enter_async_context(in_front_of(desks, mock, tmp_path))
        tenants = {shard_of(name, shards): name for name in ("globex", "acme")}
        assert tenants.keys() == shards.keys()
        for desk, tenant in zip(desks, (tenants["north"], tenants["south"]), strict=True):
            one = await desk.book(wanted(1), key="k", wait=10, tenant=tenant)
            async with visitor(house, Role.OPERATOR, tenant) as came:
                assert str(one.id) in (await came.get("/"))[1]
                assert str(one.id) in (await came.get("/appointments"))[1]
                form = {**ACT, "action": "compensate", "version": str(one.version)}
                assert (await came.post(f"/appointments/{one.id}/act", **form))[0] == 200
                assert (await came.begun("/check"))[0] == 200
            assert (await desk.show(one.id, tenant=tenant)).state == "cancelled"
            other = next(name for name in tenants.values() if name != tenant)
            async with visitor(house, Role.OPERATOR, other) as stranger:
                assert (await stranger.get(f"/appointments/{one.id}"))[0] == 404
