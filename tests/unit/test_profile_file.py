"""Limits written into a profile: what is there stays, what is written is what the profile then says."""

from pathlib import Path

import pytest

from mechdrift.commands.profile_file import Target, check_free, parse_target, write_limits
from mechdrift.errors import InputError
from mechdrift.verdict.calibrated import Calibrated
from mechdrift.verdict.limits import NO_RULE, Limit, Rule
from mechdrift.verdict.profiles import load_profile

GAP, WHERE = "truth.clean_gap", "knowledge.location[form=cloze]"
OWN = """# ours
[project]
name = "x"  # a name

[tool.mechdrift.profiles.ours]
extends = "base-to-post"

# why this one
[tool.mechdrift.profiles.ours.rows."truth.clean_gap"]
role = "report"  # for now
at_most = 3.0

[tool.ruff]
line-length = 99
"""


def new(label: str, low: float | None, high: float | None = None, why: str = "calibrated: 3 null runs") -> Calibrated:
    limit = None if low is None and high is None else Limit(low, high, why)
    return Calibrated(label, NO_RULE, 1.0, 1.0, 1.0, 9, 0, 0.1, 0.1, limit)


def test_a_new_file_extends_the_profile_that_was_calibrated(tmp_path: Path) -> None:
    target = parse_target(str(tmp_path / "own.toml"))
    check_free(target, force=False)
    write_limits(target, "base-to-post", [new(GAP, 0.91), new(WHERE, -0.1, 0.1), new("truth.judgement_accuracy", None)])
    made, shipped = load_profile(str(target)), load_profile("base-to-post")
    assert made.rule(GAP) == Rule("gate", Limit(0.91, None, "calibrated: 3 null runs"))
    assert made.rule(WHERE) == Rule("gate", Limit(-0.1, 0.1, "calibrated: 3 null runs"))
    assert made.rule("truth.judgement_accuracy") == shipped.rule("truth.judgement_accuracy")
    assert made.gated_as_shipped == shipped.gated_as_shipped


def test_a_project_gets_a_profile_and_keeps_all_it_had(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(OWN)
    target = parse_target(f"{path}:tight")
    check_free(target, force=False)
    write_limits(target, "ours", [new(GAP, 0.8)])
    there = iter(path.read_text().splitlines())
    assert all(line in there for line in OWN.splitlines())  # in their order
    assert load_profile("tight", tmp_path).rule(GAP) == Rule("report", Limit(0.8, None, "calibrated: 3 null runs"))
    assert load_profile("ours", tmp_path).rule(GAP) == Rule("report", Limit(None, 3.0, "user"))


def test_by_force_limits_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(OWN)
    target = parse_target(f"{path}:ours")
    with pytest.raises(InputError, match="profile ours is there already"):
        check_free(target, force=False)
    check_free(target, force=True)
    write_limits(target, "report", [new(GAP, 0.8), new(WHERE, 0.7)])
    ours = load_profile("ours", tmp_path)
    assert ours.rule(GAP) == Rule("report", Limit(0.8, None, "calibrated: 3 null runs"))
    assert ours.rule(WHERE) == Rule("gate", Limit(0.7, None, "calibrated: 3 null runs"))  # it still extends base-to-post
    text = path.read_text()
    assert all(line in text for line in OWN.splitlines() if line != "at_most = 3.0")
    assert "at_most" not in text


def test_a_file_without_rows_and_a_project_without_profiles_get_them(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('extends = "report"  # quiet\n')
    write_limits(Target(tmp_path / "own.toml", None), "base-to-post", [new(GAP, 0.8)])
    assert load_profile(str(tmp_path / "own.toml")).rule(GAP).role == "report"
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    write_limits(Target(tmp_path / "pyproject.toml", "ours"), "base-to-post", [new(GAP, 0.8)])
    assert load_profile("ours", tmp_path).rule(GAP).role == "gate"
    assert "[tool.other]\nx = 1\n" in (tmp_path / "pyproject.toml").read_text()


@pytest.mark.parametrize("text", ["own.json", "pyproject.toml", "own.toml:ours", "", ":", "pyproject.toml:report"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--write .*expected"):
        parse_target(text)


def test_what_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[rows\n")
    (tmp_path / "odd.toml").write_text("rows = 3\n")
    for path, message in (
        ("none/own.toml", "make the folder"),
        ("own.toml", "expected TOML"),
        ("odd.toml", "expected a table"),
    ):
        with pytest.raises(InputError, match=message):
            check_free(parse_target(str(tmp_path / path)), force=True)
