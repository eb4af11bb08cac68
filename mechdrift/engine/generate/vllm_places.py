"""Where the residual stream is in a model inside vLLM, found on the model itself. Light: vLLM's own processes load it.

The blocks are the list of modules that is as long as the checkpoint is deep. Its blocks pass on either the stream, or (what MLP
wrote, the stream before it), whose sum is the stream: what is added to the first is added to the stream. Modules that write carry
the names that transformers gives them. Whether all that is so of a family is for the canaries to tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

OTHER_NAMES = {"mlp": ("block_sparse_moe", "feed_forward"), "self_attn": ("attn", "self_attention", "attention")}
"""What vLLM calls a module of transformers, where not the same: Mixtral's experts, for example."""
MISSING = "PPMissingLayer"
"""What vLLM puts in the place of a block that another process has."""


def blocks_of(model: Any, count: int) -> tuple[Any, list[Any]]:
    """The module that holds the decoder's blocks, and the blocks.

    Of several lists as long, as experts' or an image tower's may be: none that lies inside another, and of those left the one
    that holds most weights. Raises RuntimeError where there is none.
    """
    root = model.get_language_model() if hasattr(model, "get_language_model") else model
    lists = [
        (holder, each)
        for holder in root.modules()
        for each in holder.children()
        if isinstance(each, torch.nn.ModuleList) and len(each) == count
    ]
    inside = {module for _, each in lists for entry in each for module in entry.modules()}
    outer = [(holder, each) for holder, each in lists if each not in inside]
    if not outer:
        lengths = sorted({len(each) for each in root.modules() if isinstance(each, torch.nn.ModuleList)})
        raise RuntimeError(f"its model has no list of {count} blocks; its lists have {lengths} entries")
    holder, found = max(outer, key=lambda one: sum(weight.numel() for weight in one[1].parameters()))
    return holder, list(found)


def here(blocks: Sequence[Any]) -> list[tuple[int, Any]]:
    """The blocks of this process, with their numbers; the others lie in another one of a pipeline."""
    return [(number, block) for number, block in enumerate(blocks) if type(block).__name__ != MISSING]


def write_of(block: Any, name: str) -> Any:
    """A module whose output is added to the stream, by transformers' name of it. Raises RuntimeError where it has none."""
    first, _, rest = name.partition(".")
    for other in (first, *OTHER_NAMES.get(first, ())):
        if hasattr(block, other):
            inner = getattr(block, other)
            return inner.get_submodule(rest) if rest else inner
    has = ", ".join(child for child, _ in block.named_children())
    raise RuntimeError(f"its blocks have no {name!r}, which writes to the stream in transformers; they have {has}")


def embeddings_of(holder: Any) -> list[Any]:
    """What makes the stream's first state, of tokens and, in some families, of positions."""
    found = holder.children()  # rotary embeddings have no weight
    return [module for module in found if type(module).__name__.endswith("Embedding") and hasattr(module, "weight")]


def is_stream(value: Any, width: int) -> bool:
    """Whether a value may be the stream, or a part of it: numbers, d_model of them a token."""
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 1 and value.shape[-1] == width


def entering(args: tuple[Any, ...], named: Mapping[str, Any], width: int) -> int | str | None:
    """Which of a block's arguments is the stream: the first that may be; blocks differ in the order of theirs."""
    every: list[tuple[int | str, Any]] = [*enumerate(args), *named.items()]
    return next((place for place, value in every if is_stream(value, width)), None)
