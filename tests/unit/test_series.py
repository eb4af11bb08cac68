"""Several records: of one pair over time the newest counts, of different pairs the worst, in the head and in the exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import record, row, written

from mechdrift.commands.cli import main
from mechdrift.report.html import html
from mechdrift.report.markdown import markdown
from mechdrift.report.no_record import verdict_file
from mechdrift.report.series import view
from mechdrift.report.whole import Whole, read_whole
from mechdrift.report.written import read_records
from mechdrift.verdict.run_verdict import RunVerdict

HELD, DRIFTED = row("a.b"), row("a.b", 0.5, "drifted")


def made(folder: Path, posts: list[str], *, last: bool = False, **more: Any) -> list[Whole]:
    """Records of one base with these posts, of which the first drifted, or the last."""
    bad = len(posts) - 1 if last else 0
    return [
        read_whole(written(folder / f"r{place}.json", record(DRIFTED if place == bad else HELD, post=post, **more)))
        for place, post in enumerate(posts)
    ]


@pytest.mark.parametrize(
    "posts",
    [
        ["runs/dpo", "runs/kto", "runs/ppo"],
        ["runs/dpo-beta0.1", "runs/dpo-beta0.5"],
        ["org/model@dpo", "org/model@kto"],
        ["org/model-v1", "org/model-v2"],
        ["a/checkpoint-100", "b/checkpoint-100"],
    ],
)
def test_of_pairs_the_worst_counts(posts: list[str], tmp_path: Path) -> None:
    for last in (False, True):
        shown = view(made(tmp_path, posts, last=last))
        name = Path(posts[-1 if last else 0]).name if len({Path(post).name for post in posts}) == len(posts) else "r"
        assert len(shown.pairs) == len(posts)
        assert shown.title.startswith(f"drifted: 1 of {len(posts)} pairs did not hold: {name}")
        assert shown.exit_code == 1
        assert markdown(shown).replace("\\", "").replace("<!-- -->", "").startswith(f"## mechdrift: {shown.title}")
        page = html(shown)
        assert f"<title>mechdrift: {shown.title}</title>" in page
        assert '<h1>mechdrift: <span class="drifted">' in page


@pytest.mark.parametrize(
    "posts",
    [
        ["org/model@main"] * 3,
        ["org/model@0123456789abcdef", "org/model@fedcba9876543210"],
        ["runs/step-100", "runs/step-200", "runs/step-300"],
        ["runs/checkpoint-8/", "runs/checkpoint-16/"],
        ["ppo/100", "ppo/200"],
    ],
)
def test_of_one_pair_over_time_the_newest_counts_and_the_earlier_are_counted(posts: list[str], tmp_path: Path) -> None:
    shown = view(made(tmp_path, posts))
    assert len(shown.pairs) == 1
    assert shown.title == f"passed (exit code 0): 1 gated rows: 1 held; 1 of {len(posts) - 1} earlier runs did not hold"
    assert shown.exit_code == 0
    assert view(made(tmp_path, posts, last=True)).exit_code == 1


def test_another_base_under_the_same_name_is_another_pair(tmp_path: Path) -> None:
    one, other = made(tmp_path, ["post", "post"])
    other.record.inputs.base.digests["weights"] = "b" * 64
    assert len(view([one, other]).pairs) == 2
    assert len(view([one, other], one_series=True).pairs) == 1


def test_a_record_that_gates_less_does_not_take_the_place_of_one_that_failed(tmp_path: Path) -> None:
    """Two families of one pair, each in a run of its own."""
    truth = read_whole(written(tmp_path / "truth.json", record(row("truth.b", 0.5, "drifted"))))
    refusal = read_whole(written(tmp_path / "refusal.json", record(row("refusal.b"))))
    assert view([truth, refusal]).exit_code == 1


def test_a_hole_is_the_newest_night(tmp_path: Path) -> None:
    written(tmp_path / "1.json", record(HELD))
    left = verdict_file("runs/base", "runs/post", 2e9, 5, RunVerdict("error", "nothing was measured"), recorded=False)
    (tmp_path / "2.json").write_text(json.dumps(left))
    shown = read_records([tmp_path / "1.json", tmp_path / "2.json"])
    assert len(shown.pairs) == 1
    assert shown.title == "no record: nothing was measured"
    assert shown.exit_code == 5
    paths = [str(tmp_path / name) for name in ("1.json", "2.json")]
    forms = ["--html", str(tmp_path / "o.html"), "--markdown", str(tmp_path / "o.md"), "--junit", str(tmp_path / "o.xml")]
    assert main(["report", *paths, *forms, "--model-card", str(tmp_path / "o.yml")]) == 5
    assert "no record: nothing was measured" in (tmp_path / "o.html").read_text()
    assert '<error message="no record: nothing was measured"' in (tmp_path / "o.xml").read_text().replace(' type="error"', "")
