"""What each family reads at most: the suites' own questions, asked of a recorder that counts and answers with zeros.

Where a result decides what is asked next, all that may be asked is: every kind of statements, every place of a direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.engine.generate.arms import Arm, Generator
from mechdrift.engine.generate.scored import scored_replies
from mechdrift.engine.last_mlp import Ablation
from mechdrift.engine.last_mlps import LastMLPReader, Neurons
from mechdrift.engine.recordings import Recorder
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
from mechdrift.suites.truthfulness_steering import asked_of, options_of, said_under, steering_of
from mechdrift.tiers import REPLIES, Tier


@dataclass(frozen=True)
class Asked:
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


def truth(asked: Asked) -> None:
    """Both models at the periods of all statements, judging them, and steered."""
    recordings, seed, affirmed, points = asked.recordings, asked.seed, asked.affirmed, (asked.pair.base, asked.pair.post)
    judged_gaps(recordings, asked.pair.base, affirmed, seed, "choose")
    for point in points:
        recordings.blocks(point, recordings.statement_prompts(point, [one.text for one in asked.statements], "period"))
        judged_gaps(recordings, point, affirmed, seed, "test")
        if asked.tier.asks("truth.judgement_direction"):
            for split in JUDGED_SPLITS:
                recordings.blocks(point, judged_questions(recordings, point, affirmed, seed, split)[1])
    if not asked.tier.asks("truth.steering_transfer") or asked.pair.base.layers < 2:
        return
    options = options_of(asked.pair.base.layers - 2, asked.hand_set)
    chosen = [("choose", asked.pair.base, 2 * len(options))] if len(options) > 1 else []
    for split, point, moves in [*chosen, *(("test", point, 3) for point in points)]:
        of_split = asked_of(recordings, point, affirmed, seed, split, asked.hand_set)
        somewhere = {one.kind: np.ones(point.width) for one in affirmed}
        said_under(recordings, point, of_split, affirmed, [steering_of(of_split, affirmed, somewhere, *options[0])] * moves)


def knowledge(asked: Asked) -> None:
    """The sweeps of both models in both forms: base that answers with zeros knows no kind, and then all are asked."""
    for form in FORMS:
        try:
            read_knowledge(asked.pair, asked.recordings, form, asked.seed, asked.tier, asked.pairs, asked.hand_set)
        except Unmeasurable:
            continue


def refusal(asked: Asked) -> None:
    """Directions of both models, all places of post's, and replies under every arm."""
    recordings, points = asked.recordings, {"base": asked.pair.base, "post": asked.pair.post}
    _, texts, prompts = questions(points, recordings, asked.instructions, asked.tier)
    native, _ = fitted_both(recordings, points, prompts, texts)
    for which in WHICH:
        shape = 1, points[which].layers, native[which].places, points[which].width
        one = np.ones(1, dtype=bool)
        apart = Fitted({"harmful": np.ones(shape), "harmless": np.zeros(shape)}, dict.fromkeys(SIDES, one), "native", "")
        if which == asked.must_refuse:
            tried(recordings, points[which], apart, {on: prompts[which][on, "choose"] for on in SIDES})
        tests = {on: prompts[which][on, "test"] for on in SIDES}
        arms: list[Arm] = arms_of(apart, apart, Site(0, 0), *(len(tests[on].ids) for on in SIDES))
        if any(map(asked.tier.asks, REPLIES)):
            both = [*tests["harmful"].ids, *tests["harmless"].ids]
            scored_replies(recordings, asked.generator, points[which], both, tests["harmful"].thinking, arms, REPLY_TOKENS)
        if which == "post":
            odds_of(recordings, points[which], tests, arms)
        elif asked.must_refuse == "base" and not any(map(asked.tier.asks, REPLIES)):
            plain_odds(recordings, points[which], tests["harmful"])


def confidence(asked: Asked) -> None:
    """The last MLP of both models, and the next token without its entropy neurons, their controls, and all of the former."""
    recordings, statements = asked.recordings, asked.affirmed
    points = (asked.pair.base, asked.pair.post)
    judged_gaps(recordings, asked.pair.base, statements, asked.seed, "choose")
    tokens = min(tokens_of(recordings, point) for point in points)
    some, near = tuple(range(COUNT)), tuple(range(COUNT * (1 + CANDIDATES)))
    every = Ablation(some, (0.0,) * COUNT)
    for point in points:
        prompts = prompts_of(recordings, point, asked.texts)
        prompts = prompts.take([number for number, ids in enumerate(prompts.ids) if len(ids) > 1])
        reader = LastMLPReader(recordings, point, prompts, tokens)
        reader.table()
        reader.entropies(Neurons(prompts, near), [Ablation((0,), (0.0,))] * 2 * COUNT + [every])
        reader.activations(Neurons(prompts, near))
        judged_gaps(recordings, point, statements, asked.seed, "test")
        judged = judged_questions(recordings, point, statements, asked.seed, "test")[1]
        reader.answers(Neurons(judged, some), every)
        reader.activations(Neurons(judged, some))


def structure(asked: Asked) -> None:
    """The matrices of both models."""
    read_structure(asked.pair, asked.recordings, asked.seed, asked.tier, asked.shortcut)


def context(asked: Asked) -> None:
    """Long documents, read by both models; settings cost nothing."""
    if asked.tier.asks("context.late_loss"):
        texts = texts_of(asked.texts, asked.statements, asked.instructions)
        read_late_losses(asked.pair, asked.recordings, texts, asked.tier, asked.seed)


PLANS: dict[str, Callable[[Asked], None]] = {
    "truth": truth,
    "knowledge": knowledge,
    "refusal": refusal,
    "confidence": confidence,
    "structure": structure,
    "context": context,
}
"""By family. A finding of somebody's own has no plan."""
