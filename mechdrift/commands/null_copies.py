"""Copies of a checkpoint that are as good as the checkpoint: null pairs that are not equal bit for bit."""

from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoints.copies import copied
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import weight_files

if TYPE_CHECKING:
    from torch import Generator, Tensor

STEPS = 2.0**-7
"""A step of bfloat16, relative to the power of two under a number."""
SHARE = 1 / 12
"""Of the weights that are moved by a step: the mean square of a move is then that of a rounding, 1/12 of a step squared."""


def jittered(point: Checkpoint, folder: Path, seed: int) -> Path:
    """Write a copy of a checkpoint whose weights moved as far as a rounding to bfloat16 moves them, and give its folder.

    Every weight moves with probability 1/12, by one step of bfloat16, up or down; zeros stay. So whatever dtype the weights are
    stored or loaded in, something moved, and as little as in a copy of another dtype. One file of weights is in memory at a
    time. A copy that is there is kept. Raises InputError for weights that are not floats of at least 16 bits in safetensors.
    """
    weights = weight_files(point.spec, point.folder)

    def write(path: Path, changed: Path) -> None:
        _write_jittered(path, changed, seed * 10**6 + weights.index(path))

    return copied(point, folder / f"{point.short}-jittered-{seed}", write, "give --rerun without copies: --copies 0")


def _write_jittered(path: Path, out: Path, seed: int) -> None:
    """One file of weights. Raises OSError."""
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in sorted(file.keys())}
        metadata = file.metadata()
    moved = {name: moved_by_steps(tensor, generator) if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    try:
        save_file(moved, out, metadata)
    except SafetensorError as error:
        raise OSError(0, str(error)) from error


def moved_by_steps(weights: "Tensor", generator: "Generator") -> "Tensor":
    """Each number of a tensor moved by a step of bfloat16 with probability SHARE, up or down; same shape and dtype."""
    import torch

    numbers = weights.double()
    _, exponent = torch.frexp(numbers)
    step = torch.ldexp(torch.full_like(numbers, STEPS / 2), exponent)  # frexp's mantissa is under 1, and 0 of 0
    drawn = torch.rand(numbers.shape, generator=generator)
    up_or_down = (drawn < SHARE / 2).double() - (drawn > 1 - SHARE / 2).double()
    return torch.where(numbers == 0, numbers, numbers + up_or_down * step).to(weights.dtype)
