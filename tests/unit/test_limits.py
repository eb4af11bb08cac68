"""Profiles: shipped ones, the user's, and what is wrong with one."""

from pathlib import Path

import pytest

from mechdrift.errors import InputError
from mechdrift.findings import registered
from mechdrift.verdict.limits import load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_name_registered_findings_with_provenance(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.rules) <= set(registered())
    assert (
        profile.gated_as_shipped
        == sum(registered()[name].rows for name, rule in profile.rules.items() if rule.role == "gate")
        > 0
    )
    assert all(
        rule.limit.provenance in {"provisional", "uncalibrated", "calibrated", "published"}
        for rule in profile.rules.values()
        if rule.limit
    )


def test_a_finding_that_the_profile_does_not_name_is_reported() -> None:
    assert load_profile("base-to-post").rule("somebody.else").role == "report"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = 3", "a table"),
        ("[rows.x]\nrole = 'gat'\n", "role 'gat'; expected gate or report"),
        ("[rows.x]\nrole = 'gate'\n", "a gate without a limit"),
        ("[rows.x]\nrole = 'gate'\nat_least = nan\n", "bound nan; expected a finite number"),
        ("[rows.x]\nrole = 'gate'\nat_least = inf\n", "bound inf"),
        ("[rows.x]\nrole = 'gate'\nat_least = '1'\n", "bound '1'"),
        ("[rows.x]\nrole = 'gate'\nat_least = true\n", "bound True"),
        ("[rows.x]\nrole = 'gate'\nat_least = 2\nat_most = 1\n", "at_least 2 over at_most 1"),
        ("[rows.x]\nrole = 'gate'\nat_leats = 2\n", "key 'at_leats'"),
        ("[rows", "expected a table"),
    ],
)
def test_bad_profiles_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile(str(path))


def test_unknown_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of base-to-post"):
        load_profile("nightly")
    with pytest.raises(InputError, match="no such file"):
        load_profile(str(tmp_path / "none.toml"))
