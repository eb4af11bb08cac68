"""What the truthfulness suite claims, and how its readings are taken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Prompts, Recorder, require_same_tokens
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.hand_set import HAND_SET, HandSet
from mechdrift.measures.drift import Drift
from mechdrift.measures.truthfulness import Place, chosen_place, judged_kinds
from mechdrift.prompts.judgement import ANSWERS, judgement_prompts
from mechdrift.prompts.statements import Split, Statement

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, truthfulness"
MEASURES = "mechdrift.measures.truthfulness"
DIRECTIONS = "mechdrift.measures.truth_directions"
STEERING = "mechdrift.measures.steering"
JUDGED_SPLITS: tuple[Split, ...] = ("choose", "test")

FINDINGS = (
    Finding(
        "truth.direction_similarity",
        "The direction that tells true statements from false is nearly the same before and after post-training.",
        DU,
        f"{DIRECTIONS}:direction_similarity",
        needs="base",
        version=2,  # where post has too little left, its own probe decides
    ),
    Finding(
        "truth.probe_transfer_forward",
        "A truth probe fitted on the base model reads the post model as well as the post model's own probe.",
        DU,
        f"{MEASURES}:probe_transfer",
        needs="base",
        version=2,  # where post has too little left, its own probe decides
    ),
    Finding(
        "truth.probe_transfer_backward",
        "A truth probe fitted on the post model reads the base model as well as the base model's own probe.",
        DU,
        f"{MEASURES}:probe_transfer",
        needs="base",
    ),
    Finding(
        "truth.probe_accuracy",
        "Truth is as readable from the post model, by its own probe, as it was from the base model.",
        DU,
        f"{MEASURES}:probe_accuracy",
        needs="base",
    ),
    Finding(
        "truth.judgement_accuracy",
        "The post model judges statements TRUE or FALSE as well as the base model did.",
        f"{DU}; the absolute row beside the direction",
        f"{MEASURES}:judgement_accuracy",
        needs="base",
    ),
    Finding(
        "truth.clean_gap",
        "The post model tells true from false by as wide a margin as the base model.",
        f"{DU}; the absolute row beside steering",
        f"{MEASURES}:clean_gap",
        needs="base",
    ),
    Finding(
        "truth.judgement_direction",
        "What sets judging true apart from judging false, at the end of the judged prompt, points the same way in both models.",
        f"{DU}; apart from the truth direction, since it is mostly the unembedding of the two answers",
        f"{DIRECTIONS}:judgement_direction",
        needs="base",
    ),
    Finding(
        "truth.two_directions",
        "With negated statements too, the directions in which truth lies are the same before and after post-training.",
        "Buerger et al. 2024, Truth is Universal, arXiv 2407.12831, two-direction form",
        f"{DIRECTIONS}:two_directions",
        needs="base",
        rows=2,
    ),
    Finding(
        "truth.steering_transfer",
        "The base model's truth direction steers the post model as well as the post model's own does.",
        f"{DU}, intervention effect",
        f"{STEERING}:transfer",
        needs="base",
        version=2,
    ),
    Finding(
        "truth.steering_transfer_by",
        "The base model's truth direction steers the post model as well as its own, each way and by each published formula.",
        f"{DU}, intervention effect; Marks and Tegmark 2024, arXiv 2310.06824, normalised indirect effect",
        f"{STEERING}:transfer",
        needs="base",
        version=2,
        rows=4,
    ),
    Finding(
        "truth.steering_backward",
        "The post model's truth direction steers the base model as well as the base model's own does.",
        f"{DU}, intervention effect",
        f"{STEERING}:transfer",
        needs="base",
        version=2,
    ),
    Finding(
        "truth.steering_effect",
        "The post model is steered by its own truth direction as much as the base model was by its own.",
        f"{DU}; the absolute row beside the transfer",
        f"{STEERING}:own_difference",
        needs="base",
        version=2,
    ),
)


@dataclass(frozen=True)
class TruthReadings:
    """What both models do with the same statements."""

    statements: Sequence[Statement]
    """The affirmed ones, in the order of all arrays but those of `both`."""
    base: np.ndarray
    """Block outputs at the period, [statement, layer, d_model]."""
    post: np.ndarray
    """The same of post."""
    base_gap: np.ndarray
    """logit(" TRUE") - logit(" FALSE") after the judged prompt, [statement]; NaN off the test split."""
    post_gap: np.ndarray
    """The same of post."""
    both: Sequence[Statement]
    """Affirmed and negated ones of the kinds that have both; none where no kind has."""
    base_both: np.ndarray
    """Block outputs at their periods."""
    post_both: np.ndarray
    """The same of post."""
    hand: HandSet
    """Choices made by hand."""
    left_out: dict[str, float]
    """Kinds that base cannot judge, with its accuracy on their choose split."""

    def noted(self, drift: Drift) -> Drift:
        """The drift, its note extended by what was left out."""
        if not self.left_out:
            return drift
        kinds = ", ".join(f"{kind} ({accuracy:.2f})" for kind, accuracy in self.left_out.items())
        return replace(drift, note=f"{drift.note}; left out, as base cannot judge them: {kinds}")

    @cached_property
    def place(self) -> Place:
        """The block at which truth is read: chosen once for all rows."""
        if self.hand.truth_layer is not None:
            return Place(self.hand.truth_layer, HAND_SET)
        return chosen_place(self.base, self.statements)

    def by_point(self, pair: Pair) -> Iterator[tuple[Checkpoint, np.ndarray]]:
        """Each checkpoint with its block outputs."""
        return zip((pair.base, pair.post), (self.base, self.post), strict=True)


def read_truth(pair: Pair, recordings: Recorder, statements: Sequence[Statement], seed: int, hand: HandSet) -> TruthReadings:
    """Record both models, one after the other, so that each is loaded once at most.

    Statements of kinds that base cannot judge are left out first, by its choose split.
    """
    tried = [statement for statement in statements if not statement.negated]
    kinds_known, left_out = judged_kinds(judged_gaps(recordings, pair.base, tried, seed, "choose"), tried)
    statements = [statement for statement in statements if statement.kind in kinds_known]
    affirmed = [index for index, statement in enumerate(statements) if not statement.negated]
    compared = [statements[index] for index in affirmed]
    kinds = {s.kind for s in statements if s.negated} & {s.kind for s in compared}
    both = [index for index, statement in enumerate(statements) if statement.kind in kinds]
    points = (pair.base, pair.post)
    bare = [recordings.statement_prompts(point, [s.text for s in statements], "period") for point in points]
    judged = [judged_questions(recordings, point, compared, seed, "test")[1] for point in points]
    require_same_tokens(bare[0], bare[1], recordings.tokenizers(points))
    require_same_tokens(judged[0], judged[1], recordings.tokenizers(points))
    blocks, gaps = [], []
    for point, prompts in zip(points, bare, strict=True):
        blocks.append(recordings.blocks(point, prompts))
        gaps.append(judged_gaps(recordings, point, compared, seed, "test"))
    base, post = blocks
    base_gap, post_gap = gaps
    of_both = [statements[index] for index in both]
    return TruthReadings(
        compared, base[affirmed], post[affirmed], base_gap, post_gap, of_both, base[both], post[both], hand, left_out
    )


def judged_questions(
    recordings: Recorder, point: Checkpoint, statements: Sequence[Statement], seed: int, split: Split
) -> tuple[list[int], Prompts]:
    """Indices of a split's statements, and the prompts in which they are judged."""
    judged = judgement_prompts(statements, seed, split)
    indices = [index for index, statement in enumerate(statements) if statement in judged]
    texts = [judged[statements[index]] for index in indices]
    return indices, recordings.answer_prompts(point, texts, (ANSWERS[True], ANSWERS[False]))


def judged_gaps(recordings: Recorder, point: Checkpoint, statements: Sequence[Statement], seed: int, split: Split) -> np.ndarray:
    """logit(" TRUE") - logit(" FALSE") of a split's statements, NaN elsewhere."""
    indices, prompts = judged_questions(recordings, point, statements, seed, split)
    logits = recordings.logits(point, prompts).astype(np.float64)
    gaps = np.full(len(statements), np.nan)
    gaps[indices] = logits[:, 0] - logits[:, 1]
    return gaps


def read_judging(pair: Pair, recordings: Recorder, truth: TruthReadings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Both models' block outputs at the last token of the judged prompt, [statement, layer, d_model]; NaN on the fit split."""
    read = {}
    for point in recordings.held_first((pair.base, pair.post)):
        outputs = None
        for split in JUDGED_SPLITS:
            indices, prompts = judged_questions(recordings, point, truth.statements, seed, split)
            of_split = recordings.blocks(point, prompts)
            if outputs is None:
                outputs = np.full((len(truth.statements), *of_split.shape[1:]), np.nan, dtype=np.float32)
            outputs[indices] = of_split
        assert outputs is not None
        read[point.short] = outputs
    return read[pair.base.short], read[pair.post.short]
