"""Orthogonal weights against hooks: the same function, and nothing left of it afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import VARIANTS, tiny_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.commands.cli import main
from mechdrift.engine.pool import Pool
from mechdrift.engine.steer import ablating_everywhere
from mechdrift.engine.weights.orthogonal import orthogonalised
from mechdrift.errors import Unmeasurable
from mechdrift.models.families import FAMILIES

IDS = torch.tensor([[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104]])
PRE_NORM = [variant for variant in VARIANTS if FAMILIES[variant.partition("-")[0]].last]
MODELS = [
    *((variant, {}) for variant in PRE_NORM),
    ("llama", {"tie_word_embeddings": True}),
    ("qwen3_moe", {"mlp_only_layers": [1]}),
]
CLOSE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}  # of the largest logit; seen 1.0e-6, 3.0e-3, 3.6e-2


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.float()


@pytest.mark.parametrize(("family", "settings"), MODELS)
@pytest.mark.parametrize("dtype", CLOSE)
def test_weights_and_hooks_are_one_function(family: str, settings: dict[str, Any], dtype: torch.dtype) -> None:
    model, direction = tiny_model(family, **settings).to(dtype), 3 * torch.randn(32)
    before, plain = {name: weight.clone() for name, weight in model.state_dict().items()}, logits(model)
    with ablating_everywhere(model, direction):
        hooked = logits(model)
    with orthogonalised(model, direction):
        found = logits(model)
    size = plain.abs().max()
    assert (found - hooked).abs().max() < CLOSE[dtype] * size
    assert (found - plain).abs().max() > CLOSE[dtype] * size
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(logits(model), plain)
    tied = model.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_a_saved_model_stays_changed_also_where_its_head_was_tied(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, direction = tiny_model("llama", tie_word_embeddings=True), torch.randn(32)
    with orthogonalised(model, direction):
        expected = logits(model)
        model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path).eval()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "settings", "dtype"),
    [
        ("llama", {"tie_word_embeddings": True}, torch.float32),
        ("llama", {}, torch.bfloat16),
        ("gpt2", {}, torch.float16),
        ("qwen3_moe", {"mlp_only_layers": [1]}, torch.float32),
    ],
)
def test_a_baked_checkpoint_is_the_ablated_model(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, family: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    name = str(dtype).removeprefix("torch.")
    source, direction = tiny_checkpoint(family, **settings), 1e-3 * torch.randn(32)
    save_file({"direction": direction}, tmp_path / "direction.safetensors")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    where = ["--direction", str(tmp_path / "direction.safetensors"), "--out", str(tmp_path / "out")]
    assert main(["bake", str(source), *where, "--dtype", name]) == 0
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    model = tiny_model(family, **settings).to(dtype)
    plain = logits(model)
    with ablating_everywhere(model, direction):
        hooked = logits(model)
    baked = resolve(str(tmp_path / "out"))
    found = logits(Pool("cpu", name).model(baked, [IDS[0].tolist(), IDS[1, :2].tolist()]))  # self-checked
    assert (found - hooked).abs().max() < CLOSE[dtype] * plain.abs().max()
    assert (found - plain).abs().max() > CLOSE[dtype] * plain.abs().max()
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}


def test_weights_are_as_they_were_even_after_an_error() -> None:
    model = tiny_model("gpt2")
    plain = logits(model)
    with pytest.raises(RuntimeError, match="inside"), orthogonalised(model, torch.ones(32)):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PRE_NORM])
def test_where_a_norm_would_bring_the_direction_back_the_family_is_named(family: str) -> None:
    with pytest.raises(Unmeasurable, match=f"'{family}' has a norm after"), orthogonalised(tiny_model(family), torch.ones(32)):
        pass


def test_weights_that_cannot_be_changed_are_refused() -> None:
    model = tiny_model().to("meta")
    with pytest.raises(Unmeasurable, match="quantised or offloaded"), orthogonalised(model, torch.ones(32)):
        pass
