"""Knowledge: where it lies in both models, and whether one model's representations work in the other (Du et al. 2025)."""

import pytest

from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.knowledge.claims import KNOWLEDGE
from mechdrift.findings.knowledge.readings import ByForm
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs) -> ByForm:
    """What was read, by prompt form."""
    return ByForm(mechdrift_inputs)


@claimed(KNOWLEDGE)
def test_knowledge_stays_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about knowledge, in each form."""
    drift.judge(measured)
