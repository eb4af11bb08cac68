"""What replies are generated for: arms, and the protocol that every backend follows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechdrift.checkpoints.config import load_config, require_known
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Ablated:
    """h - (h.r) r at every place of the residual stream and at all tokens."""

    direction: "np.ndarray"
    """r, float32 [d_model] of length 1."""

    def __post_init__(self) -> None:
        """Hold the direction to be one."""
        _require_unit(self.direction)


@dataclass(frozen=True, eq=False)
class Added:
    """h + c r at the output of one block and at all tokens."""

    direction: "np.ndarray"
    """r, float32 [d_model] of length 1."""
    layer: int
    """The block."""
    coefficient: float
    """c, in units of the stream."""

    def __post_init__(self) -> None:
        """Hold the direction to be one."""
        _require_unit(self.direction)


@dataclass(frozen=True, eq=False)
class Arm:
    """A model under one intervention, or as it is."""

    name: str
    """For example `own direction ablated`; no two arms of one call share it."""
    does: Ablated | Added | None = None
    """The intervention; None leaves the model as it is."""
    requested: tuple[int, ...] | None = None
    """Indices of the prompts that are replied to, in this order; None: all."""
    thinks: bool = True
    """Whether replies that begin with a thought go on until it is over."""

    def prompts(self, prompts: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Those of them that are asked."""
        return prompts if self.requested is None else [prompts[index] for index in self.requested]


def require_fitting(checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
    """Raise InputError where there is nothing to reply to, for a token that is unknown, and for a prompt that is too long."""
    if not prompts or not all(prompts):
        raise InputError(f"{checkpoint.spec}: no prompt, or an empty one", "at least one token a prompt", "check the prompts")
    require_known(checkpoint, prompts)
    context = context_of(checkpoint)
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    if context is not None and len(prompts[longest]) + new_tokens > context:
        raise InputError(
            f"{checkpoint.spec}: prompt {longest} of {len(prompts[longest])} tokens and a reply of {new_tokens}",
            f"at most its context of {context} together",
            "shorten the prompt",
        )


def context_of(checkpoint: Checkpoint) -> int | None:
    """Tokens that a checkpoint reads at most; None where its config says nothing of it."""
    context: int | None = getattr(load_config(checkpoint).get_text_config(decoder=True), "max_position_embeddings", None)
    return context


def until_end(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first that ends a reply."""
    return list(tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))])


def _require_unit(direction: "np.ndarray") -> None:
    """Raise ValueError unless the direction has length 1."""
    length = float((direction.astype("float64") ** 2).sum()) ** 0.5
    if not abs(length - 1) < 1e-4:  # float32 of a division by the length is off by 1e-7
        raise ValueError(f"a direction of length {length:g}, not 1")
