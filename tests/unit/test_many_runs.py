"""A series of runs: its records stay, a killed series goes on, and a run that gives none is said."""

import json
from pathlib import Path

import pytest
from by_hand import suite_by_hand

from mechdrift.errors import InputError
from mechdrift.report.whole import read_record
from mechdrift.session.many_runs import Run, records

PAIR = ("organism:base", "organism:instruct")


@pytest.mark.nightly
def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    suite = tmp_path / "test_own.py"
    suite.write_text(suite_by_hand(estimate=0.2))
    runs = [Run(f"seed={seed}", *PAIR, (str(suite), "--mechdrift-seed", str(seed))) for seed in (0, 1)]
    started: list[str] = []
    first = list(records(runs[:1], tmp_path / "runs", lambda run: started.append(run.name)))
    both = list(records(runs, tmp_path / "runs", lambda run: started.append(run.name)))
    assert started == ["seed=0", "seed=1"]
    assert both[0] == first[0] == read_record(tmp_path / "runs" / "seed=0.json")
    assert [record.settings.seed for record in both] == [0, 1]
    assert [record.exit_code for record in both] == [1, 1]  # drifted, and the series goes on


@pytest.mark.nightly
def test_what_a_run_left_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    """An interrupted pytest writes what it has: rows whose test never ran."""
    suite = tmp_path / "test_own.py"
    suite.write_text(suite_by_hand(estimate=0.2))
    (tmp_path / "once.json").write_text(json.dumps({"exit_code": 3, "rows": []}))
    (record,) = records([Run("once", *PAIR, (str(suite),))], tmp_path)
    assert record.exit_code == 1
    assert len(record.rows) == 1


def test_a_run_without_a_record_is_said_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"away: pytest gave no record: .*nowhere"):
        list(records([Run("away", "nowhere", "organism:instruct")], tmp_path))
