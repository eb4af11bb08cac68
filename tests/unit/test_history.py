"""Rows over several runs: the first that crossed its limit, and what cannot be compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import record, row, written

from mechdrift.commands.cli import main
from mechdrift.report.history import Track, names, tracks
from mechdrift.report.html import html
from mechdrift.report.markdown import markdown
from mechdrift.report.series import view
from mechdrift.report.whole import Whole, read_whole
from mechdrift.verdict.row import Row

RUNS = 12
CROSSED, DRIFTED = 6, 7
"""A drift is planted: 0.02 a run, under the limit in one run, and told from it in the next."""


def of_step(step: int) -> Row:
    estimate = 0.92 - 0.02 * step if step < CROSSED else 0.79 - 0.1 * (step - CROSSED)
    verdict = "held" if step < CROSSED else "undecided" if step < DRIFTED else "drifted"
    return row("a.moves", estimate, verdict)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Whole]:
    """A record of a step of a training run."""

    def made(step: int, *rows: Row, **more: Any) -> Whole:
        result = record(*rows, post=f"runs/step-{step}", started=1e9 + step, **more)
        return read_whole(written(tmp_path / f"r{step}.json", result))

    return made


def by_label(records: list[Whole]) -> dict[str, Track]:
    return {track.row.label: track for track in tracks(records)}


def test_the_run_in_which_a_row_drifted_is_marked(run: Callable[..., Whole]) -> None:
    records = [run(step, row("a.stays"), of_step(step), row("b.told", 0.1, role="report", limit=None)) for step in range(RUNS)]
    found = by_label(records)
    assert [track.row.label for track in tracks(records)] == ["a.moves", "a.stays", "b.told"]
    assert (found["a.moves"].drifted, found["a.moves"].beyond) == (DRIFTED, CROSSED)
    assert found["a.moves"].summary() == "drifted first in step-7; its estimate was first beyond the limit in step-6"
    assert (found["a.stays"].summary(), found["b.told"].summary()) == ("drifted in no run", "has no limit")
    page, text = html(view(records)), markdown(view(records))
    assert "drifted first in step-7" in page
    assert page.count('class="marked"') == 1
    assert r"a\.moves \(gate\) drifted first in step\-7" in text
    assert r"a\.stays \(gate\)" not in text


def test_numbers_of_another_measure_are_left_out_and_named(run: Callable[..., Whole]) -> None:
    other = row("a.b", 0.1, "drifted", key={"measure": "a.b", "site_rule": "r", "data": "theirs", "parameters": {}})
    records = [run(0, row("a.b", 0.2, "drifted", version=2)), run(1, other), run(2), run(3, row("a.b", None)), run(4, row("a.b"))]
    (track,) = tracks(records)
    assert [point.estimate for point in track.points] == [None, None, None, None, 0.9]
    assert [point.verdict for point in track.points] == ["not comparable"] * 2 + ["not requested", "unmeasurable", "held"]
    assert (track.drifted, track.beyond) == (None, None)
    assert track.left_out == (
        "step-0: measured by version 2 there, by version 1 here",
        "step-1: data 'theirs' there, 'd' here",
    )
    assert "step-1: data" in html(view(records))


def test_a_row_that_never_had_a_number_has_a_track_and_no_picture(run: Callable[..., Whole]) -> None:
    (track,) = tracks([run(0, row("a.b", None)), run(1, row("a.b", None))])
    assert track.picture() is None
    assert track.summary() == "drifted in no run"


def test_runs_are_called_by_their_post_or_by_their_file(run: Callable[..., Whole]) -> None:
    records = [run(0), run(1)]
    assert names(records) == ["step-0", "step-1"]
    assert names([*records, records[0]]) == ["r0", "r1", "r0"]


def test_records_come_in_the_order_given_or_by_time(run: Callable[..., Whole], tmp_path: Path) -> None:
    paths = [str(run(step, of_step(step)).path) for step in (7, 0, 6)]
    for more, order, result, code in (
        ([], [7, 0, 6], "drifted first in step-7", 6),
        (["--by-time"], [0, 6, 7], "drifted first in step-7; its estimate was first beyond the limit in step-6", 1),
    ):
        assert main(["report", *paths, *more, "--markdown", str(tmp_path / "o.md"), "--junit", str(tmp_path / "o.xml")]) == code
        (line,) = [line for line in (tmp_path / "o.md").read_text().splitlines() if "drifted first" in line]
        assert line.replace("\\", "").endswith(result)
        assert [int(part[0]) for part in (tmp_path / "o.xml").read_text().split('name="mechdrift r')[1:]] == order


def test_records_of_a_training_run_come_by_their_steps(run: Callable[..., Whole], tmp_path: Path) -> None:
    """Not by when they were measured, and not as a shell sorts them."""
    paths = [str(run(10 - step, row("a.b"), extra={"step": step}).path) for step in (10, 2, 9)]
    assert names([read_whole(Path(path)) for path in paths]) == ["step 10", "step 2", "step 9"]
    assert main(["report", *paths, "--by-time", "--junit", str(tmp_path / "o.xml")]) == 0
    found = [int(part[0]) for part in (tmp_path / "o.xml").read_text().split('name="mechdrift r')[1:]]
    assert found == [8, 1, 0]
