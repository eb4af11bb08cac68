"""The families that are read: where their blocks are, and what a block adds to the residual stream."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """Names of the modules that transformers builds for a family."""

    writes: tuple[str, ...]
    """Modules of a block whose outputs are added to the residual stream, and nothing else is."""
    blocks: str = "layers"
    """The decoder's list of blocks."""
    norm: str = "norm"
    """The decoder's final norm."""
    last: tuple[str, ...] = ()
    """In a block, the matrices that end a write, as far as it has them; none where a norm comes after them."""
    router: str = ""
    """In a block's MLP, what chooses its experts; blocks without one are dense."""
    down: str = "mlp.down_proj"
    """In a dense block, the matrix from the MLP's neurons to what it writes."""
    gain_offset: float = 0.0
    """What a norm adds to its weight to get its gain."""


PRE_NORM = Family(writes=("self_attn", "mlp"), last=("self_attn.o_proj", "mlp.down_proj"))
# What attention and MLP compute goes through a norm of its own before it is added.
POST_NORM = Family(writes=("post_attention_layernorm", "post_feedforward_layernorm"))
# A block may be dense, so both are looked for; a block's experts lie in one tensor.
EXPERTS = replace(PRE_NORM, last=(*PRE_NORM.last, "mlp.experts.down_proj"), router="gate")

FAMILIES = {
    "gemma2": replace(POST_NORM, gain_offset=1.0),
    "gemma3_text": replace(POST_NORM, gain_offset=1.0),
    "gpt2": Family(writes=("attn", "mlp"), last=("attn.c_proj", "mlp.c_proj"), blocks="h", norm="ln_f", down="mlp.c_proj"),
    "gpt_neox": Family(
        writes=("attention", "mlp"),
        last=("attention.dense", "mlp.dense_4h_to_h"),
        norm="final_layer_norm",
        down="mlp.dense_4h_to_h",
    ),
    "llama": PRE_NORM,
    "mistral": PRE_NORM,
    "mixtral": EXPERTS,
    "olmo2": POST_NORM,
    "phi3": PRE_NORM,
    "qwen2": PRE_NORM,
    "qwen3": PRE_NORM,
    "qwen3_moe": EXPERTS,
}
"""By transformers' model_type."""


def family_of(model: "PreTrainedModel") -> Family:
    """The model's family. Raises Unmeasurable for one that is not in the table."""
    return family_by(model.config)


def family_by(config: "PreTrainedConfig") -> Family:
    """The family of a model with this config. Raises Unmeasurable for one that is not in the table."""
    name = config.model_type
    if name in FAMILIES:
        return FAMILIES[name]
    if text := getattr(config, "text_config", None):
        raise Unmeasurable(f"family {name!r} reads more than text: save its text model ({text.model_type}) by itself")
    raise Unmeasurable(f"family {name!r} is not among those checked: {', '.join(sorted(FAMILIES))}")
