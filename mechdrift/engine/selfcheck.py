"""Is this model what the engine takes it for? Checked on the user's own model, each time it is loaded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mechdrift.engine.record import record_blocks, record_logits
from mechdrift.engine.sites import blocks
from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Largest |difference| over largest |value| that rounding explains, by dtype: one operation rounds by 2^-24, 2^-11, 2^-8,
# and a sum of three terms or another batch shape reorders tens of them. organism:instruct: 5e-7, 1e-3, 1.2e-2.
# A wrong site is off by a whole attention or MLP contribution, tens of per cent.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}


def self_check(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> None:
    """Check the residual identity of every block, and padded batches against single prompts.

    prompts: at least two, of different lengths. Raises Unmeasurable with the layer and the figure.
    """
    tolerance = TOLERANCE[str(model.dtype).removeprefix("torch.")]
    for layer, block in enumerate(blocks(model)):
        if (gap := _residual_gap(model, block, prompts[0])) > tolerance:
            raise Unmeasurable(
                f"self-check: block {layer} is not its input plus attention plus MLP (off by {gap:.2g}, tolerance {tolerance:g})"
            )
    lasts = [len(prompt) - 1 for prompt in prompts]
    together = record_blocks(model, prompts, lasts, batch_tokens=10**9)
    for index, prompt in enumerate(prompts):
        alone = record_blocks(model, [prompt], [lasts[index]], batch_tokens=1)[0]
        for layer in range(len(alone)):
            if (gap := _gap(together[index, layer], alone[layer])) > tolerance:
                raise Unmeasurable(f"self-check: block {layer} differs between a padded batch and one prompt (by {gap:.2g})")
    tokens = [prompt[-1:] for prompt in prompts]
    batched = record_logits(model, prompts, tokens, batch_tokens=10**9)
    single = record_logits(model, prompts, tokens, batch_tokens=1)
    if (gap := _gap(batched, single)) > tolerance:
        raise Unmeasurable(f"self-check: logits differ between a padded batch and one prompt (by {gap:.2g})")


def _gap(found: "Tensor", expected: "Tensor") -> float:
    """Largest difference as a share of the largest value; infinite where anything is not finite."""
    gap = float((found - expected).abs().max() / expected.abs().max())
    return gap if gap == gap else float("inf")


def _residual_gap(model: "PreTrainedModel", block: "nn.Module", prompt: Sequence[int]) -> float:
    """How far the block's output is from its input plus what attention and MLP wrote."""
    import torch

    seen: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        seen[name] = (value[0] if isinstance(value, tuple) else value).detach().float()

    handles = [
        block.register_forward_pre_hook(lambda _m, args: keep("input", args[0])),
        block.register_forward_hook(lambda _m, _a, out: keep("output", out)),
        block.self_attn.register_forward_hook(lambda _m, _a, out: keep("attention", out)),
        block.mlp.register_forward_hook(lambda _m, _a, out: keep("mlp", out)),
    ]
    try:
        with torch.inference_mode():
            model.get_decoder()(input_ids=torch.tensor([list(prompt)], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return _gap(seen["output"], seen["input"] + seen["attention"] + seen["mlp"])
