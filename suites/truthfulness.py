"""What the truthfulness suite claims, and how its readings are taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.recordings import Prompts, Recorder, require_same_tokens
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.measures.drift import Drift
from mechdrift.measures.truthfulness import judged_kinds
from mechdrift.prompts.judgement import ANSWERS, judgement_prompts
from mechdrift.prompts.statements import Split, Statement

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, truthfulness"
MEASURES = "mechdrift.measures.truthfulness"

FINDINGS = (
    Finding(
        "truth.direction_similarity",
        "The direction that tells true statements from false is nearly the same before and after post-training.",
        DU,
        f"{MEASURES}:direction_similarity",
        needs="base",
    ),
    Finding(
        "truth.probe_transfer_forward",
        "A truth probe fitted on the base model reads the post model as well as the post model's own probe.",
        DU,
        f"{MEASURES}:probe_transfer",
        needs="base",
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
)


@dataclass(frozen=True)
class TruthReadings:
    """What both models do with the same statements."""

    statements: Sequence[Statement]
    """Those of the kinds that are compared, in the order of all arrays."""
    base: np.ndarray
    """Block outputs at the period, [statement, layer, d_model]."""
    post: np.ndarray
    """The same of post."""
    base_gap: np.ndarray
    """logit(" TRUE") - logit(" FALSE") after the judged prompt, [statement]; NaN off the test split."""
    post_gap: np.ndarray
    """The same of post."""
    left_out: dict[str, float]
    """Kinds that base cannot judge, with its accuracy on their choose split."""

    def noted(self, drift: Drift) -> Drift:
        """The drift, its note extended by what was left out."""
        if not self.left_out:
            return drift
        kinds = ", ".join(f"{kind} ({accuracy:.2f})" for kind, accuracy in self.left_out.items())
        return replace(drift, note=f"{drift.note}; left out, as base cannot judge them: {kinds}")


def read_truth(pair: Pair, recordings: Recorder, statements: Sequence[Statement], seed: int) -> TruthReadings:
    """Record both models, one after the other, so that each is loaded once at most.

    Statements of kinds that base cannot judge are left out first, by its choose split.
    """
    tried = _gaps(recordings, pair.base, statements, seed, "choose")
    kinds, left_out = judged_kinds(tried, statements)
    compared = [statement for statement in statements if statement.kind in kinds]
    texts = [statement.text for statement in compared]
    points = (pair.base, pair.post)
    bare = [recordings.statement_prompts(point, texts, "period") for point in points]
    require_same_tokens(*bare)
    require_same_tokens(*(_questions(recordings, point, compared, seed, "test")[1] for point in points))
    blocks, gaps = [], []
    for point, prompts in zip(points, bare, strict=True):
        blocks.append(recordings.blocks(point, prompts))
        gaps.append(_gaps(recordings, point, compared, seed, "test"))
    return TruthReadings(compared, blocks[0], blocks[1], gaps[0], gaps[1], left_out)


def _questions(
    recordings: Recorder, point: Checkpoint, statements: Sequence[Statement], seed: int, split: Split
) -> tuple[list[int], Prompts]:
    """Indices of a split's statements, and the prompts in which they are judged."""
    judged = judgement_prompts(statements, seed, split)
    asked = [index for index, statement in enumerate(statements) if statement in judged]
    texts = [judged[statements[index]] for index in asked]
    return asked, recordings.answer_prompts(point, texts, (ANSWERS[True], ANSWERS[False]))


def _gaps(recordings: Recorder, point: Checkpoint, statements: Sequence[Statement], seed: int, split: Split) -> np.ndarray:
    """logit(" TRUE") - logit(" FALSE") of a split's statements, NaN elsewhere."""
    asked, prompts = _questions(recordings, point, statements, seed, split)
    logits = recordings.logits(point, prompts).astype(np.float64)
    gaps = np.full(len(statements), np.nan)
    gaps[asked] = logits[:, 0] - logits[:, 1]
    return gaps
