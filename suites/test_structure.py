"""Structure: what the change of every matrix is made of, from the weights alone (He & Cao 2025)."""

import pytest

from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.structure.changes import StructureReadings
from mechdrift.findings.structure.claims import STRUCTURE
from mechdrift.findings.structure.readings import matrices_file, read
from mechdrift.session.fixtures import Beside
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs, mechdrift_beside: Beside | None) -> StructureReadings:
    """Every matrix's numbers; they lie beside the record, block by block."""
    found = read(mechdrift_inputs)
    if mechdrift_beside:
        mechdrift_beside(".structure.safetensors", matrices_file(found))
    return found


@claimed(STRUCTURE)
def test_weights_change_as_published(measured: Drift, drift: Judge) -> None:
    """Each claim about the change of the weights."""
    drift.judge(measured)
