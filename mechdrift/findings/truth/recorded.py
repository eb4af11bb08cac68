"""Both models' recordings of the same statements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Recorder, require_same_tokens
from mechdrift.findings.drift import Drift
from mechdrift.findings.hand_set import HAND_SET, HandSet
from mechdrift.findings.judged_prompts import JUDGED_SPLITS, judged_gaps, judged_questions
from mechdrift.findings.judging import judged_kinds
from mechdrift.findings.truth.probes import Place, chosen_place
from mechdrift.prompts.statements import Statement


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
