"""Lists from Python and the command line: pages, the filter by time, and where to go on."""

from pathlib import Path
from typing import Any

import pytest
from command_line import appointments, booked

from appointments import AppointmentFilter, Orchestrator, Settings, SyncOrchestrator
from domain.errors import InvalidFields

FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


async def test_pages_lead_on_and_say_as_of_when(tmp_path: Path) -> None:
    settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider="local:")
    async with Orchestrator.open(settings) as desk:
        ids = [(await desk.book(FIELDS, key=str(n), wait=10)).id for n in range(3)]
        first = await desk.list(AppointmentFilter(limit=2))
        assert [one.id for one in first] == [ids[2], ids[1]]
        assert (len(first), first[0].id) == (2, ids[2])
        assert first.position == await desk.runtime.store.position()
        last = await desk.list(AppointmentFilter(limit=2, cursor=first.next_cursor))
        assert ([one.id for one in last], last.next_cursor) == ([ids[0]], None)
        assert last.items[0] == await desk.show(ids[0])
        with pytest.raises(InvalidFields, match="cursor"):
            await desk.list(AppointmentFilter(cursor=first.next_cursor, q="x"))


def test_the_synchronous_face_lists_and_rebuilds_in_memory() -> None:
    with SyncOrchestrator.open(Settings(store="memory:", provider="local:")) as desk:
        one = desk.book(FIELDS, key="1", wait=10)
        assert desk.rebuild("figures").projections == ("figures",)
        assert desk.rebuild().position == desk.list().position
        assert [found.id for found in desk.list()] == [one.id]


class TestCommandLine:
    def test_a_cursor_goes_on_where_the_list_ended(self, own_folder: Path) -> None:
        ids = [booked(f"order-{n}")["id"] for n in range(3)]
        page = appointments("list", "--limit", "2", "--json").json
        assert [one["id"] for one in page["items"]] == [ids[2], ids[1]]
        rest = appointments("list", "--limit", "2", "--cursor", page["next_cursor"], "--json").json
        assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([ids[0]], None)
        told = appointments("list", "--limit", "2")
        assert f"--cursor {page['next_cursor']}" in told.err
        assert appointments("list").err == ""

    def test_more_than_a_page_is_put_together(self, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("appointments.cli.read.PAGE_MAX", 2)
        ids = [booked(f"order-{n}")["id"] for n in range(5)]
        assert [one["id"] for one in appointments("list", "--json").json["items"]] == ids[::-1]
        page = appointments("list", "--limit", "3", "--json").json
        assert [one["id"] for one in page["items"]] == ids[:1:-1]
        assert appointments("list", "--cursor", page["next_cursor"], "--json").json["items"][0]["id"] == ids[1]

    def test_times(self, own_folder: Path) -> None:
        id = booked()["id"]  # 09:00 to 09:30 in Berlin

        def found(*words: str) -> list[str]:
            return [one["id"] for one in appointments("list", "--json", *words).json["items"]]

        assert found("--from", "2031-03-03T08:29") == found("--to", "2031-03-03T09:01:00+01:00") == [id]
        assert found("--from", "2031-03-03T08:30") == found("--to", "2031-03-03T08:00:00Z") == []

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--cursor", "nonsense"), "cursor"),
            (("--from", "soon"), "--from"),
            (("--from", "2031-03-03T09:00:00Z", "--to", "2031-03-03T09:00:00Z"), "to must be later than from"),
        ],
    )
    def test_what_cannot_be_is_refused(self, own_folder: Path, words: tuple[str, ...], told: str) -> None:
        booked()
        said = appointments("list", *words)
        assert (said.code, said.out) == (2, "")
        assert told in said.err

    def test_rebuild(self, own_folder: Path) -> None:
        id = booked()["id"]
        said = appointments("rebuild")
        assert said.code == 0
        assert "current_state, figures" in said.out
        assert "events folded: 7 of 7" in said.err
        built = appointments("rebuild", "current_state", "--json").json
        assert built == {"projections": ["current_state"], "position": 7}
        assert [one["id"] for one in appointments("list", "--json").json["items"]] == [id]

    def test_rebuild_of_what_there_is_not_is_refused(self, own_folder: Path) -> None:
        booked()
        said = appointments("rebuild", "nonsense")
        assert said.code == 2
        assert "there are: current_state, figures" in said.err
