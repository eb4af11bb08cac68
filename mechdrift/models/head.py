"""From the final norm to the logits: found on the model itself, by one forward of a few tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.errors import Unmeasurable
from mechdrift.models.once import once_a_model
from mechdrift.models.sites import final_norm, stream
from mechdrift.models.structure import probe_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOLERANCE = 8.0
"""In eps of the dtype, of the largest logit: what a factor, a cap and their rounding may differ by. Seen: 2.0."""


@dataclass(frozen=True)
class Head:
    """Logits are cap * tanh(factor * W x / cap), x what the final norm gives; without a cap factor * W x."""

    factor: float
    """Granite divides, Cohere multiplies its logits."""
    cap: float | None
    """Of soft-capped logits."""

    def logits(self, products: "Tensor") -> "Tensor":
        """Of the products of the head's matrix, its bias added."""
        scaled = products if self.factor == 1.0 else products * self.factor
        return scaled if self.cap is None else (scaled / self.cap).tanh() * self.cap


@once_a_model
def head_of(model: "PreTrainedModel") -> Head:
    """What lies between the final norm and the logits. Raises Unmeasurable where it is not one matrix, a factor and a cap."""
    import torch

    head: Any = model.get_output_embeddings()
    if head is None:
        raise Unmeasurable("no head: transformers names no output embeddings")
    left: list[Tensor] = []
    handle = final_norm(model).register_forward_hook(lambda _module, _args, output: left.append(stream(output)))
    try:
        with torch.inference_mode():
            logits = model(input_ids=probe_ids(model), use_cache=False).logits[0].float()
    finally:
        handle.remove()
    if left[-1].shape[-1] != getattr(head, "in_features", left[-1].shape[-1]):
        raise Unmeasurable("something lies between the final norm and the head: their widths differ")
    with torch.inference_mode():
        products = head(left[-1].to(head.weight.device))[0].float().to(logits.device)
    given = getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    cap = float(given) if given else None
    factor = _factor(products, logits, cap)
    bound = TOLERANCE * torch.finfo(model.dtype).eps * float(logits.abs().max())
    for found in (Head(1.0, cap), Head(factor, cap)):
        if logits.shape == products.shape and float((found.logits(products) - logits).abs().max()) <= bound:
            return found
    raise Unmeasurable("the logits are not the head's matrix on what the final norm gives, times one factor")


def _factor(products: "Tensor", logits: "Tensor", cap: float | None) -> float:
    """By which the head's products are nearest to the logits, before their cap."""
    import torch

    if products.shape != logits.shape:
        return 1.0
    wanted = logits.double()
    if cap is not None:
        wanted = torch.atanh((wanted / cap).clamp(-0.99, 0.99)) * cap
    return float((products.double() * wanted).sum() / products.double().square().sum())
