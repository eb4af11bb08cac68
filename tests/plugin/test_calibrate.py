"""`mechdrift calibrate` as a user types it: runs, tables, a profile; a series goes on; a stranger's record stops it."""

import json
from pathlib import Path

import pytest
import recorded
from by_hand import suite_by_hand

from mechdrift.commands.calibrate import is_rerun
from mechdrift.commands.cli import main
from mechdrift.verdict.calibrated import NullRun
from mechdrift.verdict.limits import Limit, Rule
from mechdrift.verdict.profiles import load_profile

ROW = "truth.clean_gap"
# Its one row knows which post it is given: a rerun came out at .96, a copy at .99.
POST = "request.config.option.mechdrift_posts[0][1].rpartition(':')[2]"
MEASURED = suite_by_hand().replace("Normal(1.0,", f"Normal({{'base': 1.0, 'instruct': 0.96}}.get({POST}, 0.99),")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a suite of its own, where the command is typed."""
    (tmp_path / "test_own.py").write_text(MEASURED)
    (tmp_path / "pyproject.toml").write_text("# ours\n[project]\nname = 'x'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*more: str) -> int:
    series = ("--base", "organism:base", "--rerun", "organism:instruct", "--runs", "runs")
    return main(["calibrate", *series, *more, "--", "test_own.py"])


@pytest.mark.nightly
def test_a_series_gives_limits_and_goes_on_where_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("--write", "pyproject.toml:ours") == 0
    output = capsys.readouterr().out
    records = {path.stem: json.loads(path.read_text()) for path in Path("runs").glob("*.json")}
    assert len(records) == 3
    assert not any(record["settings"]["identity_shortcut"] for record in records.values())
    by_kind = {name.partition("-")[0]: record["rows"][0]["estimate"] for name, record in records.items()}
    assert by_kind == {"identity": 1.0, "jittered": 0.99, "rerun": 0.96}
    assert "run 1 of 3: identity-seed0\n" in output
    assert "run 3 of 3: rerun-" in output
    assert "min to go" in output
    assert "no reruns" not in output
    # The worst end is .04 + 1.645 x .01 = .05645 off, more than the floor supports; 1.25 times that is .0706, rounded up .071.
    made = load_profile("ours", folder)
    assert made.rule(ROW) == Rule("gate", Limit(0.929, None, "calibrated: 3 null runs of organism:base, margin 0.25"))
    assert Path("pyproject.toml").read_text().startswith("# ours\n[project]\nname = 'x'\n")
    assert "any gated row  0 of 3 [0.000, 0.632]" in output

    (folder / "runs" / "another.json").write_text(json.dumps(records[next(iter(records))]))
    assert typed("--write", "own.toml") == 0
    again = capsys.readouterr().out
    assert "run 1 of" not in again  # what is there is not measured again, and what was put there counts
    assert "4 null runs of 3 posts" in again
    assert load_profile("own.toml").rule(ROW).role == "gate"


def test_limits_of_copies_alone_are_said_to_be_for_copies_alone() -> None:
    assert not any(is_rerun(NullRun(name, "", {})) for name in ("identity-seed0", "jittered-seed12"))
    assert all(is_rerun(NullRun(name, "", {})) for name in ("rerun-0eeaa150422f-seed0", "benign-7"))


def test_what_cannot_be_is_one_line_before_anything_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / "stranger.json").write_text(
        '{"schema": "1.4", "rows": [], "inputs": {"base": {"digests": {"weights": "x"}}}}'
    )
    (folder / "own.toml").write_text('extends = "report"\n')
    for more, message in (
        ((), "stranger.json: Expected `str`"),
        (("--write", "own.toml"), "profile own.toml is there already"),
        (("--write", "x/own.toml"), "no such folder"),
        (("--write", "pyproject.toml"), "profiles have names"),
        (("--profile", "nightly"), "profile 'nightly': unknown"),
        (("--only", "truth.gap"), "--only truth.gap: not in profile base-to-post"),
        (("--rerun", "./nowhere"), "./nowhere"),
        (("--margin", "-1"), "expected a number, 0 or more"),
    ):
        assert typed(*more) == 4
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.count("\n") == 1
        assert not shown.out
    (folder / "runs" / "stranger.json").unlink()
    assert typed("--seeds", "0") == 4
    assert "no record, and none to measure" in capsys.readouterr().err
    of_another = recorded.record()
    for side in ("base", "post"):
        of_another["inputs"][side] = of_another["inputs"][side] | {"digests": {"weights": "f" * 64}}
    recorded.written(folder / "runs" / "stranger.json", of_another)
    assert typed() == 4
    assert "a record of another base, weights ffffffffffff; expected one of organism:base" in capsys.readouterr().err
