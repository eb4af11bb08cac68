"""What the context suite claims, and how its readings are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.checkpoints.config_changes import PARTS
from mechdrift.checkpoints.load import context_of
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.sites import encode
from mechdrift.engine.stored_recordings import Prompts, Recorder, require_same_tokens
from mechdrift.errors import Unmeasurable
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.prompts.documents import FEWEST, LONGEST, SHORTEST, documents
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.tiers import Tier

OURS = "ours: prompts of usual length cannot tell"
MEASURES = "mechdrift.measures.context"
DATA = "texts, true statements and instructions of the run"

FINDINGS = (
    Finding(
        "context.settings",
        "What decides how far and how sharply attention sees is what it was: windows, rope, soft caps.",
        OURS,
        f"{MEASURES}:settings",
        needs="base",
        rows=len(PARTS),
    ),
    Finding(
        "context.late_loss",
        "The post model predicts what stood far back in its context as well as the base model.",
        OURS,
        f"{MEASURES}:late_loss",
        needs="base",
    ),
)


@dataclass(frozen=True)
class LateLosses:
    """Loss of every token of long documents, in nats: [document, token]."""

    base: np.ndarray
    post: np.ndarray


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
