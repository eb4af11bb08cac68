"""Quantised checkpoints: float8 is loaded really; of the others, what is missing here is named before weights are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError
from mechdrift.models.load import load_model

WEIGHTS = "model.safetensors"


def quantise(folder: Path, settings: dict[str, Any]) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


@pytest.fixture
def float8(tiny_checkpoint: Callable[..., Path]) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint in blocks of float8 with a scale each, and the values that they stand for."""
    folder = tiny_checkpoint(hidden_size=128, intermediate_size=256)
    tensors, meant = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        scale = torch.rand(-(-rows // 128), -(-columns // 128)) + 0.5
        wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
        packed = (tensors[name] / wide).to(torch.float8_e4m3fn)
        tensors |= {name: packed, f"{name}_scale_inv": scale}
        meant[name] = packed.float() * wide
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return quantise(folder, {"quant_method": "fp8", "weight_block_size": [128, 128]}), meant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_is_dequantised_on_a_cpu(float8: tuple[Path, dict[str, torch.Tensor]], dtype: torch.dtype) -> None:
    """By transformers, to bfloat16, so within 2^-8 of each value."""
    folder, meant = float8
    checkpoint = resolve(str(folder))
    assert (checkpoint.quantised, checkpoint.exact_weights) == ("fp8", False)
    model = load_model(checkpoint, dtype, "cpu")
    weights = model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {dtype}
    for name, expected in meant.items():
        torch.testing.assert_close(weights[name].float(), expected, rtol=2.0**-8, atol=0)
    with torch.inference_mode():
        assert model(torch.tensor([[0, 1, 2]])).logits.isfinite().all()


def test_float8_is_held_whole_by_its_load(float8: tuple[Path, dict[str, torch.Tensor]]) -> None:
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


def test_float8_that_is_nan_is_named(float8: tuple[Path, dict[str, torch.Tensor]]) -> None:
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
        "quantised by bitsandbytes, which cannot run here .*pip install -U bitsandbytes",
    ),
    ({"quant_method": "gptq", "bits": 4}, "quantised by gptq, which cannot run here .*pip install optimum"),
    ({"quant_method": "awq", "bits": 4}, "quantised by awq, which cannot run here .*pip install gptqmodel"),
    ({"quant_method": "compressed-tensors"}, "quantised by compressed-tensors, which cannot run here .*compressed.tensors"),
    ({"quant_method": "torchao", "quant_type": {"default": {}}}, "quantised by torchao, which cannot run here .*torchao"),
    ({"quant_method": "fbgemm_fp8"}, "quantised by fbgemm_fp8, which runs on CUDA only; expected a CUDA GPU"),
    ({"quant_method": "eetq"}, "quantised by eetq, which runs on CUDA only"),
    ({"quant_method": "of my own"}, "quantised by of my own, which cannot run here .*Unknown quantization type"),
]


@pytest.mark.parametrize(("settings", "message"), MISSING, ids=lambda value: str(value)[:30])
def test_what_a_method_lacks_is_named_before_weights_are_read(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    """Whatever is installed on the machine: transformers is told that nothing is."""
    for module, library in (
        ("bnb_4bit", "bitsandbytes"),
        ("gptq", "optimum"),
        ("awq", "gptqmodel"),
        ("compressed_tensors", "compressed_tensors"),
        ("torchao", "torchao"),
    ):
        monkeypatch.setattr(f"transformers.quantizers.quantizer_{module}.is_{library}_available", lambda: False)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    checkpoint = resolve(str(quantise(tiny_checkpoint(), settings)))
    with pytest.raises(InputError, match=message):
        load_model(checkpoint, torch.float32, "cpu")
