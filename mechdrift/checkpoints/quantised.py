"""Quantised checkpoints: which method they use, and whether it can run here. transformers loads them."""

import json
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.stored import FLOAT8, Stored
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Kernels exist for CUDA alone; the other methods run on a CPU too, or are dequantised there.
CUDA_ONLY = {"eetq", "fbgemm_fp8", "fp_quant", "higgs", "nvfp4", "spqr", "vptq"}
ON_LOAD = {"fp8", "mxfp8", "mxfp4", "compressed-tensors"}
"""Methods whose weights transformers can dequantise while it loads them, on any device."""
DEQUANTISED = ON_LOAD | {"bitsandbytes", "torchao"}
"""Those, and the methods whose weights are dequantised once they are loaded: models are then made of plain matrices."""
MADE_PLAIN = ", dequantised"
PACKAGES = {
    "aqlm": ("aqlm",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
    "torchao": ("torchao",),
}
"""What transformers reads a method with."""
MODULES = {"compressed-tensors": "compressed_tensors", "optimum-quanto": "optimum.quanto"}
SCALES = ("weight_scale", "weight_scale_inv", "scale", "qscale_weight")
"""What a weight's scale is called, by whoever publishes it."""
EXPERT = re.compile(r"\.experts\.\d+\..*\.weight_scale$")
ONLINE = {"input", "output", "k_cache", "q_attn"}
"""Where compressed-tensors turns activations while a model runs; elsewhere a rotation is in the weights already."""


def method_of(config: dict[str, Any]) -> str:
    """The method that a config.json names, in transformers' words, for example `gptq`; empty where weights are plain."""
    if not isinstance(found := _settings(config), dict):
        return ""
    return str(found.get("quant_method") or "bitsandbytes")  # which alone was once written without its name


def in_words(method: str) -> str:
    """A method as header and record name it, with what is compared: dequantised weights, or packed ones where it says no more."""
    return f"{method}{MADE_PLAIN}" if method in DEQUANTISED else method


def method_in(quantised: str) -> str:
    """The method alone, of what in_words made of it."""
    return quantised.removesuffix(MADE_PLAIN)


def settings_of(config: "PreTrainedConfig") -> dict[str, Any]:
    """The quantization_config: the model's own, or that of the text model inside."""
    found = getattr(config, "quantization_config", None) or config.get_text_config(decoder=True).quantization_config
    return dict(found if isinstance(found, dict) else found.to_dict())


def is_mixed(settings: dict[str, Any]) -> bool:
    """Whether compressed-tensors rounded matrices in several ways: while transformers dequantises it takes one for all.

    It knows two, where one is of the experts alone. A second one of the same format would give other numbers, and no error.
    """
    ways: tuple[set[str], set[str]] = set(), set()
    for group in _groups(settings):
        of_experts = any(target.startswith("re:") and "experts" in target for target in group.get("targets") or ())
        ways[of_experts].add(json.dumps([group.get("format") or settings.get("format"), group.get("weights")], sort_keys=True))
    return max(map(len, ways)) > 1


def check_quantised(spec: str, config: "PreTrainedConfig", stored: Stored, method: str) -> None:
    """Raise InputError for what this machine, or transformers, cannot make the right weights of. Reads headers only."""
    import torch

    check_can_run(spec, config, method, {"": "cuda" if torch.cuda.is_available() else "cpu"})
    settings = settings_of(config)
    if method in ON_LOAD:
        _check_scales(spec, stored)
    if method == "compressed-tensors":
        _check_compressed(spec, settings, stored)
    if method == "fp8" and (
        block := settings.get("weight_block_size", [128, 128])
    ):  # what transformers takes where none is named
        _check_blocks(spec, stored, block)


def check_can_run(spec: str, config: "PreTrainedConfig", method: str, devices: dict[str, Any]) -> None:
    """Raise InputError where a method's library or device is not there: transformers' own checks, before weights are read."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer

    original = "compare the unquantised original"
    if method not in {*AUTO_QUANTIZER_MAPPING, "bitsandbytes"}:
        raise InputError(f"{spec}: quantised by {method}, which transformers does not know", "a method that it knows", original)
    if method in CUDA_ONLY and not any("cuda" in str(device) for device in devices.values()):
        raise InputError(
            f"{spec}: quantised by {method}, which runs on CUDA only", "a CUDA GPU", f"use one, or {original.removesuffix('.')}"
        )
    packages = PACKAGES.get(method, ())
    if missing := [name for name in packages if not _is_there(MODULES.get(name, name))]:
        raise InputError(
            f"{spec}: quantised by {method}, and {' and '.join(missing)} not installed",
            f"what transformers reads {method} with",
            f"pip install {' '.join(missing)}, or {original}",
        )
    try:
        settings = settings_of(config) | ({"dequantize": True} if method in ON_LOAD else {})
        quantiser = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        quantiser.validate_environment(device_map=devices, weights_only=True)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{spec}: quantised by {method}, which cannot run here ({' '.join(str(error).split())[:300]})",
            f"what {method} needs",
            f"install it, or {original}",
        ) from error


def _settings(config: dict[str, Any]) -> Any:
    """The quantization_config of a config.json, or of the text model inside."""
    text = config.get("text_config")
    return config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)


def _groups(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """compressed-tensors' ways of rounding, each with the matrices that it is for."""
    return [group for group in (settings.get("config_groups") or {}).values() if isinstance(group, dict)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package inside one that is not there
        return False


def _check_scales(spec: str, stored: Stored) -> None:
    """Raise InputError where a weight in eight bits has no scale: transformers would take it as it is, and say nothing."""
    for name, place in stored.items():
        start, dot, last = name.rpartition(".")
        alone = place.tensor.dtype in (*FLOAT8, "I8") and last == "weight"
        if alone and not any(f"{start}{dot}{scale}" in stored for scale in SCALES):
            raise InputError(
                f"{spec}: {name} is {place.tensor.dtype} and has no scale", "one beside it", "copy the checkpoint again"
            )


def _check_compressed(spec: str, settings: dict[str, Any], stored: Stored) -> None:
    """Raise InputError for what compressed-tensors wrote once, or writes, and transformers would leave out or cannot load."""
    if order := next((name for name in stored if name.endswith(".weight_g_idx")), None):
        raise InputError(
            f"{spec}: its inputs are grouped in another order ({order}), which compressed-tensors reads no more",
            "groups of neighbours",
            "compare the unquantised original",
        )
    turns = ((settings.get("transform_config") or {}).get("config_groups") or {}).values()
    if places := {str(apply.get("location")) for turn in turns for apply in turn.get("apply") or ()} & ONLINE:
        raise InputError(
            f"{spec}: turns its activations while it runs (transform_config: {', '.join(sorted(places))})",
            "a model that transformers runs as it was made: it leaves that out",
            "compare the unquantised original",
        )
    experts = [name.removesuffix("_scale") for name in stored if EXPERT.search(name)]
    if odd := next((name for name in experts if not _is_expert_read(name, stored)), None):
        raise InputError(
            f"{spec}: compressed-tensors rounded its experts in a way that transformers does not read (first {odd})",
            "rows of float8, or groups of whole numbers without zero points",
            "compare the unquantised original",
        )
    zeros = not all((group.get("weights") or {}).get("symmetric", True) for group in _groups(settings))
    if is_mixed(settings) and (zeros or experts):
        raise InputError(
            f"{spec}: rounded in several ways by compressed-tensors, {'with zero points' if zeros else 'its experts too'}",
            "one way: transformers does not load these",
            "compare the unquantised original",
        )


def _is_expert_read(name: str, stored: Stored) -> bool:
    """Whether transformers dequantises an expert's weight: of other layouts it takes what it knows, and leaves out the rest."""
    scale = stored[f"{name}_scale"].tensor.shape
    if name in stored:
        return stored[name].tensor.dtype in FLOAT8 and (len(scale) < 2 or scale[-1] == 1)
    packed = stored.get(f"{name}_packed")
    return packed is not None and packed.tensor.dtype == "I32" and f"{name}_zero_point" not in stored


def _check_blocks(spec: str, stored: Stored, block: list[int]) -> None:
    """Raise InputError where a matrix ends within a block of float8.

    transformers divides rows by scales to find how large blocks are. 192 rows in blocks of 128 have two scales, which it would
    put on 96 rows each.
    """
    for name, place in stored.items():
        scale = stored.get(f"{name}_scale_inv")
        if scale is None or place.tensor.dtype not in FLOAT8 or len(scale.tensor.shape) < 2:
            continue
        for length, scales, side in zip(place.tensor.shape[-2:], scale.tensor.shape[-2:], block, strict=True):
            if scales > 1 and length != scales * side:
                shape = " x ".join(map(str, place.tensor.shape))
                raise InputError(
                    f"{spec}: {name} is {shape}, no whole blocks of {block[0]} x {block[1]}",
                    "blocks that fit: transformers would scale others wrongly",
                    "compare the unquantised original",
                )
