"""What is said of a row."""

from pathlib import Path

import pytest

from mechdrift.commands.cli import main
from mechdrift.commands.explain import explained
from mechdrift.errors import InputError
from mechdrift.findings.registry import registered


@pytest.mark.parametrize("name", registered())
def test_every_finding_says_how_it_is_measured(name: str, tmp_path: Path) -> None:
    """Its measure is there, and its text gives more than a title: a range, a unit or a source."""
    finding, output = registered()[name], explained(name, tmp_path)
    assert finding.claim in output
    assert finding.source in output
    measured = output[output.index(finding.measure) + len(finding.measure) : output.index("  judged by")].split()
    assert len(measured) > 12, measured
    assert "base-to-post: " in output


def test_a_row_is_judged_by_its_own_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.mechdrift.profiles.ours]\nextends = "base-to-post"\n'
        '[tool.mechdrift.profiles.ours.rows."knowledge.location[form=cloze]"]\nat_least = 0.99\n'
    )
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "knowledge.location[form=cloze]"]) == 0
    output = capsys.readouterr().out
    assert "ours: gate, >= 0.99 (user)" in output
    assert "base-to-post: gate, >= 0.9 (provisional)" in output
    assert "report: report, >= 0.9 (provisional)" in output


def test_a_finding_that_is_not_there_is_one_line_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"truth\.clean_gapp: no such finding; expected for example truth\.clean_gap"):
        explained("truth.clean_gapp", Path("/"))
    assert main(["explain", "nothing"]) == 4
    assert "see pytest --mechdrift-list" in capsys.readouterr().err
