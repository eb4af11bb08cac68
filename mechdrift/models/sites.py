"""Names of places: blocks in the residual stream, tokens in a prompt."""

import re
from typing import TYPE_CHECKING, Any

from mechdrift.models.structure import structure_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def site_name(layer: int, position: str) -> str:
    """For example `resid_post[4] @ period`: the output of block 4 at the token that ends the statement."""
    return f"resid_post[{layer}] @ {position}"


def blocks(model: "PreTrainedModel") -> "list[nn.Module]":
    """The decoder blocks in order. Raises Unmeasurable where they are not found."""
    return [block.module for block in structure_of(model).blocks]


def width_of(model: "PreTrainedModel") -> int:
    """d_model; of a model that reads more than text, its decoder's."""
    return int(model.config.get_text_config(decoder=True).hidden_size)


def final_norm(model: "PreTrainedModel") -> "nn.Module":
    """What the last block's output goes through before the head."""
    return structure_of(model).norm


def writes(model: "PreTrainedModel", block: "nn.Module") -> "list[nn.Module]":
    """The modules of a block whose outputs are added to the residual stream."""
    return list(next(one.writes for one in structure_of(model).blocks if one.module is block))


def routers(model: "PreTrainedModel") -> "list[nn.Module]":
    """What chooses experts, in order; none in a dense model. Transformers' own names: a gate or router of such a class."""
    return [
        module
        for name, module in model.get_decoder().named_modules()
        if name.rpartition(".")[2] in ("gate", "router") and re.search("router|gate|gating", type(module).__name__, re.IGNORECASE)
    ]


def entering(args: tuple[Any, ...], more: dict[str, Any]) -> "Tensor":
    """The residual stream out of what a block or a norm is given."""
    given: Tensor = args[0] if args else more["hidden_states"]
    return given


def with_entering(args: tuple[Any, ...], more: dict[str, Any], states: "Tensor") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a block is given, with the residual stream replaced."""
    return ((states, *args[1:]), more) if args else (args, more | {"hidden_states": states})


def stream(output: Any) -> "Tensor":
    """The residual stream out of what a module returns: attention, and blocks of older transformers, return a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output: Any, states: "Tensor") -> Any:
    """What a module returns, with the residual stream replaced."""
    return (states, *output[1:]) if isinstance(output, tuple) else states
