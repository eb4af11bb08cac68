"""The names that `import mechdrift` promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import mechdrift
from mechdrift.errors import InputError

PAIR = ("organism:base", "organism:instruct")


def test_promised_names_are_there_and_cost_nothing_before_they_are_used() -> None:
    for name in mechdrift.__all__:
        assert getattr(mechdrift, name).__name__ == name
    assert set(mechdrift.__all__) <= set(dir(mechdrift))
    with pytest.raises(AttributeError, match="no attribute 'compar'"):
        mechdrift.compar  # noqa: B018
    code = "import sys, mechdrift; sys.exit('numpy' in sys.modules or 'msgspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_comparison_from_a_notebook_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = mechdrift.compare(*PAIR, tmp_path / "r.json", only=["structure.change"], tier="smoke", seed=3)
    assert {row.finding for row in record.rows} == {"structure.change"}
    assert all(row.estimate is not None and row.estimate > 0 for row in record.rows)
    assert record.settings.seed == 3
    assert record.settings.options == {"tier": "smoke", "seed": 3}
    assert mechdrift.load_record(tmp_path / "r.json") == record


def test_what_a_comparison_cannot_be_given_is_named_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"option 'sed'; expected one of .*seed.*; see pytest --help"):
        mechdrift.compare(*PAIR, sed=3)
    with pytest.raises(InputError, match="nowhere"):
        mechdrift.compare("organism:base", "nowhere", tmp_path / "r.json")
    with pytest.raises(InputError, match="no such file"):
        mechdrift.load_record(tmp_path / "r.json")
