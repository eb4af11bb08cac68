"""Profiles: shipped ones, the user's, what extends what, and what is wrong with one."""

import re
from datetime import date
from pathlib import Path

import pytest

from mechdrift.errors import InputError
from mechdrift.findings.registry import registered
from mechdrift.verdict.limits import UNCALIBRATED, Limit, Rule, parse_rule
from mechdrift.verdict.profiles import load_profile, profile_names

OWN = """
[tool.mechdrift.profiles.ours]
extends = "base-to-post"
[tool.mechdrift.profiles.ours.rows."truth.clean_gap"]
at_least = 0.7
[tool.mechdrift.profiles.ours.rows."knowledge.location[form=cloze]"]
role = "report"
[tool.mechdrift.profiles.ours.rows."truth.probe_transfer_backward"]
role = "gate"
[tool.mechdrift.profiles.ours.waivers."refusal.harmless"]
owner = "release team"
reason = "known since the last release"
expires = 2027-01-31

[tool.mechdrift.profiles.strict]
extends = "ours"
[tool.mechdrift.profiles.strict.rows."knowledge.location"]
at_least = 0.95
"""


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_name_registered_findings_with_provenance(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.rules) <= set(registered())
    gated = sum(registered()[name].rows for name, rule in profile.rules.items() if rule.role == "gate")
    assert profile.gated_as_shipped == gated
    assert (gated > 0) == (name != "report")
    assert all(rule.limit.provenance != "user" for rule in profile.rules.values() if rule.limit)
    assert not profile.waivers


@pytest.mark.parametrize("name", ["release", "stage"])
def test_limits_between_releases_are_calibrated_and_allow_no_change(name: str) -> None:
    profile = load_profile(name)
    limits = {label: rule.limit for label, rule in profile.rules.items() if rule.limit}
    for limit in limits.values():
        assert re.fullmatch(
            r"calibrated: \d+ null runs of organism:instruct, margin [\d.]+|exact: no setting differs", limit.provenance
        )
    assert {label for label, rule in profile.rules.items() if rule.limit and "exact" in rule.limit.provenance} == {
        "context.settings"
    }
    for label in ("truth.steering_transfer", "truth.steering_backward", "truth.steering_effect", "knowledge.location"):
        assert profile.rule(label).role == "gate", label
    # What base-to-post judges of one model alone has no "no change" between releases.
    assert {profile.rule(f"refusal.{row}").role for row in ("harmful", "harmless", "ablation")} == {"report"}


def test_stage_is_looser_than_release_wherever_it_gates() -> None:
    release, stage = load_profile("release"), load_profile("stage")
    for label, rule in stage.rules.items():
        if rule.role == "gate":
            tight = release.rule(label).limit
            assert rule.limit
            assert tight
            assert (rule.limit.at_least is None) == (tight.at_least is None)
            assert (rule.limit.at_most is None) == (tight.at_most is None)
            if rule.limit.at_least is not None and tight.at_least is not None:
                assert rule.limit.at_least <= tight.at_least
            if rule.limit.at_most is not None and tight.at_most is not None:
                assert rule.limit.at_most >= tight.at_most


def test_the_page_of_profiles_has_every_limit_that_ships() -> None:
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    profiles = [load_profile(name) for name in ("base-to-post", "release", "stage")]
    lines = []
    for finding in sorted(registered()):
        rules = [profile.rule(finding) for profile in profiles]
        cells = [f"{rule.role} {rule.limit}" if rule.limit else rule.role for rule in rules]
        marks = [" (uncalibrated)" if rule.limit and rule.limit.provenance == UNCALIBRATED else "" for rule in rules]
        lines.append(" | ".join(["", f"`{finding}`", *(map("".join, zip(cells, marks, strict=True))), ""]).strip())
    table = "\n".join(lines)
    assert table in page, f"its table should be:\n{table}"
    for profile in profiles[1:]:
        result = sorted({rule.limit.provenance for rule in profile.rules.values() if rule.limit})
        assert f"`{profile.name}`: `{'`, `'.join(result)}`" in page
    assert not any(":" in label or "[" in label for profile in profiles for label in profile.rules)  # no row of its own to list


def test_both_models_of_a_profile_may_be_post_trained(tmp_path: Path) -> None:
    """Then the earlier one must refuse; what extends such a profile is one, unless it says otherwise."""
    (tmp_path / "ours.toml").write_text('extends = "stage"\n')
    (tmp_path / "other.toml").write_text('extends = "stage"\nboth_post_trained = false\n')
    (tmp_path / "wrong.toml").write_text('both_post_trained = "yes"\n')
    shipped = {name: load_profile(name).both_post_trained for name in profile_names()}
    assert shipped == {"base-to-post": False, "report": False, "release": True, "stage": True}
    assert load_profile(str(tmp_path / "ours.toml")).both_post_trained
    assert not load_profile(str(tmp_path / "other.toml")).both_post_trained
    with pytest.raises(InputError, match="both_post_trained 'yes'; expected true or false"):
        load_profile(str(tmp_path / "wrong.toml"))


def test_report_has_the_limits_of_base_to_post_and_gates_nothing() -> None:
    shown, gating = load_profile("report").rules, load_profile("base-to-post").rules
    assert {name: rule.limit for name, rule in shown.items()} == {name: rule.limit for name, rule in gating.items()}
    assert {rule.role for rule in shown.values()} == {"report"}


def test_a_finding_that_the_profile_does_not_name_is_reported() -> None:
    assert load_profile("base-to-post").rule("somebody.else").role == "report"


def test_a_profile_of_ones_own_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(OWN)
    shipped, ours, strict = (load_profile(name, tmp_path) for name in ("base-to-post", "ours", "strict"))
    assert ours.rule("truth.clean_gap") == Rule("gate", Limit(0.7, None, "user"))
    assert ours.rule("truth.judgement_accuracy") == shipped.rule("truth.judgement_accuracy")
    assert ours.rule("truth.probe_transfer_backward") == Rule("gate", shipped.rule("truth.probe_transfer_backward").limit)
    # One row of two is no longer a gate, and one finding of one row is a new one.
    assert registered()["knowledge.location"].rows == 2
    assert ours.rule("knowledge.location[form=cloze]").role == "report"
    assert ours.rule("knowledge.location[form=judged]") == shipped.rule("knowledge.location")
    assert ours.gated_as_shipped == shipped.gated_as_shipped - 1 + registered()["truth.probe_transfer_backward"].rows
    # What is said of a row goes before what is said of its finding, also where that is said later.
    assert strict.rule("knowledge.location[form=cloze]").role == "report"
    assert strict.rule("knowledge.location[form=judged]").limit == Limit(0.95, None, "user")
    waiver = strict.waiver("refusal.harmless")
    assert waiver is not None
    assert (waiver.owner, waiver.expires) == ("release team", date(2027, 1, 31))
    assert not waiver.expired(date(2027, 1, 31))
    assert waiver.expired(date(2027, 2, 1))
    assert strict.waiver("refusal.harmful") is None


def test_a_bound_replaces_the_whole_limit() -> None:
    usual = Rule("gate", Limit(-0.05, 0.05, "calibrated"))
    assert parse_rule("x", {"at_most": 0.1}, usual) == Rule("gate", Limit(None, 0.1, "user"))
    assert parse_rule("x", {"role": "report"}, usual) == Rule("report", usual.limit)
    borne = parse_rule("x", {"tolerance": 0.02}, usual)
    assert borne == Rule("gate", usual.limit, 0.02)
    assert parse_rule("x", {"at_most": 0.1}, borne) == Rule("gate", Limit(None, 0.1, "user"), 0.02)
    assert parse_rule("x", {}, usual) == usual


def test_files_extend_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text('extends = "base-to-post"\nrole = "report"\n')
    Path("again.toml").write_text('extends = "own.toml"\n[rows."truth.clean_gap"]\nrole = "gate"\n')
    assert load_profile("again.toml").gated_as_shipped == registered()["truth.clean_gap"].rows


WAIVED = "[waivers.'truth.clean_gap']\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = 3", "a table"),
        ("[rows.'truth.clean_gap']\nrole = 'gat'\n", "role 'gat'; expected gate or report"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\n", "a gate without a limit"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = nan\n", "bound nan; expected a finite number"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = inf\n", "bound inf"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = '1'\n", "bound '1'"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = true\n", "bound True"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = 2\nat_most = 1\n", "at_least 2 over at_most 1"),
        ("[rows.'truth.clean_gap']\nrole = 'gate'\nat_leats = 2\n", "key 'at_leats'"),
        ("[rows.'truth.clean_gap']\ntolerance = -0.1\n", "tolerance -0.1; expected 0 or more"),
        ("[rows.'truth.clean_gap']\ntolerance = inf\n", "bound inf"),
        (
            f"[rows.'truth.clean_gap']\nrole = 'gate'\nat_least = 2\nprovenance = '{UNCALIBRATED}'\n",
            "a gate at >= 2, uncalibrated",
        ),
        ("[rows.'truth.clean_gap']\nprovenance = 'published'\n", "a provenance without a limit"),
        ("[rows]\n'truth.clean_gap' = 3\n", "expected a table of"),
        ("[rows.'truth.clean_gapp']\nrole = 'report'\n", "'truth.clean_gapp': no such finding"),
        ("[waivers.'no.such']\nowner = 'a'\nreason = 'b'\nexpires = 2027-01-01\n", "'no.such': no such finding"),
        (WAIVED + "owner = 'a'\nreason = 'b'\n", "expected owner, reason, expires, and nothing else"),
        (WAIVED + "owner = ' '\nreason = 'b'\nexpires = 2027-01-01\n", "owner ' '"),
        (WAIVED + "owner = 'a'\nreason = 'b'\nexpires = '2027-01-01'\n", "a day without quotes"),
        (WAIVED + "owner = 'a'\nreason = 'b'\nexpires = 2027-01-01T00:00:00\n", "a day without quotes"),
        ("waivers = 3", "a table"),
        ("[waivers]\n'truth.clean_gap' = 3", "waivers.'truth.clean_gap': 3"),
        ("extends = 'nightly'", "profile 'nightly': unknown"),
        ("limits = 3", "key 'limits'"),
        ("role = 'gate'\n[rows.'truth.clean_gap']\n", "a gate without a limit"),
        ("[rows", "expected TOML"),
    ],
)
def test_bad_profiles_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_profile(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.mechdrift]\nprofiles = 3\n", "a table a profile"),
        ("[tool.mechdrift.profiles]\nours = 3\n", "expected a table"),
        ("[tool.mechdrift.profiles.report]\n", "a shipped profile has that name"),
        ("[tool.mechdrift.profiles.ours]\nextends = 'ours'\n", "extends itself"),
        ("[tool.mechdrift.profiles.ours]\nextends = 'b'\n[tool.mechdrift.profiles.b]\nextends = 'ours'\n", "ours -> b -> ours"),
        ("[tool", "expected TOML"),
    ],
)
def test_bad_projects_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile("ours", tmp_path)


def test_unknown_profiles_are_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(OWN)
    with pytest.raises(InputError, match=r"one of base-to-post.* ours, strict, or FILE\.toml"):
        load_profile("nightly", tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_profile(str(tmp_path / "none.toml"))
