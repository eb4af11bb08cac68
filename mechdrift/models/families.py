"""The families that are read: where their blocks are, and what a block adds to the residual stream."""

from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mechdrift.errors import InputError, Unmeasurable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """Names of the modules that transformers builds for a family."""

    writes: tuple[str, ...]
    """Modules of a block whose outputs are added to the residual stream, and nothing else is."""
    factor: float = 1.0
    """By which what is written is multiplied before it is added."""
    blocks: str = "layers"
    """The decoder's list of blocks."""
    norm: str = "norm"
    """The decoder's final norm."""
    last: tuple[str, ...] = ()
    """In a block, the matrices that end a write, as far as it has them; none where a norm comes after them."""
    experts: bool = False
    """Whether blocks may be mixtures of experts."""


PRE_NORM = Family(writes=("self_attn", "mlp"), last=("self_attn.o_proj", "mlp.down_proj"))
# What attention and MLP compute goes through a norm of its own before it is added.
POST_NORM = Family(writes=("post_attention_layernorm", "post_feedforward_layernorm"))
# A block may be dense, so both are looked for; a block's experts lie in one tensor.
EXPERTS = replace(PRE_NORM, last=(*PRE_NORM.last, "mlp.experts.down_proj"), experts=True)

FAMILIES = {
    "gemma2": POST_NORM,
    "gemma3_text": POST_NORM,
    "gpt2": Family(writes=("attn", "mlp"), last=("attn.c_proj", "mlp.c_proj"), blocks="h", norm="ln_f"),
    "gpt_neox": Family(
        writes=("attention", "mlp"),
        last=("attention.dense", "mlp.dense_4h_to_h"),
        norm="final_layer_norm",
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


GROUP = "mechdrift.families"
"""Entry points of packages that know a family better than it is found: named by model_type, each a Family."""


def listed(model_type: str) -> Family | None:
    """The family's row of the table, an installed package's before ours; None for one that has to be found on the model."""
    return _packaged(model_type) or FAMILIES.get(model_type)


@cache
def _packaged(model_type: str) -> Family | None:
    point = next((point for point in entry_points(group=GROUP) if point.name == model_type), None)
    if point is None:
        return None
    family = point.load()
    if not isinstance(family, Family):
        raise InputError(f"{GROUP}: {point.value} is no Family", "mechdrift.models.families.Family", "fix or remove that package")
    return family


def family_of(model: "PreTrainedModel") -> Family:
    """The model's row of the table. Raises Unmeasurable for one that is not in it."""
    text = model.config.get_text_config(decoder=True)
    for name in (model.config.model_type, text.model_type):
        if family := listed(name):
            return family
    known = ", ".join(sorted(FAMILIES))
    raise Unmeasurable(f"family {text.model_type!r}: which matrices end a write is listed for {known} only: ablate by hooks")
