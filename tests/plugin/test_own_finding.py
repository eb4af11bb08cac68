"""The worked example of docs/your-own-finding.md, as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.findings import registry as findings

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-finding.md").read_text()
FILES = dict(re.findall(r"`(\w+\.py)`\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL))
ROW = "ours.length"


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files; what they register is forgotten after the test, and its modules are not those of the test before."""
    monkeypatch.setattr(findings, "_own", {})
    assert set(FILES) == {"conftest.py", "test_length.py"}
    for name, text in FILES.items():
        (pytester.path / name).write_text(text)


def test_it_is_a_row_like_any_other(compare: Callable[..., Any]) -> None:
    """From a worker; the next one without."""
    run = compare("organism:base", "organism:instruct", "test_length.py", "-n1")
    assert run.code == 0, run.out
    row = run.rows[ROW]
    assert (row["role"], row["verdict"]) == ("gate", "held")
    assert 0.5 < row["low"] < row["estimate"] < row["high"] < 2
    assert row["n"] > 60


def test_it_fails_like_any_other(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    changed = FILES["test_length.py"].replace("at_least=0.5, at_most=2.0", "at_least=5.0")
    (pytester.path / "test_length.py").write_text(changed)
    run = compare("organism:base", "organism:instruct", "test_length.py", "--mechdrift-only", "ours")
    assert run.code == 1
    assert "ours.length drifted: The residual stream at the period" in run.out


@pytest.mark.parametrize("name", ["length", "truth.clean_gap", "Ours.length"])
def test_a_name_that_cannot_be_stops_the_run(compare: Callable[..., Any], pytester: pytest.Pytester, name: str) -> None:
    (pytester.path / "conftest.py").write_text(FILES["conftest.py"].replace(ROW, name))
    run = compare("organism:base", "organism:instruct", "test_length.py")
    assert run.code == 4
    assert "is no name of a finding" in run.err or "two findings are named" in run.err
