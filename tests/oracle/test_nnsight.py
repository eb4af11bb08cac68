"""Steered forwards against nnsight, on random models of several families."""

import operator
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mechdrift.engine.steer import ablating, adding

# nnsight's own dependencies warn; its numbers are what is requested here.
pytestmark = pytest.mark.filterwarnings("default")
IDS = torch.tensor([[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104]])
# Both add the same float32 vectors to the same float32 outputs: nothing is left to round otherwise.
EXACT = {"rtol": 0.0, "atol": 1e-6}


@pytest.fixture(params=["llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "mixtral"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def traced_blocks(traced: Any) -> Any:
    """Their place in a trace, which goes by the names that transformers gives."""
    names = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
    return operator.attrgetter(names.get(traced.config.model_type, "model.layers"))(traced)


def test_addition_equals_nnsight(model: Any) -> None:
    from nnsight import NNsight

    vector = torch.randn(32)
    traced = NNsight(model)
    with torch.no_grad():
        plain = model(IDS).logits
        with traced.trace(IDS):
            for layer in (0, 1):
                traced_blocks(traced)[layer].output[0, [2, 4]] += vector
                traced_blocks(traced)[layer].output[1, 3] += -2 * vector
            expected = traced.output.logits.save()
        with adding(model, [0, 1], torch.stack([vector, -2 * vector]), [[2, 4], [3]]):
            found = model(IDS).logits
    assert (found - plain).abs().max() > 0.1, "the intervention changed something"
    torch.testing.assert_close(found, expected, **EXACT)


def test_ablation_equals_nnsight(model: Any) -> None:
    from nnsight import NNsight

    direction = torch.randn(32)
    unit = direction / direction.norm()
    traced = NNsight(model)
    with torch.no_grad():
        plain = model(IDS).logits
        with traced.trace(IDS):
            for layer in range(3):
                states = traced_blocks(traced)[layer].output
                traced_blocks(traced)[layer].output = states - (states @ unit)[..., None] * unit
            expected = traced.output.logits.save()
        with ablating(model, direction, range(3)):
            found = model(IDS).logits
    assert (found - plain).abs().max() > 0.1, "the intervention changed something"
    torch.testing.assert_close(found, expected, **EXACT)
