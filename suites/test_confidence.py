"""Confidence: whether entropy neurons are the same, whether they do anything, and what of a change in confidence is theirs."""

import pytest

from mechdrift.findings.confidence.claims import CONFIDENCE
from mechdrift.findings.confidence.readings import Confidence, read
from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs) -> Confidence:
    """Entropy neurons of both models, and what both are sure of with and without them."""
    return read(mechdrift_inputs)


@claimed(CONFIDENCE)
def test_confidence_is_what_it_was_and_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about confidence."""
    drift.judge(measured)
