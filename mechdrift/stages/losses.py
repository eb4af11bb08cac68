"""What a recorded stage made small, so that its steps can be taken again. Others come by the entry points mechdrift.losses."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Forward = Callable[..., "Tensor"]
"""The model's logits [row, token, vocabulary] of named inputs."""
StageLoss = Callable[[Forward, Mapping[str, "Tensor"], float | None], "Tensor"]
"""Of one forward's inputs: the sum over its items divided by the number of items that is given, or their mean where none is."""
GROUP = "mechdrift.losses"
CAUSAL_LM = "causal-lm"
IGNORED = -100  # of labels, as in transformers


def causal_lm(forward: Forward, batch: Mapping[str, "Tensor"], items: float | None) -> "Tensor":
    """Cross entropy of the next token.

    batch: `labels` [row, token], -100 where none is asked, each the token at its own place; or `targets` [row, token], each the
    token that follows, with `weights` of the same shape. All else is the model's own input.
    """
    import torch

    inputs = {name: value for name, value in batch.items() if name not in ("labels", "targets", "weights")}
    logits = forward(**inputs).float()
    if "targets" in batch:
        targets, weights = batch["targets"], batch["weights"].flatten()
    else:
        targets = torch.nn.functional.pad(batch["labels"], (0, 1), value=IGNORED)[:, 1:]
        weights = (targets != IGNORED).flatten().to(logits.dtype)
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return (each * weights).sum() / (weights.sum() if items is None else items)


LOSSES: dict[str, StageLoss] = {CAUSAL_LM: causal_lm}


def loss_named(name: str) -> StageLoss:
    """Raises InputError for a name that nobody registered."""
    if name in LOSSES:
        return LOSSES[name]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        known = ", ".join(sorted({*LOSSES, *others}))
        raise InputError(f"the loss {name!r}", f"one of {known}", f"install the package that registers it under {GROUP}")
    try:
        found: Any = others[name].load()
    except Exception as error:
        raise InputError(f"the loss {name!r} of {others[name].value}: {error!r}", "a function", "mend the package") from error
    loss: StageLoss = found
    return loss
