"""The search for the first checkpoint at which a row drifted."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import record, row, written

from mechdrift.commands import bisect
from mechdrift.commands.bisect import Request, Search, ordered
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.report.whole import read_record


class Contents:
    """Of checkpoints: their names, until they are written again."""

    written_again: frozenset[str] = frozenset()

    def __init__(self, *_: Any) -> None:
        pass

    def resolve(self, spec: str) -> Any:
        """As far as a name goes by it."""
        return SimpleNamespace(short=f"{spec} again" if spec in self.written_again else spec)


def search(verdicts: list[str], estimates: list[float] | None = None) -> Search:
    """Of a run with these verdicts."""
    numbers = estimates or [{"drifted": 0.2}.get(verdict, 0.9) for verdict in verdicts]
    rows = [
        row("a.b", None if verdict in ("unmeasurable", "error") else number, verdict)
        for verdict, number in zip(verdicts, numbers, strict=True)
    ]
    return Search(len(rows), rows.__getitem__)


@given(st.integers(1, 300), st.data())
def test_it_is_found_in_about_log2_measurements(count: int, data: Any) -> None:
    first = data.draw(st.integers(0, count - 1))
    looking = search(["held"] * first + ["drifted"] * (count - first))
    assert looking.run() == (first - 1, first)
    assert len(looking.found) <= 1 + math.ceil(math.log2(count)) if count > 1 else len(looking.found) == 1
    assert looking.turns() == []


@given(st.integers(2, 60), st.data())
def test_what_cannot_be_told_is_stepped_over_and_bounded(count: int, data: Any) -> None:
    first = data.draw(st.integers(0, count - 1))
    verdicts = ["held"] * first + ["drifted"] * (count - first)
    unknown = data.draw(st.sets(st.integers(0, count - 2)))
    for place in unknown:
        verdicts[place] = "unmeasurable"
    low, high = search(verdicts).run() or (None, None)
    assert low is not None
    assert high is not None
    assert low < first <= high
    assert verdicts[high] == "drifted"
    assert low == -1 or verdicts[low] == "held"
    assert set(range(low + 1, high)) <= unknown


def test_undecided_has_not_drifted() -> None:
    assert search(["held", "undecided", "drifted"]).run() == (1, 2)


def test_a_row_that_has_not_drifted_at_the_end_is_asked_once() -> None:
    looking = search(["drifted", "drifted", "held"])
    assert looking.run() is None
    assert looking.found.keys() == {2}
    assert looking.run(everything=True) == (-1, 0), "all of them show that it came back"


def test_an_end_that_cannot_be_told_is_an_error() -> None:
    with pytest.raises(Unmeasurable, match="the last checkpoint: because"):
        search(["held", "unmeasurable"]).run()


def test_a_row_that_went_back_is_noticed() -> None:
    looking = search(["held", "held", "held", "drifted"], [0.99, 0.82, 0.97, 0.2])
    assert looking.run(everything=True) == (2, 3)
    assert looking.turns() == [(1, 2)]
    assert search(["held"] * 3, [0.99, 0.97, 0.95]).turns() == []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Which checkpoints were measured, by a stand-in for runs: those after 300 have drifted."""
    requested: list[str] = []

    def records(runs: Any, folder: Path) -> Any:
        for run in runs:
            requested.append(run.name)
            gone = int(run.post.rpartition("-")[2]) > 300
            path = written(tmp_path / "one.json", record(row("truth.clean_gap", *((0.2, "drifted") if gone else (0.9, "held")))))
            yield read_record(path)

    monkeypatch.setattr(bisect, "records", records)
    monkeypatch.setattr(bisect, "Resolver", Contents)
    return requested


def output(tmp_path: Path, **more: Any) -> list[str]:
    lines: list[str] = []
    usual: dict[str, Any] = {
        "row": "truth.clean_gap",
        "base": "b",
        "checkpoints": tuple(f"c-{step}" for step in range(100, 900, 100)),
    }
    bisect.bisect(Request(runs=tmp_path, **usual | more), lines.append)
    return lines


def test_the_answer_names_both_sides(measured: list[str], tmp_path: Path) -> None:
    *each, answer = output(tmp_path)
    assert answer == "truth.clean_gap drifted first at c-400; it had not at c-300; 4 of 8 checkpoints measured"
    assert len(each) == len(measured) == 4
    assert each[0] == "c-800: drifted 0.200 [0.150, 0.250]"


def test_what_was_written_again_under_its_name_is_measured_again(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record has another name."""
    output(tmp_path)
    monkeypatch.setattr(Contents, "written_again", frozenset(["c-800"]))
    output(tmp_path)
    assert len(measured) == 8
    assert len(set(measured)) == 5
    assert len({name for name in measured if name.startswith("c-800")}) == 2


def test_a_row_that_is_not_there_is_named(measured: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 'truth\.other': not measured; expected one of truth\.clean_gap"):
        output(tmp_path, row="truth.other")


@pytest.mark.parametrize(
    ("given_", "by_step", "found"),
    [
        (["c-1000", "c-200"], True, ["c-200", "c-1000"]),
        (["c-200", "c-1000"], False, ["c-200", "c-1000"]),
        (["z", "a"], False, ["z", "a"]),
        (["c-1000", "c-200"], False, r"in the order \[1000, 200\]; .*--by-step"),
        (["a", "c-200"], True, "--by-step: a; "),
        (["a", "a"], False, "a: given twice"),
    ],
)
def test_checkpoints_are_in_the_order_of_training(given_: list[str], by_step: bool, found: list[str] | str) -> None:
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            ordered(given_, by_step)
    else:
        assert ordered(given_, by_step) == found
