"""What a recorded stage made small, so that its steps can be taken again. Others come by the entry points mechdrift.losses."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Forward = Callable[..., "Tensor"]
"""The model's logits [row, token, vocabulary] of named inputs."""
StageLoss = Callable[..., "Tensor"]
"""Of (forward, batch, items, **settings): batch has one forward's tensors; the sum over its items divided by `items`, the number
of them in the whole step, or their mean where that is None; settings as they were recorded."""
GROUP = "mechdrift.losses"
CAUSAL_LM, DPO = "causal-lm", "dpo"
OF_PAIRS = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
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


def dpo(
    forward: Forward, batch: Mapping[str, "Tensor"], _items: float | None, *, beta: float, sigmoid: float = 1.0, sft: float = 0.0
) -> "Tensor":
    """Direct preference optimisation (Rafailov et al. 2023): mean over pairs of -log sigmoid(beta * gain).

    batch: `input_ids` and `completion_mask` [row, token], chosen rows first, then as many rejected ones; `ref_chosen_logps` and
    `ref_rejected_logps` [pair], of the reference. gain: the chosen one's log probability over the reference's, less the rejected
    one's. sigmoid: weight of that; sft: of the chosen completions' mean cross entropy.
    """
    import torch

    inputs = {name: value for name, value in batch.items() if name not in OF_PAIRS}
    each, requested = completion_logps(forward(**inputs), batch["input_ids"], batch["completion_mask"])
    chosen, rejected = each.sum(1).chunk(2)
    gain = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
    preferred = -torch.nn.functional.logsigmoid(beta * gain).mean()
    summary = -each.chunk(2)[0].sum() / requested.chunk(2)[0].sum()
    return sigmoid * preferred + sft * summary


def completion_logps(logits: "Tensor", ids: "Tensor", mask: "Tensor") -> "tuple[Tensor, Tensor]":
    """Log probability of every token of completions, given those before it, 0 of others; and which they are; [row, token - 1]."""
    requested = mask[:, 1:].to(logits.dtype)
    each = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return each * requested, requested


LOSSES: dict[str, StageLoss] = {CAUSAL_LM: causal_lm, DPO: dpo}


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
        raise InputError(f"the loss {name!r} of {others[name].value}: {error!r}", "a function", "fix the package") from error
    loss: StageLoss = found
    return loss
