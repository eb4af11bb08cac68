"""What refusal reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

import numpy as np

from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.scored import scored_replies
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.refusal.direction import SIDES, Fitted, Site, arms_of, tried
from mechdrift.findings.refusal.readings import REPLY_TOKENS, WHICH, fitted_both, odds_of, plain_odds, points_of, questions
from mechdrift.findings.tiers import REPLIES


def plan(inputs: Inputs) -> None:
    """Directions of both models, all places of post's, and replies under every arm."""
    recordings, points = inputs.recordings, points_of(inputs.pair)
    _, texts, prompts = questions(points, recordings, inputs.instructions, inputs.tier)
    native, _ = fitted_both(recordings, points, prompts, texts)
    for which in WHICH:
        shape = 1, points[which].layers, native[which].places, points[which].width
        one = np.ones(1, dtype=bool)
        apart = Fitted({"harmful": np.ones(shape), "harmless": np.zeros(shape)}, dict.fromkeys(SIDES, one), "native", "")
        if which == inputs.must_refuse:
            tried(recordings, points[which], apart, {on: prompts[which][on, "choose"] for on in SIDES})
        tests = {on: prompts[which][on, "test"] for on in SIDES}
        arms: list[Arm] = arms_of(apart, apart, Site(0, 0), *(len(tests[on].ids) for on in SIDES))
        if any(map(inputs.tier.includes, REPLIES)):
            both = [*tests["harmful"].ids, *tests["harmless"].ids]
            scored_replies(recordings, inputs.generator, points[which], both, tests["harmful"].thinking, arms, REPLY_TOKENS)
        if which == "post":
            odds_of(recordings, points[which], tests, arms)
        elif inputs.must_refuse == "base" and not any(map(inputs.tier.includes, REPLIES)):
            plain_odds(recordings, points[which], tests["harmful"])
