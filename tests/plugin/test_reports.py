"""Reports of a real run agree with what its tests did, whichever way the run was made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import suite_by_hand
from junitparser import Error, Failure, JUnitXml, Skipped

from mechdrift.commands.cli import main

ENDS: dict[str, tuple[dict[str, Any], list[type]]] = {
    "truth.clean_gap": ({"estimate": 1.0}, []),
    "truth.judgement_accuracy": ({"estimate": 0.2}, [Failure]),
    "truth.direction_similarity": ({"estimate": 0.5}, [Failure]),
    "truth.steering_transfer": ({"raises": "Unmeasurable('none')"}, [Error]),
    "truth.probe_transfer_forward": ({"raises": "RuntimeError('a bug')"}, [Error]),
    "truth.probe_accuracy": ({"raises": "Unmeasurable('none')", "role": "report"}, [Skipped]),
}
"""Held, drifted, undecided, unmeasurable, error, and a reported row without a number."""


@pytest.mark.parametrize("mode", [("-n0",), pytest.param(("-n1",), marks=pytest.mark.nightly)], ids=["-n0", "-n1"])
def test_junit_says_what_each_test_did(compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    suites = {}
    for finding, (parts, _) in ENDS.items():
        marks = f"@pytest.mark.limit(at_least=0.5, role={parts.get('role', 'gate')!r})"
        suites[f"test_{finding.partition('.')[2]}"] = suite_by_hand(finding=finding, marks=marks, **parts)
    pytester.makepyfile(**suites)
    run = compare("organism:base", "organism:instruct", *(f"{name}.py" for name in suites), *mode)
    assert run.code == 1, run.out
    folder = Path(pytester.path)
    out = [f"--{form}={folder / form}" for form in ("html", "markdown", "junit", "model-card")]
    assert main(["report", str(folder / "record.json"), *out]) == 1  # as the run
    (suite,) = JUnitXml.fromstring((folder / "junit").read_bytes())
    assert {case.name: [type(result) for result in case.result] for case in suite} == {
        name: kinds for name, (_, kinds) in ENDS.items()
    }
    assert "1 held, 1 drifted" in (folder / "html").read_text()
    assert (folder / "model-card").read_text().count("type: truth.") == 1
