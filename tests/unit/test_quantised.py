"""Quantised checkpoints: float8 is loaded really; of the others, what is missing here is named before weights are read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_layouts import WEIGHTS, Meant, describe, float8_blocks, rewrite
from safetensors.torch import load_file, save_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError
from mechdrift.models.load import load_model


@pytest.fixture
def float8(tiny_checkpoint: Callable[..., Path]) -> tuple[Path, Meant]:
    """A checkpoint in blocks of float8 with a scale each, and the values that they stand for."""
    folder = tiny_checkpoint(hidden_size=128, intermediate_size=256)
    meant = rewrite(folder, float8_blocks)
    return describe(folder, {"quant_method": "fp8", "weight_block_size": [128, 128]}), meant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_is_dequantised_on_a_cpu(float8: tuple[Path, Meant], dtype: torch.dtype) -> None:
    """By transformers, to the dtype that is requested: to bfloat16 within 2^-8 of each value."""
    folder, meant = float8
    checkpoint = resolve(str(folder))
    assert (checkpoint.quantised, checkpoint.exact_weights) == ("fp8, dequantised", False)
    model = load_model(checkpoint, dtype, "cpu")
    weights = model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {dtype}
    for name, expected in meant.items():
        torch.testing.assert_close(weights[name].double(), expected, rtol=2.0**-8, atol=0)
    with torch.inference_mode():
        assert model(torch.tensor([[0, 1, 2]])).logits.isfinite().all()


def test_float8_is_held_whole_by_its_load(float8: tuple[Path, Meant]) -> None:
    """Which tensors belong to rounded weights the method knows that reads them: a bias of zeros, as older ones wrote, passes."""
    folder, meant = float8
    sound, name = load_file(folder / WEIGHTS), next(iter(meant))
    zeros = {name.replace("weight", "bias"): torch.zeros(len(sound[name]))}
    save_file(sound | zeros, folder / WEIGHTS, {"format": "pt"})
    load_model(resolve(str(folder)), torch.float32, "cpu")
    save_file(sound | {"model.layers.0.more": torch.ones(2)}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors \(more\) have no place in a llama, first model\.layers\.0\.more"):
        load_model(resolve(str(folder)), torch.float32, "cpu")
    del sound["model.norm.weight"]
    save_file(sound, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors missing, first model\.norm\.weight"):
        load_model(resolve(str(folder)), torch.float32, "cpu")


def test_float8_that_is_nan_is_named(float8: tuple[Path, Meant]) -> None:
    folder, meant = float8
    tensors = load_file(folder / WEIGHTS)
    name = next(iter(meant))
    tensors[name].view(torch.uint8)[0, 0] = 0x7F
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=f"1 of .* weights of {name} are NaN"):
        resolve(str(folder))


MISSING = [
    (
        {"load_in_4bit": True, "load_in_8bit": False},
        "by bitsandbytes, and bitsandbytes not installed; .*; pip install bitsandbytes, or compare the unquantised original",
    ),
    (
        {"quant_method": "gptq", "bits": 4},
        "by gptq, and optimum and gptqmodel not installed; .*; pip install optimum gptqmodel, or",
    ),
    ({"quant_method": "awq", "bits": 4}, "by awq, and gptqmodel not installed; .*; pip install gptqmodel, or"),
    ({"quant_method": "compressed-tensors"}, "and compressed-tensors not installed; .*; pip install compressed-tensors, or"),
    ({"quant_method": "torchao", "quant_type": {"default": {}}}, "and torchao not installed; .*; pip install torchao, or"),
    ({"quant_method": "hqq"}, "and hqq not installed; .*; pip install hqq, or"),
    ({"quant_method": "quanto"}, "and optimum-quanto not installed; .*; pip install optimum-quanto, or"),
    (
        {"quant_method": "fbgemm_fp8"},
        "quantised by fbgemm_fp8, which runs on CUDA only; expected a CUDA GPU; use one, or compare the",
    ),
    ({"quant_method": "eetq"}, "quantised by eetq, which runs on CUDA only"),
    ({"quant_method": "spqr"}, "quantised by spqr, which runs on CUDA only"),
    (
        {"quant_method": "of my own"},
        "quantised by of my own, which transformers does not know; .*; compare the unquantised original",
    ),
]


@pytest.mark.parametrize("inside", ["", "text_config"])
@pytest.mark.parametrize(("settings", "message"), MISSING, ids=lambda value: str(value)[:30])
def test_what_a_method_lacks_is_named_before_weights_are_read(
    tiny_checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    message: str,
    inside: str,
) -> None:
    """Whatever is installed on the machine: as if nothing were."""
    monkeypatch.setattr("mechdrift.checkpoints.quantised.find_spec", lambda _name: None)
    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_weights", lambda *_: pytest.fail("weights were read"))
    folder = tiny_checkpoint()
    if inside:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({"model_type": "gemma3", "text_config": config | {"model_type": "gemma3_text"}})
        )
    with pytest.raises(InputError, match=message):
        resolve(str(describe(folder, settings, inside)))


def test_a_device_that_a_method_cannot_run_on_is_named_before_weights_are_loaded(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, by whoever asks for its CPU."""
    checkpoint = replace(resolve(str(folder := tiny_checkpoint())), quantised="eetq")
    describe(folder, {"quant_method": "eetq"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(InputError, match="quantised by eetq, which runs on CUDA only"):
        load_model(checkpoint, torch.float32, "cpu")
