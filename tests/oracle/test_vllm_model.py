"""What is done to a model inside vLLM, done to transformers' own modules, whose names are the same: against our hooks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model, write_tiny

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import acting
from mechdrift.engine.generate.vllm_generator import arm_request
from mechdrift.engine.generate.vllm_model import intervene
from mechdrift.models.structure import structure_of

IDS = torch.tensor([[0, 5, 9, 200, 31, 77]])
R = np.random.default_rng(0).standard_normal(32).astype("f4")
R /= np.linalg.norm(R)
ADDED, PLAIN = Arm("added", Added(R, 1, 5.0)), Arm("plain")
# By weights in dense blocks without a norm behind them.
HOW = {"llama": "weights", "gpt_neox": "weights", "phi3": "weights", "gemma3_text": "hooks", "olmo2": "hooks", "mixtral": "hooks"}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize(("family", "how"), HOW.items())
@pytest.mark.parametrize("tied", [False, True])
def test_arms_are_put_on_one_after_the_other(tmp_path: Path, family: str, how: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    checkpoint = resolve(str(write_tiny(tmp_path, family, tie_word_embeddings=tied)))
    writes = [block.names for block in structure_of(model).blocks]
    before, plain = {name: weight.clone() for name, weight in model.state_dict().items()}, logits(model)
    expected = {}
    ablated = Arm("ablated", Ablated(R))
    for arm in (ablated, ADDED):
        with acting(model, arm):
            expected[arm.name] = logits(model)
        assert (expected[arm.name] - plain).abs().max() > 0.1
    for arm, form in ((ablated, how), (ADDED, "hooks"), (ablated, how), (PLAIN, "")):
        assert intervene(model, arm_request(checkpoint, arm, writes, hooks=True)) == form
        torch.testing.assert_close(logits(model), expected.get(arm.name, plain), rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert torch.equal(logits(model), plain)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


def test_packed_weights_are_left_to_hooks_and_without_hooks_to_nobody(tmp_path: Path) -> None:
    """As vLLM packs them on a CPU: what remains has no elements."""
    model, checkpoint = tiny_model(), resolve(str(write_tiny(tmp_path)))
    ablated, writes = Arm("ablated", Ablated(R)), [block.names for block in structure_of(model).blocks]
    model.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(torch.empty(0))
    assert intervene(model, arm_request(checkpoint, ablated, writes, hooks=True)) == "hooks"
    with pytest.raises(RuntimeError, match="packed"):
        intervene(model, arm_request(checkpoint, ablated, writes, hooks=False))
    with pytest.raises(RuntimeError, match="without hooks"):
        intervene(model, arm_request(checkpoint, ADDED, writes, hooks=False))
