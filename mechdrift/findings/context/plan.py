"""What context reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

from mechdrift.findings.context.readings import read_late_losses, texts_of
from mechdrift.findings.inputs import Inputs


def plan(inputs: Inputs) -> None:
    """Long documents, read by both models; settings cost nothing."""
    if inputs.tier.includes("context.late_loss"):
        texts = texts_of(inputs.texts, inputs.statements, inputs.instructions)
        read_late_losses(inputs.pair, inputs.recordings, texts, inputs.tier, inputs.seed)
