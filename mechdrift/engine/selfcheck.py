"""Is this model what the engine takes it for? Checked on the user's own model, each time it is loaded."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.engine.last_mlp import Ablation, LastMLP, Unembedding, ablating_neurons, streams_of, written_products
from mechdrift.engine.recording import Edit, record_blocks, record_last_mlp, record_logits, record_under, record_under_whole
from mechdrift.engine.routing import choices, chosen
from mechdrift.engine.steer import ablating_everywhere, adding, shifting
from mechdrift.errors import InterventionFailed, Unmeasurable, is_out_of_memory
from mechdrift.models.devices import input_device, last_only
from mechdrift.models.sites import blocks, entering, final_norm, stream, width_of, with_stream, writes
from mechdrift.models.structure import structure_of, sum_error

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Largest |difference| over largest |value| that another batch shape may make, as its sums round in another order. Seen on random
# models of every family, organism:base and SmolLM2-135M: 1.8e-6, 3.8e-3, 2.0e-2 (benchmarks/families.py); the rest is room for
# deeper models. Still a wrong padding side is caught in every family. Of experts, each prompt keeps those it had alone.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}

# In eps of the dtype: what may be left along an ablated direction, as a share of the token. Seen on random models of every
# family: 1.4 in float32, 0.3 in the others.
LEFT = 4.0

LONGEST = 64  # tokens of the prompt by which the stream is shown to be all that passes from block to block
AROUND = ("num_kv_shared_layers", "hidden_size_per_layer_input")
SPREAD = 4  # blocks that are tried of each kind

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
    residual, batch = check_stream(model, prompts)
    return SelfCheck(residual, batch, check_logits(model, prompts))


def check_stream(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Of self_check what looks inside: for whatever reads or moves the residual stream. Its `residual` and `batch`."""
    residual = _check_sites(model, prompts[0])
    tolerance = tolerance_of(model)
    lasts = [len(prompt) - 1 for prompt in prompts]
    with choices(model) as kept:
        alone = record_blocks(model, prompts, lasts, batch_tokens=1)
    with chosen(kept, sorted(map(len, prompts))):  # the order in which record_blocks runs prompts
        together = record_blocks(model, prompts, lasts, batch_tokens=10**9)
    batch = 0.0
    for layer in range(together.shape[1]):
        gap = max(_gap(*pair) for pair in zip(together[:, layer], alone[:, layer], strict=True))
        if not gap <= tolerance:
            raise Unmeasurable(f"self-check: block {layer} differs between a padded batch and one prompt (by {gap:.2g})")
        batch = max(batch, gap)
    return residual, batch


def check_logits(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> float:
    """Of self_check what every model must pass, of whose inside nothing is known too: its `logits`."""
    tokens = [prompt[-1:] for prompt in prompts]
    with choices(model) as kept:
        alone = record_logits(model, prompts, tokens, batch_tokens=1)
    if not alone.isfinite().all():
        raise Unmeasurable(
            f"self-check: {_not_finite(model, prompts)} not finite in {model.dtype}: try another --mechdrift-dtype"
        )
    with chosen(kept, sorted(map(len, prompts))):  # the order in which record_logits runs prompts
        batched = record_logits(model, prompts, tokens, batch_tokens=10**9)
    if not (logits := _gap(batched, alone)) <= tolerance_of(model):
        raise Unmeasurable(f"self-check: logits differ between a padded batch and one prompt (by {logits:.2g})")
    return logits


def _not_finite(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> str:
    """The first block whose output is not, where the blocks are known."""
    try:
        runs = [_entering(model, prompt)[0] for prompt in prompts]
    except Unmeasurable:
        return "logits are"
    layers = [layer for run in runs for layer, entered in enumerate(run[1:]) if not entered.isfinite().all()]
    return f"block {min(layers)} is" if layers else "logits are"


def tolerance_of(model: "PreTrainedModel") -> float:
    """What another batch shape may change in this model's precision."""
    return TOLERANCE[str(model.dtype).removeprefix("torch.")]


def why_whole(model: "PreTrainedModel", what: str, gap_of: Callable[[], float]) -> str:
    """Why a fast way may not be taken with this model, and whole forwards must be; empty where it may.

    gap_of: its largest difference from whole forwards, found by running it. It calls a family's code otherwise than transformers
    does, with a prefix in a plain cache or several prompts in one sequence: what that code raises is no fault of the model.
    """
    try:
        gap = gap_of()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"{what} cannot be run ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    return "" if gap <= tolerance_of(model) else f"{what} moves what it computes by {gap:.2g}"


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
        block = Unembedding(mlp, streams_of(recorded, width_of(model), len(neurons)), neurons)
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

    entered: dict[nn.Module, Tensor] = {}  # nanochat's norm runs before the blocks too: what it is given last counts
    places = [*blocks(model), final_norm(model)]

    def enter(module: "nn.Module", args: tuple[Any, ...], more: dict[str, Any]) -> None:
        entered[module] = entering(args, more)[0].detach().float().clone()

    handles = [place.register_forward_pre_hook(enter, with_kwargs=True) for place in places]
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=input_device(model))
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=last_only(model)).logits
    finally:
        for handle in handles:
            handle.remove()
    return [entered[place] for place in places], logits[0, -1].float()


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

    def enter(module: "nn.Module", args: tuple[Any, ...], more: dict[str, Any]) -> None:
        entered[module] = entering(args, more).detach().cpu()  # blocks may lie on several devices

    def leave(module: "nn.Module", _args: Any, output: Any) -> None:
        left[module] = stream(output).detach().clone().cpu()  # Falcon adds into what its MLP gave

    handles = [place.register_forward_pre_hook(enter, with_kwargs=True) for place in (*layers, norm)]
    handles += [place.register_forward_hook(leave) for layer in layers for place in (layer, *writes(model, layer))]
    handles.append(norm.register_forward_hook(leave))
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=input_device(model))
            states = model.get_decoder()(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    finally:
        for handle in handles:
            handle.remove()
    if states is None:  # a family that gives none: that each output enters the next block is then all there is
        states = [entered[place] for place in layers] + [left[norm]]
    if len(states) == len(layers) + 1 and torch.equal(left[layers[0]], states[0].cpu()):
        states = [entered[layers[0]], *states[:-2], states[-1]]  # Mamba lists what leaves its blocks, not what enters them
    if len(states) != len(layers) + 1:
        raise Unmeasurable(f"self-check: {len(layers)} blocks found where transformers has {len(states) - 1}")
    largest = 0.0
    for layer, one in enumerate(structure_of(model).blocks):
        block = one.module
        terms = [entered[block], *(left[place] for place in one.writes)]
        factors = [one.scale, *[one.scale * one.factor] * len(one.writes)]
        if not left[block].isfinite().all():
            raise Unmeasurable(f"self-check: block {layer} is not finite in {model.dtype}: try another --mechdrift-dtype")
        gap = sum_error(left[block], terms, factors)
        tolerance = one.tolerance(torch.finfo(model.dtype).eps)
        if not gap <= tolerance:
            raise Unmeasurable(
                f"self-check: block {layer} is not its input plus what {' and '.join(one.names)} write "
                f"(off by {gap:.2g} of them, tolerance {tolerance:.2g})"
            )
        if not torch.equal(entered[block], states[layer].cpu()):
            raise Unmeasurable(f"self-check: what enters block {layer} is not what transformers has there")
        largest = max(largest, gap)
    if not torch.equal(left[layers[-1]], entered[norm]) or not torch.equal(left[norm], states[-1].cpu()):
        raise Unmeasurable(f"self-check: the final norm is not where block {len(layers) - 1} ends")
    return largest


def require_whole_state(model: "PreTrainedModel", prompt: Sequence[int]) -> None:
    """Check that the stream is all that passes from block to block: with another prompt's put in, the logits are that one's.

    Needed by what takes a block's output for all that the model has there, as activation patching does. Keys that later blocks
    share, or embeddings that go around the blocks, would be left of the first. Tried at some blocks of every kind, on the
    prompt's first LONGEST tokens and their reverse. Raises Unmeasurable with the block and the share that did not arrive.
    """
    import torch

    layers = blocks(model)
    ids = torch.tensor([list(prompt)[:LONGEST]], device=input_device(model))
    outputs: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda _module, _args, output: outputs.__setitem__(layer, stream(output).clone())

    def put(layer: int) -> Callable[..., Any]:
        return lambda _module, _args, output: with_stream(output, outputs[layer])

    def logits(tokens: "Tensor", hooks: dict[int, Callable[..., Any]]) -> "Tensor":
        handles = [layers[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
        try:
            with torch.inference_mode():
                return model(input_ids=tokens, use_cache=False, logits_to_keep=last_only(model)).logits[0, -1].float()
        finally:
            for handle in handles:
                handle.remove()

    plain = logits(ids, {})
    other = logits(ids.flip(1), {layer: keep(layer) for layer in _some_of_each(model)})
    if torch.equal(plain, other):
        return  # a prompt of one token, or of one that repeats
    for layer in outputs:
        left = _gap(logits(ids, {layer: put(layer)}), other)
        if not left <= tolerance_of(model):
            raise Unmeasurable(
                f"the residual stream after block {layer} is not the whole state: with another prompt's put there, the logits "
                f"are off that one's by {left:.2g} of the largest{_side_channels(model)}"
            )


def _side_channels(model: "PreTrainedModel") -> str:
    """What a config names that goes around the stream."""
    config = model.config.get_text_config(decoder=True)
    named = [f"{name} {value}" for name in AROUND if (value := getattr(config, name, None))]
    return f" (its config has {' and '.join(named)})" if named else ""


def _some_of_each(model: "PreTrainedModel") -> list[int]:
    """The first and the middle block, and some of each kind: of one class, and of one entry in the config's layer_types."""
    layers = blocks(model)
    types = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or [""] * len(layers)
    kinds: dict[tuple[type, str], list[int]] = {}
    for layer, (module, kind) in enumerate(zip(layers, types, strict=False)):
        kinds.setdefault((type(module), str(kind)), []).append(layer)
    chosen = {0, len(layers) // 2}
    for of_kind in kinds.values():
        chosen |= {of_kind[round(at * (len(of_kind) - 1) / (SPREAD - 1))] for at in range(SPREAD)}
    return sorted(chosen)
