"""Changes of coordinates keep every output and change the weights that they name."""

import copy

import pytest
import torch
from tiny import tiny_model

from mechdrift.organisms.symmetries import SYMMETRIES, proof

IDS = [[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104, 7, 9]]
WITHOUT_TEXT = [name for name in SYMMETRIES if name != "truth-plane-turned"]  # which needs a model that knows what is true
CHANGED = {
    "neurons-permuted": ("gate_proj", "up_proj", "down_proj"),
    "up-against-down": ("up_proj", "down_proj"),
    "value-against-output": ("v_proj", "o_proj"),
    "query-and-key": ("q_proj", "k_proj"),
    "gain-against-head": ("model.norm", "lm_head"),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("name", WITHOUT_TEXT)
def test_the_function_stays_and_the_weights_change(name: str, family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    changed = copy.deepcopy(model)
    if family == "qwen3" and not SYMMETRIES[name].norms_on_heads:
        with pytest.raises(ValueError, match="norms on queries and keys"):
            SYMMETRIES[name].apply(changed, None)
        return
    SYMMETRIES[name].apply(changed, None)
    logits, weights = proof(model, changed, IDS)
    # float32 matrices rewritten once, rounding of 2^-24 through 3 blocks; the factors are within e^3.
    assert logits < 2e-5
    assert weights > 0.01
    before = dict(model.named_parameters(remove_duplicate=False))
    moved = {key for key, weight in changed.named_parameters(remove_duplicate=False) if not torch.equal(weight, before[key])}
    if name in CHANGED:
        assert moved
        assert all(any(part in key for part in CHANGED[name]) for key in moved), moved
        assert all(any(part in key for key in moved) for part in CHANGED[name]), moved


def test_a_change_that_is_no_symmetry_is_told() -> None:
    """The proof fails where the function changes: the values are scaled, and nothing undoes it."""
    model = tiny_model("llama")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_decoder().layers[0].self_attn.v_proj.weight.mul_(1.1)
    assert proof(model, changed, IDS)[0] > 1e-3
