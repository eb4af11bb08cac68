"""Tiny checkpoints in the layouts that quantised releases are published in, and the values that they stand for.

Each writer rewrites a plain checkpoint's matrices in place and returns what they mean by the format's own formula, in float64:
written here from the formats' descriptions, by none of the libraries that read them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
Meant = dict[str, torch.Tensor]
Packed = tuple[dict[str, torch.Tensor], torch.Tensor]
"""What is stored of a matrix by suffix, and its values."""
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
"""The sizes that four bits of floating point have; the fourth bit is the sign."""
GROUP = 32


def describe(folder: Path, settings: dict[str, Any], inside: str = "") -> Path:
    """Put a quantization_config into config.json, or into a part of it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[inside] if inside else config)["quantization_config"] = settings
    path.write_text(json.dumps(config))
    return folder


def rewrite(folder: Path, pack: Callable[[torch.Tensor], Packed], ending: str = "_proj.weight", within: str = "layers.") -> Meant:
    """Store every matrix of this ending otherwise, of the blocks or another part."""
    tensors, meant = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(ending) and within in name]:
        stored, meant[name] = pack(tensors.pop(name).double())
        tensors |= {name.removesuffix("weight") + suffix: tensor.contiguous() for suffix, tensor in stored.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return meant


def in_groups(scale: torch.Tensor, columns: int) -> torch.Tensor:
    """One number of each group of inputs, for every input: [out, groups] to [out, in]."""
    return scale.repeat_interleave(columns // scale.shape[1], 1)


def packed_bits(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers along the last axis into int32, the first in the lowest bits."""
    each = 32 // bits
    parts = values.long().reshape(*values.shape[:-1], -1, each) << (bits * torch.arange(each))
    total = parts.sum(-1)
    return torch.where(total >= 1 << 31, total - (1 << 32), total).int()


def float8_blocks(weight: torch.Tensor, side: int = 128) -> Packed:
    """Blocks of float8 with a scale each, as DeepSeek-V3 and Qwen3-FP8: value = q * weight_scale_inv of its block."""
    rows, columns = weight.shape
    scale = torch.rand(-(-rows // side), -(-columns // side)) + 0.5
    wide = scale.repeat_interleave(side, 0).repeat_interleave(side, 1)[:rows, :columns].double()
    q = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": q, "weight_scale_inv": scale}, q.double() * wide


def float8_rows(weight: torch.Tensor) -> Packed:
    """Rows of float8 with a scale each, as compressed-tensors' FP8-dynamic: value = q * scale of its row."""
    scale = (weight.abs().amax(1, keepdim=True) / 448).bfloat16()
    q = (weight / scale.double()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": q, "weight_scale": scale}, q.double() * scale.double()


def int8_rows(weight: torch.Tensor) -> Packed:
    """Rows of int8 with a scale each, as compressed-tensors' W8A8."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
    q = (weight / scale.double()).round().clamp(-128, 127).to(torch.int8)
    return {"weight": q, "weight_scale": scale}, q.double() * scale.double()


def int8_packed(weight: torch.Tensor) -> Packed:
    """The same with 128 added, four to an int32, as compressed-tensors packs eight bits."""
    stored, meant = int8_rows(weight)
    packed = packed_bits(stored["weight"].long() + 128, 8)
    return {"weight_packed": packed, "weight_scale": stored["weight_scale"], "weight_shape": torch.tensor(weight.shape)}, meant


def int4_groups(weight: torch.Tensor) -> Packed:
    """Groups of inputs in int4, as compressed-tensors' W4A16: value = (u - 8) * scale, eight u to an int32."""
    scale = (weight.unflatten(1, (-1, GROUP)).abs().amax(-1) / 7).bfloat16()
    wide = in_groups(scale.double(), weight.shape[1])
    u = (weight / wide).round().clamp(-8, 7) + 8
    stored = {"weight_packed": packed_bits(u, 4), "weight_scale": scale, "weight_shape": torch.tensor(weight.shape)}
    return stored, (u - 8) * wide


def int4_zeros(weight: torch.Tensor) -> Packed:
    """The same with a zero of each group's own, packed along the outputs: value = (u - zero) * scale."""
    grouped = weight.unflatten(1, (-1, GROUP))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).bfloat16()
    zero = (-low / scale.double()).round().clamp(0, 15)
    wide, zeros = in_groups(scale.double(), weight.shape[1]), in_groups(zero, weight.shape[1])
    u = ((weight / wide).round() + zeros).clamp(0, 15)
    stored = {
        "weight_packed": packed_bits(u, 4),
        "weight_scale": scale,
        "weight_shape": torch.tensor(weight.shape),
        "weight_zero_point": packed_bits(zero.T, 4).T,
    }
    return stored, (u - zeros) * wide


def e2m1(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest numbers in four bits of floating point: codes, two to a byte and the first in the lower half, and values."""
    nearest = (values.abs()[..., None] - E2M1).abs().argmin(-1)
    codes = nearest + 8 * (values < 0)
    return (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8), E2M1[nearest] * torch.where(values < 0, -1.0, 1.0)


def nvfp4(weight: torch.Tensor) -> Packed:
    """Groups of 16 inputs in e2m1 with a scale in float8, over one for all: value = e2m1 * scale / global scale."""
    top = weight.abs().unflatten(1, (-1, 16)).amax(-1)
    whole = (448 * 6 / weight.abs().amax()).float().reshape(1)
    scale = (top / 6 * whole.double()).to(torch.float8_e4m3fn)
    wide = in_groups(scale.double() / whole.double(), weight.shape[1])
    packed, values = e2m1(weight / wide)
    return {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": whole}, values * wide


def awq(weight: torch.Tensor) -> Packed:
    """AWQ's GEMM layout: inputs by outputs, eight outputs to an int32 in the order 0 2 4 6 1 3 5 7, zeros likewise."""
    grouped = weight.unflatten(1, (-1, GROUP))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.double()).round().clamp(0, 15)
    wide, zeros = in_groups(scale.double(), weight.shape[1]), in_groups(zero, weight.shape[1])
    u = ((weight / wide).round() + zeros).clamp(0, 15)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    turned, turned_zero = (part.T.unflatten(1, (-1, 8))[..., order].flatten(1) for part in (u, zero))
    stored = {"qweight": packed_bits(turned, 4), "qzeros": packed_bits(turned_zero, 4), "scales": scale.T}
    return stored, (u - zeros) * wide


def gptq(weight: torch.Tensor) -> Packed:
    """GPTQ's layout: inputs by outputs, eight inputs to an int32, zeros less one, and the group of every input."""
    scale = (weight.unflatten(1, (-1, GROUP)).abs().amax(-1) / 7).half()
    wide = in_groups(scale.double(), weight.shape[1])
    u = (weight / wide).round().clamp(-8, 7) + 8
    zeros = torch.full((weight.shape[1] // GROUP, weight.shape[0]), 7)
    stored = {
        "qweight": packed_bits(u, 4).T,
        "qzeros": packed_bits(zeros, 4),
        "scales": scale.T,
        "g_idx": (torch.arange(weight.shape[1]) // GROUP).int(),
    }
    return stored, (u - 8) * wide


def float8_whole(weight: torch.Tensor) -> Packed:
    """One scale for a matrix, and one for its inputs, which plain matrices do without: as fp8 without blocks."""
    scale = (weight.abs().amax() / 448).float()
    q = (weight / scale.double()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": q, "weight_scale_inv": scale, "activation_scale": torch.ones(())}, q.double() * scale.double()


def mxfp4_experts(folder: Path) -> Meant:
    """Experts as gpt-oss has them: e2m1 in groups of 32 inputs with a power of two each, biased by 127, beside float biases."""
    tensors, meant = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        turned = tensors.pop(name).double().mT.unflatten(-1, (-1, 32))  # [expert, in, out] in the model, [expert, out, in] here
        power = (turned.abs().amax(-1) / 6).log2().ceil()
        packed, values = e2m1(turned / power.exp2()[..., None])
        tensors |= {f"{name}_blocks": packed.contiguous(), f"{name}_scales": (power + 127).to(torch.uint8)}
        meant[name] = (values * power.exp2()[..., None]).flatten(-2).mT
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return meant


def group(form: str, *targets: str, **weights: Any) -> dict[str, Any]:
    """One way of rounding, as compressed-tensors describes it."""
    given = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "dynamic": False}
    if weights.get("strategy", "group") == "group":
        given["group_size"] = GROUP
    return {"targets": [*targets] or ["Linear"], "weights": given | weights, "format": form}


def compressed(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors."""
    forms = {group["format"] for group in groups}
    return {
        "quant_method": "compressed-tensors",
        "format": forms.pop() if len(forms) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": group for number, group in enumerate(groups)},
        "ignore": ["lm_head"],
    } | more


ROUNDED_INPUTS = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}
LAYOUTS: dict[str, tuple[Callable[[torch.Tensor], Packed], dict[str, Any]]] = {
    "fp8 blocks": (float8_blocks, {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}),
    "fp8 whole": (float8_whole, {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}),
    "compressed W4A16": (int4_groups, compressed(group("pack-quantized"))),
    "compressed W4A16 with zeros": (int4_zeros, compressed(group("pack-quantized", symmetric=False))),
    "compressed FP8": (
        float8_rows,
        compressed(
            group("float-quantized", num_bits=8, type="float", strategy="channel")
            | {"input_activations": ROUNDED_INPUTS | {"type": "float"}}
        ),
    ),
    "compressed W8A8": (
        int8_rows,
        compressed(
            group("int-quantized", num_bits=8, strategy="channel") | {"input_activations": ROUNDED_INPUTS | {"type": "int"}}
        ),
    ),
    "compressed NVFP4": (
        nvfp4,
        compressed(group("nvfp4-pack-quantized", type="float", strategy="tensor_group", group_size=16)),
    ),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}),
    "gptq": (
        gptq,
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "checkpoint_format": "gptq"},
    ),
}
"""How matrices are packed, and the quantization_config that says so."""
