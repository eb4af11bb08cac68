"""Is this model what the engine takes it for? Checked on the user's own model, each time it is loaded."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mechdrift.engine.devices import input_device
from mechdrift.engine.record import record_blocks, record_logits
from mechdrift.engine.sites import blocks
from mechdrift.engine.steer import ablating, adding
from mechdrift.errors import InterventionFailed, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Largest |difference| over largest |value| that rounding explains, by dtype: one operation rounds by 2^-24, 2^-11, 2^-8,
# and a sum of three terms or another batch shape reorders tens of them. organism:instruct: 5e-7, 1e-3, 1.2e-2.
# A wrong site is off by a whole attention or MLP contribution, tens of per cent.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}

FAINT = 1e-3  # a move that is less than this share of its token cannot be told from bfloat16's rounding; one has to be more


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


def check_adding(
    model: "PreTrainedModel", prompt: Sequence[int], layers: Sequence[int], shift: "Tensor", positions: Sequence[int]
) -> None:
    """Check on one prompt that adding a vector does that: check_intervention for steer.adding. shift: float32 [d_model]."""
    import torch

    def expected(plain: "Tensor") -> "Tensor":
        move = torch.zeros_like(plain)
        move[list(positions)] = shift.to(plain.device)
        return move

    check_intervention(model, prompt, lambda: adding(model, layers, shift[None], [positions]), min(layers), expected)


def check_ablating(model: "PreTrainedModel", prompt: Sequence[int], layers: Sequence[int], direction: "Tensor") -> None:
    """Check on one prompt that ablating a direction does that: check_intervention for steer.ablating. direction: [d_model]."""

    def expected(plain: "Tensor") -> "Tensor":
        unit = (direction / direction.norm()).to(plain.device)
        return -(plain @ unit)[:, None] * unit

    check_intervention(model, prompt, lambda: ablating(model, direction, layers), min(layers), expected)


def check_intervention(
    model: "PreTrainedModel",
    prompt: Sequence[int],
    intervention: Callable[[], AbstractContextManager[None]],
    first: int,
    expected: "Callable[[Tensor], Tensor]",
) -> None:
    """Check on one prompt that an intervention moves what it should, by what it should, and nothing before it.

    first: the lowest block whose output it changes. expected: from that output as it is, float32 [position, d_model], to the move
    of each position; where that is zero nothing may move at all. Seen by hooks of the check's own, at what enters the next block;
    nothing below may have moved, and the logits after the prompt must have. A move is measured along the expected one: some
    tokens carry values hundreds of times as large, beside which any move would be within rounding. Raises InterventionFailed.
    """
    import torch

    tolerance = TOLERANCE[str(model.dtype).removeprefix("torch.")]
    plain, plain_logits = _entering(model, prompt)
    with intervention():
        edited, edited_logits = _entering(model, prompt)
    for entered in range(first + 1):
        if not torch.equal(plain[entered], edited[entered]):
            raise InterventionFailed(f"an intervention from block {first} on moved what enters block {entered}")
    moved, wanted = edited[first + 1] - plain[first + 1], expected(plain[first + 1])
    length = wanted.norm(dim=1)
    if moved[length == 0].any():
        places = torch.nonzero(length).flatten().tolist()
        raise InterventionFailed(f"an intervention at block {first} moved tokens other than {places}")
    seen = length > FAINT * plain[first + 1].norm(dim=1)
    along = (moved * wanted).sum(1)[seen] / length[seen] ** 2
    if not len(along) or not (along - 1).abs().max() <= tolerance:
        raise InterventionFailed(
            f"an intervention at block {first} did not move its output as it says, but by {along.tolist()} times that"
        )
    if torch.equal(plain_logits, edited_logits):
        raise InterventionFailed(f"an intervention at block {first} did not move the logits")


def _entering(model: "PreTrainedModel", prompt: Sequence[int]) -> "tuple[list[Tensor], Tensor]":
    """What enters each block and the final norm, float32 [position, d_model], and the last logits."""
    import torch

    entered: list[Tensor] = []
    places = [*blocks(model), model.get_decoder().norm]
    handles = [
        place.register_forward_pre_hook(lambda _m, args: entered.append(args[0][0].detach().float().clone())) for place in places
    ]
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=input_device(model))
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    finally:
        for handle in handles:
            handle.remove()
    return entered, logits[0, -1].float()


def _gap(found: "Tensor", expected: "Tensor") -> float:
    """Largest difference as a share of the largest value; infinite where anything is not finite."""
    gap = float((found - expected).abs().max() / expected.abs().max())
    return gap if gap == gap else float("inf")


def _residual_gap(model: "PreTrainedModel", block: "nn.Module", prompt: Sequence[int]) -> float:
    """How far the block's output is from its input plus what attention and MLP wrote."""
    import torch

    seen: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        seen[name] = (value[0] if isinstance(value, tuple) else value).detach().float().cpu()

    handles = [
        block.register_forward_pre_hook(lambda _m, args: keep("input", args[0])),
        block.register_forward_hook(lambda _m, _a, out: keep("output", out)),
        block.self_attn.register_forward_hook(lambda _m, _a, out: keep("attention", out)),
        block.mlp.register_forward_hook(lambda _m, _a, out: keep("mlp", out)),
    ]
    try:
        with torch.inference_mode():
            model.get_decoder()(input_ids=torch.tensor([list(prompt)], device=input_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return _gap(seen["output"], seen["input"] + seen["attention"] + seen["mlp"])
