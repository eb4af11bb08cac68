"""Names of places: blocks in the residual stream, tokens in a prompt."""

from typing import TYPE_CHECKING, Any

from mechdrift.errors import Unmeasurable
from mechdrift.models.families import family_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def site_name(layer: int, position: str) -> str:
    """For example `resid_post[4] @ period`: the output of block 4 at the token that ends the statement."""
    return f"resid_post[{layer}] @ {position}"


def blocks(model: "PreTrainedModel") -> "list[nn.Module]":
    """The decoder blocks in order. Raises Unmeasurable for a family that is not known."""
    return list(getattr(model.get_decoder(), family_of(model).blocks))


def final_norm(model: "PreTrainedModel") -> "nn.Module":
    """What the last block's output goes through before the head."""
    return getattr(model.get_decoder(), family_of(model).norm)


def writes(model: "PreTrainedModel", block: "nn.Module") -> "list[nn.Module]":
    """The modules of a block whose outputs are added to the residual stream."""
    return [getattr(block, name) for name in family_of(model).writes]


def down(model: "PreTrainedModel") -> "nn.Module":
    """The matrix from the last MLP's neurons to what it writes. Raises Unmeasurable for a mixture of experts."""
    family, block = family_of(model), blocks(model)[-1]
    if family.router and hasattr(block.mlp, family.router):
        raise Unmeasurable("the last MLP is a mixture of experts: which neurons write depends on the token; not defined there")
    return block.get_submodule(family.down)


def norm_after(model: "PreTrainedModel") -> "nn.Module | None":
    """What the last MLP's output goes through before it is added; None in pre-norm families."""
    family = family_of(model)
    return None if family.last else getattr(blocks(model)[-1], family.writes[-1])


def routers(model: "PreTrainedModel") -> "list[nn.Module]":
    """What chooses experts, block by block; none in a dense model."""
    name = family_of(model).router
    return [getattr(block.mlp, name) for block in blocks(model) if name and hasattr(block.mlp, name)]


def stream(output: Any) -> "Tensor":
    """The residual stream out of what a module returns: attention, and blocks of older transformers, return a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output: Any, states: "Tensor") -> Any:
    """What a module returns, with the residual stream replaced."""
    return (states, *output[1:]) if isinstance(output, tuple) else states
