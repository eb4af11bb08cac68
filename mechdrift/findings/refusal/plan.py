"""What refusal reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

import numpy as np

from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.scored import scored_replies
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.refusal.direction import SIDES, Fitted, Site, arms_of, tried
from mechdrift.findings.refusal.readings import WHICH, fitted_both, odds_of, plain_odds, points_of, questions, to_be_replied
from mechdrift.findings.tiers import REPLIES


def plan(inputs: Inputs) -> None:
    """Directions of both models, all places of post's, and replies under every arm."""
    recordings, points = inputs.recordings, points_of(inputs.pair)
    _, texts, prompts = questions(points, recordings, inputs.instructions, inputs.tier, inputs.budget)
    native, _ = fitted_both(recordings, points, prompts, texts)
    for which in WHICH:
        shape = 1, points[which].layers, native[which].places, points[which].width
        one = np.ones(1, dtype=bool)
        apart = Fitted({"harmful": np.ones(shape), "harmless": np.zeros(shape)}, dict.fromkeys(SIDES, one), "native", "")
        if which == inputs.must_refuse:
            tried(recordings, points[which], apart, {on: prompts[which].answering[on, "choose"] for on in SIDES})
        tests = {on: prompts[which].answering[on, "test"] for on in SIDES}
        arms: list[Arm] = arms_of(apart, apart, Site(0, 0), *(len(tests[on].ids) for on in SIDES))
        if any(map(inputs.tier.includes, REPLIES)):
            asked = to_be_replied(prompts[which], texts, arms, inputs.tier, inputs.budget)
            scored_replies(recordings, inputs.generator, points[which], asked.prompts, asked.inside, asked.arms, inputs.budget)
        if which == "post":
            odds_of(recordings, points[which], tests, arms)
        elif inputs.must_refuse == "base" and not any(map(inputs.tier.includes, REPLIES)):
            plain_odds(recordings, points[which], tests["harmful"])
