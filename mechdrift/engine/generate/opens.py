"""Whether a model begins to think by itself: its replies begin with a thought that the prompt has not begun."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.generator import under
from mechdrift.engine.generate.thinking import TO_BEGIN
from mechdrift.engine.store import Part
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.work import Work
from mechdrift.prompts.thoughts import Block, markers_of, opening

if TYPE_CHECKING:
    from torch import Tensor

ASKED = 8  # prompts
PLAIN = Arm("plain", thinks=False)


def opens_thoughts(recorder: Recorder, checkpoint: Checkpoint, prompts: Sequence[Sequence[int]]) -> Block | None:
    """How most of a model's replies to the first prompts begin to think, by transformers; None where they do not.

    What the prompts themselves begin is no matter of it.
    """
    import torch

    ids = [list(prompt) for prompt in prompts[:ASKED]]
    markers = markers_of(recorder.pool.tokenizer(checkpoint))

    def make() -> "Tensor":
        tokenizer = recorder.pool.tokenizer(checkpoint)
        replies = under(TransformersGenerator(recorder).replies(checkpoint, ids, [PLAIN], TO_BEGIN), PLAIN.name)
        begun = [opening(tokenizer.decode(reply), markers) for reply in replies]
        kinds = [markers.blocks.index(found[0]) + 1 for found in begun if found]
        usual = max(kinds, key=kinds.count, default=0)
        return torch.tensor([float(usual if 2 * len(kinds) > len(ids) else 0)])

    provenance = recorder.provenance("opens thoughts", checkpoint, Prompts(ids, [], [])) | {
        "tokens": TO_BEGIN,
        "markers": hashlib.sha256(repr(markers).encode()).hexdigest(),
    }
    work = Work(tokens=sum(map(len, ids)), replies=len(ids), reply_tokens=TO_BEGIN * len(ids), reply_steps=TO_BEGIN)
    (kept,) = recorder.store.get(provenance, [Part((1,), make, work)], f"{checkpoint.spec} ({checkpoint.short})")
    number = int(kept.item())
    return markers.blocks[number - 1] if number else None
