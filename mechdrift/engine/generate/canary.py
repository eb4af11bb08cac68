"""Canaries: a few prompts on which another engine has to give transformers' own log-probabilities, under every arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.batched import acting
from mechdrift.errors import InterventionFailed, Unmeasurable
from mechdrift.models.devices import input_device

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

STEPS = 3  # tokens of a reply that are compared: the first is of the prompt's forward, the others of the engine's cached steps
TOP = 20  # tokens that are compared at each step: the engine's likeliest

# Largest difference of a log-probability, in nats. Seen on a CPU: in float32 2.3e-5, on random models of every family and on
# organism:instruct; in bfloat16, whose logits of 16 to 32 are multiples of 1/8, 0.25 there and 0.35 on SmolLM2-135M-Instruct.
TOLERANCE = {"float32": 1e-3, "float16": 0.075, "bfloat16": 0.6}
CLEAR = 2.0  # an intervention must move some log-probability by this many times what the engines differ by without one

Found = Sequence[tuple[Sequence[int], Sequence[dict[int, float]]]]  # of each prompt, tokens and log-probabilities step by step


@dataclass(frozen=True)
class Expected:
    """What transformers says after one prompt, under one arm."""

    tokens: list[int]
    """The likeliest, STEPS of them."""
    log_probs: "Tensor"
    """float32 [step, vocabulary] under the arm."""
    plain: "Tensor"
    """The same after the same tokens, without an intervention."""


def expect(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], arm: Arm) -> list[Expected]:
    """Run the canary prompts through transformers, by whole forwards under hooks."""
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        with acting(model, arm):
            for _ in range(STEPS):
                ids.append(int(_log_probs(model, ids, 1)[0].argmax()))
            seen = _log_probs(model, ids[:-1], STEPS)
        plain = seen if arm.does is None else _log_probs(model, ids[:-1], STEPS)
        expected.append(Expected(ids[-STEPS:], seen, plain))
    return expected


def check(spec: str, arm: Arm, found: Found, expected: Sequence[Expected], dtype: str, noise: float) -> float:
    """Hold what another engine says under an arm against transformers; the largest difference, in nats.

    noise: that difference without an intervention. Raises Unmeasurable where the engines differ without one, and where the
    intervention moves less than that; InterventionFailed where the engine runs another intervention, or none.
    """
    gap, effect = _gaps(found, expected)
    tolerance = TOLERANCE[dtype]
    if arm.does is None:
        if not gap <= tolerance:
            raise Unmeasurable(
                f"{spec}: vLLM is not the model that transformers loads: log-probabilities differ by {gap:.2g} nats, more than "
                f"{tolerance:g} in {dtype}; use --mechdrift-generator transformers"
            )
        return gap
    if not effect > CLEAR * noise:
        raise Unmeasurable(
            f"{spec}: {arm.name} moves log-probabilities by {effect:.2g} nats, and vLLM differs from transformers by {noise:.2g} "
            "without it: whether it works there is unknown; use --mechdrift-generator transformers, or float32"
        )
    allowed = min(tolerance, effect / CLEAR)
    if not gap <= allowed:
        raise InterventionFailed(
            f"{spec}: {arm.name} does not do in vLLM what it does in transformers: log-probabilities differ by {gap:.2g} nats, "
            f"more than {allowed:.2g}, where it moves them by {effect:.2g}"
        )
    return gap


def _gaps(found: Found, expected: Sequence[Expected]) -> tuple[float, float]:
    """Largest difference from transformers, and between transformers with and without the intervention, at the same tokens."""
    import torch

    gaps, effects = [], []
    for (tokens, steps), wanted in zip(found, expected, strict=True):
        for step, detail in enumerate(steps):
            if list(tokens[:step]) != wanted.tokens[:step]:  # another token was likeliest by a hair: no longer the same text
                break
            at = torch.tensor(list(detail))
            gaps.append((torch.tensor(list(detail.values())) - wanted.log_probs[step, at]).abs().max())
            effects.append((wanted.log_probs - wanted.plain)[step, at].abs().max())
    return float(torch.stack(gaps).max()), float(torch.stack(effects).max())


def _log_probs(model: "PreTrainedModel", ids: list[int], last: int) -> "Tensor":
    """Of the next token at the last positions: float32 [position, vocabulary] on the CPU."""
    import torch

    with torch.inference_mode():
        given = torch.tensor([ids], device=input_device(model))
        return model(input_ids=given, use_cache=False, logits_to_keep=last).logits[0].float().log_softmax(-1).cpu()
