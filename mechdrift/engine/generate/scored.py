"""What replies are: scores of text that is not kept."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm, Generator
from mechdrift.engine.generate.first_token import digest
from mechdrift.engine.recordings import Prompts, Recorder
from mechdrift.engine.store import Part
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.replies import Kind, classify, reencoded_share, shipped_openings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

KINDS: tuple[Kind, ...] = get_args(Kind)
SCORER = 1  # raise it whenever the same reply would be found to be something else
UNTOLD = -1.0  # in the place of every reply of an arm of which it cannot be told whether it does what it says


def scored_replies(
    recorder: Recorder,
    generator: Generator,
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    thinking: bool,
    arms: Sequence[Arm],
    new_tokens: int,
) -> "dict[str, np.ndarray | Unmeasurable]":
    """What the checkpoint's greedy replies are under every arm: indices of KINDS, [prompt asked], from the store where known.

    thinking: whether prompts end inside a think block. An arm of which it cannot be told whether it does what it says has an
    Unmeasurable instead.
    """
    import torch

    ids = [list(prompt) for prompt in prompts]
    counts = [len(arm.prompts(prompts)) for arm in arms]

    def make() -> "Tensor":
        said = generator.replies(checkpoint, ids, arms, new_tokens)
        tokenizer = recorder.pool.tokenizer(checkpoint)
        codes: list[float] = []
        for arm, count in zip(arms, counts, strict=True):
            replies = said[arm.name]
            if isinstance(replies, Unmeasurable):
                recorder.warnings.append(f"{checkpoint.spec}: {arm.name}: {replies}")
                codes += [UNTOLD] * count
                continue
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            kinds = [
                classify(text, reencoded_share(tokenizer, reply), thinking).kind
                for text, reply in zip(texts, replies, strict=True)
            ]
            codes += [float(KINDS.index(kind)) for kind in kinds]
        return torch.tensor(codes)

    provenance = recorder.provenance("replies", checkpoint, Prompts(ids, [], [])) | {
        "arms": [[digest(arm), arm.asked] for arm in arms],
        "generator": type(generator).__name__,
        "new_tokens": new_tokens,
        "thinking": thinking,
        "scorer": [SCORER, hashlib.sha256(repr(shipped_openings()).encode()).hexdigest()],
    }
    (kept,) = recorder.store.get(provenance, [Part((sum(counts),), make)], f"{checkpoint.spec} ({checkpoint.short})")
    found: dict[str, np.ndarray | Unmeasurable] = {}
    for arm, codes in zip(arms, kept.split(counts), strict=True):
        untold = bool((codes == UNTOLD).any())
        found[arm.name] = Unmeasurable(f"{arm.name}: nothing to be seen of it in this model") if untold else codes.int().numpy()
    return found
