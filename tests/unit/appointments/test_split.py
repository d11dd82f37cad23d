"""The split: sticks to the key, grows without changing sides, is changed at run time, and survives a torn file."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appointments.migration.split import BUCKETS, Change, Leader, Shares, Split, bucket, split_file
from domain.commands import parse
from domain.errors import InvalidFields

SEED = 20_261_125
AT = datetime(2031, 3, 3, 8, tzinfo=UTC)


def change(writes: float = 0, reads: float = 100, stopped: bool = False, reason: str = "gate passed") -> Change:
    return Change(writes=writes, reads=reads, stopped=stopped, at=AT, actor="dana", reason=reason)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return split_file(tmp_path / "desk.db")


class TestDecision:
    def test_a_key_that_is_ours_stays_ours_as_the_share_grows(self) -> None:
        print(f"seed {SEED}")
        chance = random.Random(SEED)
        for _ in range(300):
            key = f"order-{chance.randrange(10**9)}"
            percentages = sorted(round(chance.uniform(0, 100), 2) for _ in range(8))
            sides = [Shares(writes=p, reads=100).leads("default", key) is Leader.OURS for p in percentages]
            assert sides == sorted(sides), (key, percentages)

    def test_the_share_is_what_was_asked_for(self) -> None:
        keys = [f"order-{n}" for n in range(20_000)]
        for percent in (0, 1, 12.5, 50, 100):
            shares = Shares(writes=percent, reads=100)
            ours = sum(shares.leads("default", key) is Leader.OURS for key in keys)
            assert abs(ours / len(keys) - percent / 100) < 0.01
            assert percent not in (0, 100) or ours == percent * len(keys) / 100

    def test_it_hangs_on_tenant_and_key_and_on_nothing_else(self) -> None:
        assert bucket("default", "order-1") == bucket("default", "order-1") == 8_717
        assert len({bucket(tenant, "order-1") for tenant in ("a", "b", "c", "d")}) > 1
        assert all(0 <= bucket("default", str(n)) < BUCKETS for n in range(1_000))

    def test_a_key_whose_writes_are_ours_has_its_reads_here(self) -> None:
        shares = Shares(writes=20, reads=30)
        for n in range(1_000):
            if shares.leads("default", str(n)) is Leader.OURS:
                assert shares.answers("default", str(n)) is Leader.OURS

    def test_the_kill_switch_leaves_nothing_new_to_us(self) -> None:
        stopped = Shares(writes=100, reads=100, stopped=True)
        assert {stopped.leads("default", str(n)) for n in range(100)} == {Leader.LEGACY}
        assert {stopped.answers("default", str(n)) for n in range(100)} == {Leader.LEGACY}

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"writes": 101, "reads": 100}, "less than or equal to 100"),
            ({"writes": -1, "reads": 100}, "greater than or equal to 0"),
            ({"writes": 0.125, "reads": 100}, "at most two decimals"),
            ({"writes": float("nan"), "reads": 100}, "/writes"),
            ({"writes": 20, "reads": 10}, "reads go first"),
        ],
    )
    def test_figures_that_make_no_sense_are_refused(self, fields: dict[str, float], told: str) -> None:
        with pytest.raises(InvalidFields, match=told):
            parse(Shares, fields)


class TestFile:
    def test_without_one_the_legacy_system_leads(self, file: Path) -> None:
        standing = Split(file).standing()
        assert (standing.shares, standing.change, standing.fault) == (Shares(), None, None)
        assert Split(None).shares == Shares()

    def test_a_change_is_followed_by_those_who_look_already(self, file: Path) -> None:
        serving, operator = Split(file), Split(file)
        for writes in (1, 10, 50, 0):
            operator.change(change(writes))
            assert serving.shares == Shares(writes=writes, reads=100)
        assert [Change.model_validate_json(line).writes for line in file.read_text().splitlines()] == [1, 10, 50, 0]

    def test_while_nothing_changes_it_is_not_read(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        split = Split(file)
        split.change(change(10))
        assert split.shares.writes == 10
        monkeypatch.setattr("appointments.migration.split.read", lambda _file: pytest.fail("read again"))
        assert split.shares.writes == 10

    @pytest.mark.parametrize(
        "broken",
        [
            '{"writes": 90, "rea',
            "\x00\x00\x00\x00",
            '{"writes": 90, "reads": 100}',
            '{"writes": 900}',
            "[]",
            '"x"',
            "ÿ",
        ],
    )
    def test_a_last_line_that_cannot_be_read_is_named_and_the_one_before_holds(self, file: Path, broken: str) -> None:
        split = Split(file)
        split.change(change(10))
        with file.open("a", encoding="latin-1") as opened:
            opened.write(broken)
        standing = split.standing()
        assert standing.shares == Shares(writes=10, reads=100)
        assert standing.fault is not None
        assert "line 1 from the end" in standing.fault

    def test_a_change_after_a_torn_line_is_whole(self, file: Path) -> None:
        split = Split(file)
        split.change(change(10))
        with file.open("a") as opened:
            opened.write('{"writes": 90, "rea')
        split.change(change(20))
        standing = split.standing()
        assert (standing.shares.writes, standing.fault) == (20, None)

    def test_a_file_without_any_good_line_leaves_everything_to_the_legacy_system(self, file: Path) -> None:
        file.write_text("no\nnot\neither\n")
        standing = Split(file).standing()
        assert standing.shares == Shares()
        assert standing.fault

    def test_a_file_that_has_gone_leaves_in_force_what_was(self, file: Path) -> None:
        split = Split(file)
        split.change(change(10))
        assert split.shares.writes == 10
        file.unlink()
        standing = split.standing()
        assert (standing.shares.writes, standing.fault) == (10, "desk.db.split.jsonl has gone")

    def test_a_long_history_costs_the_same(self, file: Path) -> None:
        line = change(10).model_dump_json() + "\n"
        file.write_text(line * 5_000 + change(20).model_dump_json() + "\n")
        assert Split(file).shares.writes == 20
