"""Is this model what the engine takes it for? Checked on the user's own model, each time it is loaded."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.engine.last_mlp import Ablation, LastMLP, Unembedding, ablating_neurons, streams_of, written_products
from mechdrift.engine.recording import Edit, record_blocks, record_last_mlp, record_logits, record_under, record_under_whole
from mechdrift.engine.routing import choices, chosen
from mechdrift.engine.steer import ablating_everywhere, adding, shifting
from mechdrift.errors import InterventionFailed, Unmeasurable
from mechdrift.models.devices import input_device
from mechdrift.models.sites import blocks, final_norm, stream, writes

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Largest |difference| over largest |value| that another batch shape may make, as its sums round in another order. Seen on random
# models of every family, organism:base and SmolLM2-135M: 1.8e-6, 3.8e-3, 2.0e-2 (benchmarks/families.py); the rest is room for
# deeper models. Still a wrong padding side is caught in every family. Of experts, each prompt keeps those it had alone.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}

# In eps of the dtype, whatever the model: a block adds twice, rounding by at most eps/2 of what is added, so by one eps of the
# terms in all, and the check's own float32 sum by one more in float32. Seen: 1.00. A wrong site is off by .55 and more, where
# eps is 1e-7, 1e-3, 8e-3.
SUM_TOLERANCE = 2.0

# In eps of the dtype: what may be left along an ablated direction, as a share of the token. Seen on random models of every
# family: 1.4 in float32, 0.3 in the others.
LEFT = 4.0

FAINT = 1e-3  # a move that is less than this share of its token cannot be told from bfloat16's rounding; one has to be more


@dataclass(frozen=True)
class SelfCheck:
    """Figures of a model that passed, the largest of each."""

    residual: float
    """Error of a block's output as the sum of what enters it and what is written, as a share of the terms, element by element."""
    batch: float
    """Difference of a block's output between a padded batch and one prompt, as a share of the largest value."""
    logits: float
    """The same of the next-token logits."""


def self_check(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> SelfCheck:
    """Check every block's site and what it adds, and padded batches against single prompts.

    prompts: at least two, of different lengths. Raises Unmeasurable with the layer and the figure.
    """
    residual = _check_sites(model, prompts[0])
    tolerance = tolerance_of(model)
    lasts = [len(prompt) - 1 for prompt in prompts]
    tokens = [prompt[-1:] for prompt in prompts]
    with choices(model) as kept:
        alone = record_blocks(model, prompts, lasts, batch_tokens=1)
    with chosen(kept, sorted(map(len, prompts))):  # the order in which record_blocks runs prompts
        together = record_blocks(model, prompts, lasts, batch_tokens=10**9)
        batched = record_logits(model, prompts, tokens, batch_tokens=10**9)
    batch = 0.0
    for layer in range(together.shape[1]):
        gap = max(_gap(*pair) for pair in zip(together[:, layer], alone[:, layer], strict=True))
        if not gap <= tolerance:
            raise Unmeasurable(f"self-check: block {layer} differs between a padded batch and one prompt (by {gap:.2g})")
        batch = max(batch, gap)
    logits = _gap(batched, record_logits(model, prompts, tokens, batch_tokens=1))
    if not logits <= tolerance:
        raise Unmeasurable(f"self-check: logits differ between a padded batch and one prompt (by {logits:.2g})")
    return SelfCheck(residual, batch, logits)


def tolerance_of(model: "PreTrainedModel") -> float:
    """What another batch shape may change in this model's precision."""
    return TOLERANCE[str(model.dtype).removeprefix("torch.")]


def prefix_gap(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    edits: "Sequence[Edit]",
    first_edited: Sequence[int],
) -> float:
    """Largest difference of record_under, all prompts in one batch, from whole forwards, as a share of the largest value."""
    shared = record_under(model, prompts, tokens, edits, first_edited, batch_tokens=10**9)
    return _gap(shared, record_under_whole(model, prompts, tokens, edits, batch_tokens=10**9))


def sharing_gap(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], batch_tokens: int = 10**9) -> float:
    """Largest difference that shared beginnings make to block outputs at the last token, as a share of the largest value."""
    lasts = [len(prompt) - 1 for prompt in prompts]
    shared, whole = (record_blocks(model, prompts, lasts, batch_tokens, share=share) for share in (True, False))
    return _gap(shared, whole)


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


def check_shifting(model: "PreTrainedModel", prompt: Sequence[int], shift: "Tensor", layer: int) -> None:
    """Check on one prompt that steer.shifting moves all of its tokens at one block. shift: [d_model]."""
    check_intervention(
        model, prompt, lambda: shifting(model, shift, [layer]), layer, lambda plain: shift.to(plain.device).expand_as(plain)
    )


def check_ablating_everywhere(model: "PreTrainedModel", prompt: Sequence[int], direction: "Tensor") -> None:
    """Check on one prompt that steer.ablating_everywhere leaves nothing along a direction, where there was something.

    direction: [d_model]. Raises InterventionFailed, and Unmeasurable where the model has nothing along it.
    """
    import torch

    plain, plain_logits = _entering(model, prompt)
    with ablating_everywhere(model, direction):
        edited, edited_logits = _entering(model, prompt)
    unit = direction / direction.norm()
    before, after = (
        torch.stack([(entered @ unit.to(entered.device)).abs().cpu() / entered.norm(dim=1).cpu() for entered in run])
        for run in (plain, edited)
    )
    if not before.max() > FAINT:
        raise Unmeasurable(f"nothing to ablate: tokens have at most {before.max():.2g} of their length along the direction")
    allowed = LEFT * torch.finfo(model.dtype).eps
    if not after.max() <= allowed:
        raise InterventionFailed(f"an ablation left {after.max():.2g} of a token along its direction, more than {allowed:.2g}")
    if torch.equal(plain_logits, edited_logits):
        raise InterventionFailed("an ablation did not move the logits")


def check_last_mlp(
    model: "PreTrainedModel", mlp: LastMLP, prompt: Sequence[int], neurons: Sequence[int], ablations: Sequence[Ablation]
) -> None:
    """Check on one prompt that logits computed from its streams are the model's own, plain and with neurons really ablated.

    neurons: at least those of the ablations. Raises Unmeasurable where the plain ones are not, so that the norm or the head is
    not what it is taken for, and InterventionFailed where those of an ablation are not, or where none moved anything.
    """
    import torch

    recorded = record_last_mlp(model, [prompt], [len(prompt) - 1], neurons, 10**9)[0]
    with torch.inference_mode():
        block = Unembedding(mlp, streams_of(recorded, model.config.hidden_size, len(neurons)), neurons)
    tolerance, moved = tolerance_of(model), False
    _, plain = _entering(model, prompt)
    if not (gap := _last_gap(block.plain(), plain)) <= tolerance:
        raise Unmeasurable(
            f"self-check: the logits are not the final norm and the head of the last block's output (by {gap:.2g})"
        )
    for ablation in ablations:
        with ablating_neurons(model, ablation):
            _, ablated = _entering(model, prompt)
        with torch.inference_mode():
            computed, _ = block.under(ablation, written_products(mlp, ablation.neurons))
        if not (gap := _last_gap(computed, ablated)) <= tolerance:
            raise InterventionFailed(f"the logits of an ablation of neurons are not those that were computed (by {gap:.2g})")
        moved = moved or not torch.equal(plain, ablated)
    if ablations and not moved:
        raise InterventionFailed("no ablation of neurons moved the logits")


def _last_gap(computed: "Tensor", found: "Tensor") -> float:
    """_gap of one prompt's last logits, of the tokens that were computed."""
    return _gap(computed[0].cpu(), found[: computed.shape[1]].cpu())


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

    tolerance = tolerance_of(model)
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
    places = [*blocks(model), final_norm(model)]
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


def _check_sites(model: "PreTrainedModel", prompt: Sequence[int]) -> float:
    """Check that blocks, what they write, and the final norm are where the family's table says; the largest residual error.

    One forward. What enters and leaves a block is held against transformers' own hidden_states, of which the last has gone
    through the final norm.
    """
    import torch

    layers, norm = blocks(model), final_norm(model)
    entered: dict[nn.Module, Tensor] = {}
    left: dict[nn.Module, Tensor] = {}

    def enter(module: "nn.Module", args: tuple[Any, ...]) -> None:
        entered[module] = args[0].detach().cpu()  # blocks may lie on several devices

    def leave(module: "nn.Module", _args: Any, output: Any) -> None:
        left[module] = stream(output).detach().cpu()

    handles = [place.register_forward_pre_hook(enter) for place in (*layers, norm)]
    handles += [place.register_forward_hook(leave) for layer in layers for place in (layer, *writes(model, layer))]
    handles.append(norm.register_forward_hook(leave))
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=input_device(model))
            states = model.get_decoder()(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    finally:
        for handle in handles:
            handle.remove()
    if len(states) != len(layers) + 1:
        raise Unmeasurable(f"self-check: {len(layers)} blocks found where transformers has {len(states) - 1}")
    tolerance = SUM_TOLERANCE * torch.finfo(model.dtype).eps
    largest = 0.0
    for layer, block in enumerate(layers):
        terms = [entered[block], *(left[place] for place in writes(model, block))]
        if not left[block].isfinite().all():
            raise Unmeasurable(f"self-check: block {layer} is not finite in {model.dtype}: try another --mechdrift-dtype")
        gap = _sum_error(left[block], terms)
        if not gap <= tolerance:
            raise Unmeasurable(
                f"self-check: block {layer} is not its input plus what attention and MLP write "
                f"(off by {gap:.2g} of them, tolerance {tolerance:.2g})"
            )
        if not torch.equal(entered[block], states[layer].cpu()):
            raise Unmeasurable(f"self-check: what enters block {layer} is not what transformers has there")
        largest = max(largest, gap)
    if not torch.equal(left[layers[-1]], entered[norm]) or not torch.equal(left[norm], states[-1].cpu()):
        raise Unmeasurable(f"self-check: the final norm is not where block {len(layers) - 1} ends")
    return largest


def _sum_error(found: "Tensor", terms: "Sequence[Tensor]") -> float:
    """Largest |found - sum of terms| over the sum of their sizes, element by element; infinite where anything is not finite."""
    import torch

    parts = torch.stack([term.float() for term in terms])
    error = (found.float() - parts.sum(0)).abs() / parts.abs().sum(0).clamp(min=torch.finfo(torch.float32).tiny)
    gap = float(error.max())
    return gap if gap == gap else float("inf")
