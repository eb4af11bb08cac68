"""Context: how far the model sees, by its settings and by what it predicts."""

import pytest

from mechdrift.findings.context.claims import CONTEXT
from mechdrift.findings.context.readings import Context
from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs) -> Context:
    """Settings of both models, and their losses on long documents."""
    return Context(mechdrift_inputs)


@claimed(CONTEXT)
def test_context_reaches_as_far_as_it_did(measured: Drift, drift: Judge) -> None:
    """Each claim about the context."""
    drift.judge(measured)
