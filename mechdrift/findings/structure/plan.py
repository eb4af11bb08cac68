"""What structure reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

from mechdrift.findings.inputs import Inputs
from mechdrift.findings.structure.readings import read_structure


def plan(inputs: Inputs) -> None:
    """The matrices of both models."""
    read_structure(inputs.pair, inputs.recordings, inputs.seed, inputs.tier, inputs.identity_shortcut)
