"""Quantised models made of plain matrices: by transformers and the libraries that rounded them, on any device.

What runs then is the same wherever it runs: no kernel that one machine has and another has not, no activation rounded on the way.
"""

import copy
import re
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.quantised import ON_LOAD, is_mixed, settings_of
from mechdrift.checkpoints.whole import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

# How activations and the cache of keys and values were rounded when the weights were: nothing of plain matrices.
ACTIVATIONS = re.compile(r"\.(input|output|activation|q|k|v)_(scale|zero_point|global_scale)$")


def dequantising(config: "PreTrainedConfig", method: str) -> "PreTrainedConfig":
    """A copy of the config, with which transformers dequantises while it loads, where it can."""
    settings, result = settings_of(config), copy.deepcopy(config)
    if method not in ON_LOAD or is_mixed(settings):
        return result
    owner = result if getattr(result, "quantization_config", None) else result.get_text_config(decoder=True)
    owner.quantization_config = settings | {"dequantize": True}
    return result


def dequantised(model: "PreTrainedModel", dtype: "torch.dtype") -> "PreTrainedModel":
    """A loaded model, its packed matrices dequantised where the library that packed them does it; as it is where none does."""
    quantiser = getattr(model, "hf_quantizer", None)
    if quantiser is None:
        return model
    method = str(getattr(quantiser.quantization_config.quant_method, "value", quantiser.quantization_config.quant_method))
    if method == "bitsandbytes":
        with quiet():
            model = model.dequantize(dtype)
        for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # by which PEFT would take it for packed
            if hasattr(model, mark):
                delattr(model, mark)
    elif method == "compressed-tensors":
        _decompress(model, quantiser)
    elif method == "torchao":
        _unwrap(model, quantiser)
    return model


def without_activations(unexpected: "set[str]") -> "set[str]":
    """The tensors that have no place in a dequantised model, but for those that are of no matrix."""
    return {name for name in unexpected if not ACTIVATIONS.search(name)}


def _decompress(model: "PreTrainedModel", quantiser: Any) -> None:
    """Each matrix in its own way, as compressed-tensors does before the first forward, and then as if none had been packed."""
    from compressed_tensors.compressors.base import decompress_module

    for module in model.modules():
        decompress_module(module, leave_decompressed=False)
    quantiser.compressor.remove_decompression_hook(model)
    quantiser.remove_quantization_config(model)


def _unwrap(model: "PreTrainedModel", quantiser: Any) -> None:
    """Torchao's matrices are tensors of its own classes, each of which knows what it stands for."""
    import torch
    from torchao.utils import TorchAOBaseTensor

    for module in model.modules():
        for name, weight in [*module.named_parameters(recurse=False)]:
            if isinstance(weight.data, TorchAOBaseTensor) or isinstance(weight, TorchAOBaseTensor):
                setattr(module, name, torch.nn.Parameter(weight.dequantize(), requires_grad=False))
    quantiser.remove_quantization_config(model)
