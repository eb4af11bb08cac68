"""Interventions on the residual stream, as context managers: the hooks are on inside, and always off afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mechdrift.models.devices import input_device
from mechdrift.models.sites import blocks, entering, stream, with_entering, with_stream, writes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@contextmanager
def adding(
    model: "PreTrainedModel", layers: Sequence[int], shifts: "Tensor", positions: Sequence[Sequence[int]]
) -> Iterator[None]:
    """Add shifts[row] to the output of each named block at positions[row].

    shifts: [row, d_model], coefficients folded in; positions: token indices for every row of the batch that is run inside.
    """
    import torch

    device = input_device(model)
    rows = torch.tensor([row for row, chosen in enumerate(positions) for _ in chosen], device=device)
    columns = torch.tensor([column for chosen in positions for column in chosen], device=device)
    moves = shifts.to(device, torch.float32)[rows]

    def edit(output: "Tensor") -> "Tensor":
        changed = output.clone()
        at = (rows.to(output.device), columns.to(output.device))
        changed[at] = (changed[at].float() + moves.to(output.device)).to(output.dtype)
        return changed

    with _edited(model, layers, edit):
        yield


@contextmanager
def shifting(model: "PreTrainedModel", shift: "Tensor", layers: Sequence[int]) -> Iterator[None]:
    """Add a vector to the outputs of the named blocks at every position, so also at every token that is generated inside.

    shift: [d_model], its coefficient folded in.
    """
    moved = shift.to(input_device(model))

    def edit(output: "Tensor") -> "Tensor":
        return (output.float() + moved.to(output.device)).to(output.dtype)

    with _edited(model, layers, edit):
        yield


@contextmanager
def ablating(model: "PreTrainedModel", direction: "Tensor", layers: Sequence[int]) -> Iterator[None]:
    """Take the component along a direction out of the outputs of the named blocks, at every position: h - (h.r) r.

    direction: [d_model], of any length but zero.
    """
    with _edited(model, layers, _without(model, direction)):
        yield


@contextmanager
def ablating_everywhere(model: "PreTrainedModel", direction: "Tensor") -> Iterator[None]:
    """Take the component along a direction out of the whole residual stream: of the embedding and of all that blocks add to it.

    So it is in no block's input or output, and not between attention and MLP either. direction: [d_model], of any length but
    zero.
    """
    edit = _without(model, direction)
    layers = blocks(model)
    # What enters the first block is the sum of all embeddings, scaled where the family scales it.
    handles = [
        layers[0].register_forward_pre_hook(
            lambda _m, args, more: with_entering(args, more, edit(entering(args, more))), with_kwargs=True
        )
    ]
    handles += [
        place.register_forward_hook(lambda _m, _i, output: with_stream(output, edit(stream(output))))
        for layer in layers
        for place in writes(model, layer)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(model: "PreTrainedModel", direction: "Tensor") -> "Callable[[Tensor], Tensor]":
    """What takes the component out: h - (h.r) r in float32, wherever h lies."""
    given = (direction / direction.norm()).to(input_device(model))

    def edit(output: "Tensor") -> "Tensor":
        unit = given.to(output.device)  # blocks may lie on several devices
        along = (output.float() @ unit)[..., None] * unit
        return (output.float() - along).to(output.dtype)

    return edit


@contextmanager
def _edited(model: "PreTrainedModel", layers: Sequence[int], edit: "Callable[[Tensor], Tensor]") -> Iterator[None]:
    """Hooks that replace the outputs of the named blocks."""
    modules = blocks(model)
    handles = [
        modules[layer].register_forward_hook(lambda _m, _i, output: with_stream(output, edit(stream(output)))) for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
