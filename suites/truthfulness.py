"""What the truthfulness suite claims, and how its readings are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.engine.recordings import Recorder, require_same_tokens
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.prompts.judgement import ANSWERS, judgement_prompts
from mechdrift.prompts.statements import Statement

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
    """In the order of all arrays."""
    base: np.ndarray
    """Block outputs at the period, [statement, layer, d_model]."""
    post: np.ndarray
    """The same of post."""
    base_gap: np.ndarray
    """logit(" TRUE") - logit(" FALSE") after the judged prompt, [statement]; NaN off the test split."""
    post_gap: np.ndarray
    """The same of post."""


def read_truth(pair: Pair, recordings: Recorder, statements: Sequence[Statement], seed: int) -> TruthReadings:
    """Record both models, one after the other, so that each is loaded once at most."""
    texts = [statement.text for statement in statements]
    judged = judgement_prompts(statements, seed)
    asked = [index for index, statement in enumerate(statements) if statement in judged]
    prompts = [judged[statements[index]] for index in asked]
    points = (pair.base, pair.post)
    bare = [recordings.statement_prompts(point, texts, "period") for point in points]
    questions = [recordings.answer_prompts(point, prompts, (ANSWERS[True], ANSWERS[False])) for point in points]
    require_same_tokens(*bare)
    require_same_tokens(*questions)
    blocks, gaps = [], []
    for point, statement_prompts, answer_prompts in zip(points, bare, questions, strict=True):
        blocks.append(recordings.blocks(point, statement_prompts))
        logits = recordings.logits(point, answer_prompts).astype(np.float64)
        gap = np.full(len(statements), np.nan)
        gap[asked] = logits[:, 0] - logits[:, 1]
        gaps.append(gap)
    return TruthReadings(statements, blocks[0], blocks[1], gaps[0], gaps[1])
