"""What the headers of weight files say is stored in them, and which of it a model can do without."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mechdrift.checkpoints.shards import Tensor, tensors

BLOCK = 1 << 22  # elements in memory at a time
# TRL's value head, beside a policy that PPO trained: it reads the last block and writes nothing that a reply is made of.
VALUE_HEAD = re.compile(r"v_head\.")
# Constants that a model computes for itself; of families whose code once kept them and no longer names them.
COMPUTED = re.compile(
    r"(^|\.)(masked_bias|rotary_emb\.(inv_freq|cos_cached|sin_cached)|rope_(freqs|factors_long|factors_short)\.weight)$"
)
MASK = re.compile(r"\.(bias|causal_mask)$")  # of GPT-J and CodeGen, [1, 1, n, n]: the lower triangle
FLOAT8 = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


class Place(NamedTuple):
    """Where a tensor lies."""

    path: Path
    """Its file."""
    tensor: Tensor
    """As the file's header has it."""


Stored = Mapping[str, Place]
"""Tensors by name."""


def stored_in(weights: Iterable[Path]) -> Stored:
    """The tensors of a checkpoint's files. Reads headers only. Raises ValueError for a file that is no safetensors."""
    return {tensor.name: Place(path, tensor) for path in weights for tensor in tensors(path)}


def notes_on(spec: str, stored: Stored) -> tuple[str, ...]:
    """What is stored and not used, and a user should know: one sentence each."""
    heads = [name for name in stored if VALUE_HEAD.match(name)]
    return (f"{spec}: {len(heads)} tensors of a value head (v_head) are left out: replies do not need them",) if heads else ()


def has_float8(stored: Stored) -> bool:
    """Whether any tensor is stored in eight bits of floating point."""
    return any(place.tensor.dtype in FLOAT8 for place in stored.values())


def is_computed(name: str) -> bool:
    """Whether a tensor is a constant, which the model has without it."""
    return COMPUTED.search(name) is not None


def is_harmless(name: str, stored: Stored) -> bool:
    """Whether the model is the same without a tensor that has no place in it: a value head, a causal mask, or a bias of zeros.

    Such a bias is written by older quantisers to every matrix.
    """
    if VALUE_HEAD.match(name):
        return True
    if name not in stored:
        return False
    shape = stored[name].tensor.shape
    if MASK.search(name) and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]:
        return True
    return name.endswith(".bias") and _is_zero(stored[name])


def are_equal(stored: Stored, one: str, other: str) -> bool:
    """Whether two tensors have the same values, whatever their precision. Reads both, up to where they differ."""
    import torch
    from safetensors import safe_open

    first, second = stored[one], stored[other]
    if first.tensor.shape != second.tensor.shape:
        return False
    same = first.tensor.dtype == second.tensor.dtype
    with safe_open(first.path, "pt") as here, safe_open(second.path, "pt") as there:
        left, right = here.get_slice(one), there.get_slice(other)
        step = max(1, BLOCK // max(1, first.tensor.elements // max(1, first.tensor.shape[0])))
        for at in range(0, first.tensor.shape[0], step):
            pair = left[at : at + step], right[at : at + step]
            # As bytes: what is not finite is no other weight than itself.
            a, b = (part.contiguous().view(torch.uint8) if same else part.double() for part in pair)
            if not torch.equal(a, b):
                return False
    return True


def _is_zero(place: Place) -> bool:
    """Whether all its values are zero. Reads it."""
    from safetensors import safe_open

    with safe_open(place.path, "pt") as handle:
        return not bool(handle.get_tensor(place.tensor.name).any())
