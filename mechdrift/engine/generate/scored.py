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


class _Untold(Exception):
    """Of an arm it cannot be told whether it does what it says."""

    def __init__(self, found: "dict[str, list[int] | Unmeasurable]") -> None:
        """What was found of all arms."""
        super().__init__()
        self.found = found


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
    import numpy as np
    import torch

    ids = [list(prompt) for prompt in prompts]
    counts = [len(arm.prompts(prompts)) for arm in arms]

    def make() -> "Tensor":
        said = generator.replies(checkpoint, ids, arms, new_tokens)
        tokenizer = recorder.pool.tokenizer(checkpoint)
        found: dict[str, list[int] | Unmeasurable] = {}
        for arm in arms:
            replies = said[arm.name]
            if isinstance(replies, Unmeasurable):
                found[arm.name] = replies
                continue
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            found[arm.name] = [
                KINDS.index(classify(text, reencoded_share(tokenizer, reply), thinking).kind)
                for text, reply in zip(texts, replies, strict=True)
            ]
        codes: list[float] = []
        for kinds in found.values():
            if isinstance(kinds, Unmeasurable):
                raise _Untold(found)
            codes += map(float, kinds)
        return torch.tensor(codes)

    provenance = recorder.provenance("replies", checkpoint, Prompts(ids, [], [])) | {
        "arms": [[digest(arm), arm.asked] for arm in arms],
        "generator": generator.name,
        "new_tokens": new_tokens,
        "thinking": thinking,
        "scorer": [SCORER, hashlib.sha256(repr(shipped_openings()).encode()).hexdigest()],
    }
    try:
        (kept,) = recorder.store.get(provenance, [Part((sum(counts),), make)], f"{checkpoint.spec} ({checkpoint.short})")
    except _Untold as error:  # not kept: another day's engine may tell
        return {name: kinds if isinstance(kinds, Unmeasurable) else np.array(kinds) for name, kinds in error.found.items()}
    return {arm.name: codes.int().numpy() for arm, codes in zip(arms, kept.split(counts), strict=True)}
