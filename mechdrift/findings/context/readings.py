"""What context is measured on: both models' losses on long documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.checkpoints.config import context_of
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Prompts, Recorder, require_same_tokens
from mechdrift.errors import Unmeasurable
from mechdrift.findings.inputs import Inputs, once
from mechdrift.findings.tiers import Tier
from mechdrift.prompts.documents import FEWEST, LONGEST, SHORTEST, documents
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text

DATA = "texts, true statements and instructions of the run"


@dataclass(frozen=True)
class LateLosses:
    """Loss of every token of long documents, in nats: [document, token]."""

    base: np.ndarray
    post: np.ndarray


class Context:
    """Settings, and losses that are read when a row first asks for them."""

    def __init__(self, inputs: Inputs) -> None:
        """Reads nothing yet."""
        self._inputs = inputs
        self.pair = inputs.pair

    @once
    def late_losses(self) -> LateLosses:
        """Both models on long documents. Raises Unmeasurable."""
        one = self._inputs
        texts = texts_of(one.texts, one.statements, one.instructions)
        return one.recordings.at_one_batch(lambda: read_late_losses(one.pair, one.recordings, texts, one.tier, one.seed))


def texts_of(texts: Sequence[Text], statements: Sequence[Statement], instructions: Instructions) -> list[str]:
    """What documents are made of."""
    return [*(t.text for t in texts), *(s.text for s in statements if s.label), *(i.text for i in instructions.all)]


def read_late_losses(pair: Pair, recordings: Recorder, texts: Sequence[str], tier: Tier, seed: int) -> LateLosses:
    """Both models on the same documents. Raises Unmeasurable where there are too few texts, or tokens differ."""
    points = (pair.base, pair.post)
    prompts = document_prompts(points, recordings, texts, tier.documents, seed)
    base, post = (prompts[point.short] for point in points)
    require_same_tokens(base, post, recordings.tokenizers(points))
    losses = {point.short: recordings.losses(point, prompts[point.short]) for point in recordings.held_first(points)}
    return LateLosses(*(losses[point.short] for point in points))


def document_prompts(
    points: Sequence[Checkpoint], recordings: Recorder, texts: Sequence[str], most: int, seed: int
) -> dict[str, Prompts]:
    """The documents as each model reads them, cut to one length that all can take; by the short names of the checkpoints."""
    longest = min([LONGEST, *(context for point in points if (context := context_of(point)))])
    tokenizer = recordings.pool.tokenizer(points[0])

    def lengths(parts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(parts, add_special_tokens=False)["input_ids"]]

    whole = documents(texts, lengths, longest, most, seed)
    if not whole:
        raise Unmeasurable(
            f"{len(texts)} texts make no {FEWEST} documents of {SHORTEST} tokens or more: give more with --mechdrift-texts"
        )
    ids = {point.short: encode(recordings.pool.tokenizer(point), whole)[0] for point in points}
    length = min(longest, *(len(row) for rows in ids.values() for row in rows))
    return {
        short: Prompts([row[:length] for row in rows], [length - 1] * len(rows), [()] * len(rows)) for short, rows in ids.items()
    }
