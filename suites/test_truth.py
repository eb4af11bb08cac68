"""Does the truth direction hold? Du et al. 2025, arXiv 2504.02904, claim 2."""

import pytest

from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.truth.claims import TRUTH
from mechdrift.findings.truth.readings import Truth
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs) -> Truth:
    """What both models do with statements; each part is read when a row asks for it."""
    return Truth(mechdrift_inputs)


@claimed(TRUTH)
def test_truth_is_told_as_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about truth."""
    drift.judge(measured)
