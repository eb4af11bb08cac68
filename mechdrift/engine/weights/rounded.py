"""One matrix at a time out of quantised files, dequantised by the functions of those who rounded it.

In float32, so that scales in 16 bits are not multiplied in 16 bits: what the file stands for, not what a kernel makes of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.quantised import check_can_run, method_in, settings_of
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

Parts = dict[str, "Tensor"]
"""What a file holds of one module, by the names within it."""
PLAIN = {"weight", "bias"}
IDLE = {"bias", "input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point", "activation_scale"}
"""What is no part of a matrix: how activations were rounded."""


class Rounded:
    """The matrices of one quantised checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises Unmeasurable for a method whose matrices are not read one by one, and where its library is not there."""
        config, method = load_config(checkpoint), method_in(checkpoint.quantised)
        if method not in READERS:
            raise Unmeasurable(
                f"{checkpoint.spec} is quantised by {method}: its matrices are not read from packed files; compare its original"
            )
        try:
            check_can_run(checkpoint.spec, config, method, {"": "cpu"})
        except InputError as error:
            raise Unmeasurable(str(error)) from error
        self.method = method
        self._read = READERS[method]
        self._settings = settings_of(config)

    def weight(self, module: str, parts: Parts) -> "Tensor":
        """A module's weight as the model multiplies by it, [out, in]; raises Unmeasurable where its parts are not known."""
        named = {name: part for name, part in parts.items() if name not in IDLE}
        if named.keys() == {"weight"} and named["weight"].dtype.itemsize > 1:
            return named["weight"]  # left as it was
        try:
            return self._read(module, named, self._settings).float()
        except (KeyError, ValueError, RuntimeError, AssertionError, TypeError) as error:
            raise Unmeasurable(
                f"{module}: {self.method} does not read {', '.join(sorted(named))} ({' '.join(str(error).split())[:120]})"
            ) from error


def _float8(_module: str, parts: Parts, _settings: dict[str, Any]) -> "Tensor":
    """Blocks of float8, by transformers; that they are whole is known of a checkpoint that is resolved."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    _require(parts, {"weight", "weight_scale_inv"})
    return Fp8Dequantize(None).convert(dict(parts))["weight"]


def _compressed(module: str, parts: Parts, settings: dict[str, Any]) -> "Tensor":
    """By compressed-tensors, in the way that its config names for this module."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_targets

    schemes = {
        target: scheme
        for scheme in QuantizationConfig.model_validate(settings).config_groups.values()
        for target in scheme.targets
    }
    linear = torch.nn.Linear(1, 1, device="meta")
    scheme = schemes[match_targets(module, linear, schemes)[0]]
    compressor = BaseCompressor.get_value_from_registry(str(scheme.format or infer_module_format(torch.nn.Linear, scheme)))
    _require(parts, set(compressor.compression_param_names(scheme)))
    wide = {name: part.float() if part.dtype in (torch.bfloat16, torch.float16) else part for name, part in parts.items()}
    return compressor.decompress(wide, scheme)["weight"]


def _bitsandbytes(_module: str, parts: Parts, _settings: dict[str, Any]) -> "Tensor":
    """Eight bits a row, or four bits with a state that says how; by bitsandbytes."""
    import torch
    from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant

    if "SCB" in parts:
        _require(parts, {"weight", "SCB", "weight_format"})
        return int8_vectorwise_dequant(parts["weight"], parts["SCB"])
    state = QuantState.from_dict({name: part for name, part in parts.items() if name != "weight"}, device=torch.device("cpu"))
    state.dtype = torch.float32
    return dequantize_4bit(parts["weight"], state)


def _mxfp4(_module: str, _parts: Parts, _settings: dict[str, Any]) -> "Tensor":
    """Of gpt-oss only experts are rounded, of which one matrix has no definition."""
    raise ValueError("experts are stored together")


def _require(parts: Parts, names: set[str]) -> None:
    """Raise ValueError where there are others, such as the order of the inputs of a matrix whose groups were permuted."""
    if parts.keys() != names:
        raise ValueError(f"expected {', '.join(sorted(names))}")


READERS: dict[str, Callable[[str, Parts, dict[str, Any]], "Tensor"]] = {
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fp8": _float8,
    "mxfp4": _mxfp4,
    "mxfp8": _float8,
}
