"""How a model is asked to judge statements, and what it answers."""

from collections.abc import Sequence

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.prompts.judgement import ANSWERS, judgement_prompts
from mechdrift.prompts.statements import Split, Statement

JUDGED_SPLITS: tuple[Split, ...] = ("choose", "test")


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
