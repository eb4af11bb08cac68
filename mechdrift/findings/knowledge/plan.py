"""What knowledge reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

from mechdrift.errors import Unmeasurable
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.knowledge.readings import read_knowledge
from mechdrift.prompts.pairs import FORMS


def plan(inputs: Inputs) -> None:
    """The sweeps of both models in both forms: base that answers with zeros knows no kind, and then all are asked."""
    for form in FORMS:
        try:
            read_knowledge(inputs.pair, inputs.recordings, form, inputs.seed, inputs.tier, inputs.pairs, inputs.hand_set)
        except Unmeasurable:
            continue
