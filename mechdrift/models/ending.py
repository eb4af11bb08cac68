"""The last block's MLP: which matrix its neurons write by, and the norm after it; found on the model itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.errors import Unmeasurable
from mechdrift.models.once import once_a_model
from mechdrift.models.sites import entering, stream, with_entering, with_stream
from mechdrift.models.structure import Block, probe_ids, structure_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Ending:
    """How the last block ends."""

    down: "nn.Module"
    """The matrix from the MLP's neurons to what it writes."""
    after: "nn.Module | None"
    """The norm that what is written goes through before it is added; None in pre-norm families."""
    factor: float
    """By which what is added is multiplied."""


@once_a_model
def ending_of(model: "PreTrainedModel") -> Ending:
    """How the last block ends. Raises Unmeasurable where no one matrix gives what its MLP writes.

    The MLP is the one write of the block that looks at its own token alone; its matrix gives what the write adds, or is given.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    block = structure_of(model).blocks[-1]
    entered: dict[nn.Module, Tensor] = {}
    left: dict[nn.Module, Tensor] = {}

    def leave(module: "nn.Module", args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], torch.Tensor):
            entered[module] = args[0].detach().clone()
        if isinstance(first := stream(output), torch.Tensor):
            left[module] = first.detach().clone()

    _forward(model, [(module, leave) for module in block.module.modules()])
    mixes = mixing(model, len(structure_of(model).blocks) - 1)
    own = [write for write, mixed in zip(block.writes, mixes, strict=True) if not mixed]
    if len(own) != 1:
        raise Unmeasurable(f"the last block has {len(own)} writes that look at their own token alone, not one MLP")
    write = own[0]
    matrices = [module for module in block.module.modules() if isinstance(module, torch.nn.Linear | Conv1D) and module in left]
    for wanted, after in ((left[write], None), (entered.get(write), write)):
        for matrix in matrices:
            if wanted is not None and matrix is not after and _same(left[matrix], wanted):
                return Ending(matrix, after, block.scale * block.factor)
    raise Unmeasurable("the last MLP is a mixture of experts, or else no single matrix: which neurons write depends on the token")


def mixing(model: "PreTrainedModel", layer: int) -> list[bool]:
    """Of each write of a block whether it looks at tokens before its own.

    The stream that enters is changed at all tokens but the last; a write that then gives the last token something else mixes
    tokens. Writes before it are held at what they were: an MLP would be moved by them.
    """
    import torch

    block = structure_of(model).blocks[layer]
    plain: list[Tensor] = []
    order: list[nn.Module] = []

    def keep(module: "nn.Module", _args: Any, output: Any) -> None:
        order.append(module)
        plain.append(stream(output).detach().clone())

    _forward(model, [(write, keep) for write in block.writes])
    mixes: dict[nn.Module, bool] = {}
    for number, write in enumerate(order):
        moved: list[Tensor] = []

        def look(_module: "nn.Module", _args: Any, output: Any, moved: "list[Tensor]" = moved) -> None:
            moved.append(stream(output).detach().clone())

        hooks: list[tuple[nn.Module, Any]] = [(write, look)]
        for earlier, before in zip(order[:number], plain, strict=False):
            hooks.append((earlier, lambda _module, _args, output, before=before: with_stream(output, before)))
        with _others_before(block):
            _forward(model, hooks)
        last, found = (each.reshape(-1, each.shape[-1])[-1].float() for each in (plain[number], moved[0]))
        mixes[write] = bool((last - found).abs().max() > torch.finfo(model.dtype).eps * 8 * last.abs().max())
    return [mixes[write] for write in block.writes]


@contextmanager
def _others_before(block: Block) -> Iterator[None]:
    """Inside, the block is given other states at all tokens but the last: another order alone attention may not see."""
    import torch

    def enter(_module: "nn.Module", args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        states = entering(args, more)
        return with_entering(args, more, torch.cat([states[:, :-1].roll(1, -1), states[:, -1:]], dim=1))

    handle = block.module.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _forward(model: "PreTrainedModel", hooks: "list[tuple[nn.Module, Any]]") -> None:
    import torch

    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        with torch.inference_mode():
            model.get_decoder()(input_ids=probe_ids(model), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def _same(one: "Tensor", other: "Tensor") -> bool:
    import torch

    return one.numel() == other.numel() and torch.equal(one.reshape(-1), other.reshape(-1))
