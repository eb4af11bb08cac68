"""What truth reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.judged_prompts import JUDGED_SPLITS, judged_gaps, judged_questions
from mechdrift.findings.truth.steered import answers_under, options_of, steered_prompts, steering_of
from mechdrift.prompts.statements import Split


def plan(inputs: Inputs) -> None:
    """Both models at the periods of all statements, judging them, and steered."""
    recordings, seed, affirmed, points = inputs.recordings, inputs.seed, inputs.affirmed, (inputs.pair.base, inputs.pair.post)
    judged_gaps(recordings, inputs.pair.base, affirmed, seed, "choose")
    for point in points:
        recordings.blocks(point, recordings.statement_prompts(point, [one.text for one in inputs.statements], "period"))
        judged_gaps(recordings, point, affirmed, seed, "test")
        if inputs.tier.includes("truth.judgement_direction"):
            for split in JUDGED_SPLITS:
                recordings.blocks(point, judged_questions(recordings, point, affirmed, seed, split)[1])
    if not inputs.tier.includes("truth.steering_transfer") or inputs.pair.base.layers < 2:
        return
    options = options_of(inputs.pair.base.layers - 2, inputs.hand_set)
    chosen: list[tuple[Split, Checkpoint, int]] = [("choose", inputs.pair.base, 2 * len(options))] if len(options) > 1 else []
    for split, point, moves in [*chosen, *(("test", point, 3) for point in points)]:
        of_split = steered_prompts(recordings, point, affirmed, seed, split, inputs.hand_set)
        somewhere = {one.kind: np.ones(point.width) for one in affirmed}
        answers_under(recordings, point, of_split, affirmed, [steering_of(of_split, affirmed, somewhere, *options[0])] * moves)
