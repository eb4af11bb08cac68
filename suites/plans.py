"""What each family reads at most: the suites' own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is: every kind of statements, every place of a direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.engine.generate.arms import Arm, Generator
from mechdrift.engine.generate.scored import scored_replies
from mechdrift.engine.last_mlp import Ablation
from mechdrift.engine.stored_last_mlp import LastMLPReader, Neurons
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.fixtures import Pair
from mechdrift.hand_set import HandSet
from mechdrift.measures.entropy_neurons import CANDIDATES, COUNT
from mechdrift.measures.refusal import Which
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.pairs import FORMS
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.prompts.written_pairs import WrittenPair
from mechdrift.suites.confidence import prompts_of, tokens_of
from mechdrift.suites.context import read_late_losses, texts_of
from mechdrift.suites.knowledge import read_knowledge
from mechdrift.suites.refusal import REPLY_TOKENS, WHICH, fitted_both, odds_of, plain_odds, questions
from mechdrift.suites.refusal_direction import SIDES, Fitted, Site, arms_of, tried
from mechdrift.suites.structure import read_structure
from mechdrift.suites.truthfulness import JUDGED_SPLITS, judged_gaps, judged_questions
from mechdrift.suites.truthfulness_steering import answers_under, options_of, steered_prompts, steering_of
from mechdrift.tiers import REPLIES, Tier


@dataclass(frozen=True)
class PlanInputs:
    """What a run is given."""

    pair: Pair
    recordings: Recorder
    """Counts."""
    generator: Generator
    tier: Tier
    statements: Sequence[Statement]
    pairs: Sequence[WrittenPair]
    instructions: Instructions
    texts: Sequence[Text]
    hand_set: HandSet
    seed: int
    must_refuse: Which
    """Whose refusal direction is chosen."""
    shortcut: bool
    """Whether matrices that are equal are not decomposed."""

    @property
    def affirmed(self) -> list[Statement]:
        """The statements that are judged."""
        return [one for one in self.statements if not one.negated]


def truth(inputs: PlanInputs) -> None:
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
    chosen = [("choose", inputs.pair.base, 2 * len(options))] if len(options) > 1 else []
    for split, point, moves in [*chosen, *(("test", point, 3) for point in points)]:
        of_split = steered_prompts(recordings, point, affirmed, seed, split, inputs.hand_set)
        somewhere = {one.kind: np.ones(point.width) for one in affirmed}
        answers_under(recordings, point, of_split, affirmed, [steering_of(of_split, affirmed, somewhere, *options[0])] * moves)


def knowledge(inputs: PlanInputs) -> None:
    """The sweeps of both models in both forms: base that answers with zeros knows no kind, and then all are asked."""
    for form in FORMS:
        try:
            read_knowledge(inputs.pair, inputs.recordings, form, inputs.seed, inputs.tier, inputs.pairs, inputs.hand_set)
        except Unmeasurable:
            continue


def refusal(inputs: PlanInputs) -> None:
    """Directions of both models, all places of post's, and replies under every arm."""
    recordings, points = inputs.recordings, {"base": inputs.pair.base, "post": inputs.pair.post}
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


def confidence(inputs: PlanInputs) -> None:
    """The last MLP of both models, and the next token without its entropy neurons, their controls, and all of the former."""
    recordings, statements = inputs.recordings, inputs.affirmed
    points = (inputs.pair.base, inputs.pair.post)
    judged_gaps(recordings, inputs.pair.base, statements, inputs.seed, "choose")
    tokens = min(tokens_of(recordings, point) for point in points)
    some, near = tuple(range(COUNT)), tuple(range(COUNT * (1 + CANDIDATES)))
    every = Ablation(some, (0.0,) * COUNT)
    for point in points:
        prompts = prompts_of(recordings, point, inputs.texts)
        prompts = prompts.take([number for number, ids in enumerate(prompts.ids) if len(ids) > 1])
        reader = LastMLPReader(recordings, point, prompts, tokens)
        reader.table()
        reader.entropies(Neurons(prompts, near), [Ablation((0,), (0.0,))] * 2 * COUNT + [every])
        reader.activations(Neurons(prompts, near))
        judged_gaps(recordings, point, statements, inputs.seed, "test")
        judged = judged_questions(recordings, point, statements, inputs.seed, "test")[1]
        reader.answers(Neurons(judged, some), every)
        reader.activations(Neurons(judged, some))


def structure(inputs: PlanInputs) -> None:
    """The matrices of both models."""
    read_structure(inputs.pair, inputs.recordings, inputs.seed, inputs.tier, inputs.shortcut)


def context(inputs: PlanInputs) -> None:
    """Long documents, read by both models; settings cost nothing."""
    if inputs.tier.includes("context.late_loss"):
        texts = texts_of(inputs.texts, inputs.statements, inputs.instructions)
        read_late_losses(inputs.pair, inputs.recordings, texts, inputs.tier, inputs.seed)


PLANS: dict[str, Callable[[PlanInputs], None]] = {
    "truth": truth,
    "knowledge": knowledge,
    "refusal": refusal,
    "confidence": confidence,
    "structure": structure,
    "context": context,
}
"""By family. A finding of somebody's own has no plan."""
