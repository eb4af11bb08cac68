"""Mixtures of experts: rounding may choose another expert, which is no fault of a batch. So a batch can be given the choice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mechdrift.models.sites import routers

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

Choices = dict["nn.Module", list[tuple["Tensor", ...]]]


@contextmanager
def choices(model: "PreTrainedModel") -> Iterator[Choices]:
    """What the routers give out in the forwards run inside: for each router a list, one entry a forward."""
    kept: Choices = {router: [] for router in routers(model)}
    handles = [
        router.register_forward_hook(lambda module, _args, output: kept[module].append(_tensors(output))) for router in kept
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def chosen(kept: Choices, lengths: Sequence[int]) -> Iterator[None]:
    """Routers give row i of a batch padded on the right what they gave in the i-th forward that was kept.

    lengths: tokens of each row. Does nothing to a model without routers, or whose routers give anything but rows of tokens.
    """
    import torch

    tokens = len(lengths) * max(lengths)

    def replace(module: "nn.Module", _args: Any, output: Any) -> Any:
        if not all(isinstance(tensor, torch.Tensor) and tensor.shape[:1] == (tokens,) for tensor in _tensors(output)):
            return output
        batched = []
        for number, tensor in enumerate(_tensors(output)):
            rows = tensor.clone().view(len(lengths), max(lengths), -1)  # routers see all tokens in a row
            for row, (length, single) in enumerate(zip(lengths, kept[module], strict=True)):
                rows[row, :length] = single[number].view(length, -1)
            batched.append(rows.view_as(tensor))
        return tuple(batched) if isinstance(output, tuple) else batched[0]

    handles = [router.register_forward_hook(replace) for router in kept]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> "tuple[Tensor, ...]":
    """What a router gives: its scores, and in most families which experts and by how much."""
    return output if isinstance(output, tuple) else (output,)
