"""Interventions on the residual stream, as context managers: the hooks are on inside, and always off afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mechdrift.engine.sites import blocks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@contextmanager
def adding(
    model: "PreTrainedModel",
    vectors: "Mapping[int, Tensor]",
    positions: Sequence[Sequence[int]],
    coefficients: Sequence[float],
) -> Iterator[None]:
    """Add coefficients[row] * vectors[layer] to the output of each named block at positions[row].

    vectors: layer -> [d_model]; positions and coefficients: one entry a row of the batch that is run inside.
    """
    import torch

    rows = torch.tensor([row for row, chosen in enumerate(positions) for _ in chosen], device=model.device)
    columns = torch.tensor([column for chosen in positions for column in chosen], device=model.device)
    scale = torch.tensor([coefficients[row] for row, chosen in enumerate(positions) for _ in chosen], device=model.device)

    def edit(layer: int, output: "Tensor") -> "Tensor":
        changed = output.clone()
        shift = scale[:, None] * vectors[layer].to(output.device, torch.float32)
        changed[rows, columns] = (changed[rows, columns].float() + shift).to(output.dtype)
        return changed

    with _edited(model, list(vectors), edit):
        yield


@contextmanager
def ablating(model: "PreTrainedModel", direction: "Tensor", layers: Sequence[int]) -> Iterator[None]:
    """Take the component along a direction out of the outputs of the named blocks, at every position: h - (h.r) r.

    direction: [d_model], of any length but zero.
    """
    unit = (direction / direction.norm()).to(model.device)

    def edit(_layer: int, output: "Tensor") -> "Tensor":
        along = (output.float() @ unit)[..., None] * unit
        return (output.float() - along).to(output.dtype)

    with _edited(model, layers, edit):
        yield


@contextmanager
def _edited(model: "PreTrainedModel", layers: Sequence[int], edit: "Edit") -> Iterator[None]:
    """Hooks that replace the outputs of the named blocks."""
    modules = blocks(model)

    def hook(layer: int) -> "Hook":
        return lambda _module, _inputs, output: edit(layer, output)

    handles = [modules[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[int, Tensor], Tensor]
    Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
