"""What an intervention does to the first token of a reply: a forward a prompt, no generation."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import Progress, batches_by_length, padded
from mechdrift.engine.generate.arms import Added, Arm
from mechdrift.engine.generate.batched import acting
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.work import Work, reading
from mechdrift.models.devices import input_device, last_only

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

SCORE = 2  # raise it whenever the same logits would give another number


def first_token_under(
    recorder: Recorder, checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], tokens: Sequence[int], arms: Sequence[Arm]
) -> "np.ndarray":
    """Log-odds that a reply begins with one of `tokens`, and how far an arm moves the first token: float32 [arm, prompt, 2].

    Log p - log(1 - p) in nats, p the sum of their probabilities (Arditi et al. 2024), 1 - p the sum over all other tokens: as a
    difference from 1 it is 0 in float32 where p is over 1 - 6e-8. And KL(plain || arm) in nats, over all tokens.
    """
    ids = [list(prompt) for prompt in prompts]
    requested = Prompts(ids, [len(prompt) - 1 for prompt in ids], [tuple(tokens)] * len(ids))

    def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
        return _moved(model, [requested.ids[index] for index in chosen], tokens, arms, recorder.batch_tokens, progress)

    forwards = 1 + sum(arm.does is not None for arm in arms)  # plain in any case

    def takes(chosen: list[int]) -> Work:
        return reading([forwards * len(ids[index]) for index in chosen])

    shape, details = (len(arms), len(prompts), 2), {"arms": [digest(arm) for arm in arms], "score": SCORE}
    return recorder.read("first token", checkpoint, requested, run, shape, details, axis=1, work=takes)


def digest(arm: Arm) -> str:
    """sha256 of what an arm does, whatever it is called."""
    if arm.does is None:
        return "plain"
    details = f"{arm.does.layer} {arm.does.coefficient!r}" if isinstance(arm.does, Added) else "ablated"
    return hashlib.sha256(details.encode() + arm.does.direction.tobytes()).hexdigest()


def _moved(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    arms: Sequence[Arm],
    batch_tokens: int,
    progress: Progress | None,
) -> "Tensor":
    """The same of one model. All arms of a batch together, so that the plain distribution is there to compare with."""
    import torch

    found = torch.empty(len(arms), len(prompts), 2)
    done = 0
    with torch.inference_mode():
        for batch in batches_by_length([len(prompt) for prompt in prompts], batch_tokens):
            chosen = [prompts[index] for index in batch]
            plain = _log_probs(model, chosen)
            for number, arm in enumerate(arms):
                with acting(model, arm):
                    seen = plain if arm.does is None else _log_probs(model, chosen)
                found[number, batch, 0] = log_odds(seen, tokens).cpu()
                # Of a probability that is 0 in float32 the product is 0, not a NaN.
                found[number, batch, 1] = torch.where(plain.isfinite(), plain.exp() * (plain - seen), 0.0).sum(1).cpu()
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))
    return found


def log_odds(log_probs: "Tensor", tokens: Sequence[int]) -> "Tensor":
    """Log p - log(1 - p) of the tokens together, in nats: [prompt] of log-probabilities [prompt, vocabulary]."""
    import torch

    chosen = torch.tensor(list(tokens), device=log_probs.device)
    others = log_probs.index_fill(1, chosen, -torch.inf)
    return log_probs[:, chosen].logsumexp(1) - others.logsumexp(1)


def _log_probs(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> "Tensor":
    """Of the token after each prompt: float32 [prompt, vocabulary]."""
    ids, mask = padded(prompts, left=True)  # so that one position is every prompt's last
    device = input_device(model)
    places = (mask.cumsum(1) - 1).clamp(min=0).to(device)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=places,
        use_cache=False,
        logits_to_keep=last_only(model),
    ).logits[:, -1]
    return logits.float().log_softmax(-1)
