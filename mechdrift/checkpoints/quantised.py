"""Quantised checkpoints: which method they use, and whether it can run here. transformers loads them."""

from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Kernels exist for CUDA alone; the other methods run on a CPU too, or are dequantised there.
CUDA_ONLY = {"eetq", "fbgemm_fp8", "fp_quant", "higgs", "nvfp4", "spqr", "vptq"}


def method_of(config: dict[str, Any]) -> str:
    """The method that a config.json names, in transformers' words, for example `gptq`; empty where weights are plain."""
    text = config.get("text_config")
    found = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)
    if not isinstance(found, dict):
        return ""
    return str(found.get("quant_method") or "bitsandbytes")  # which alone was once written without its name


def check_can_run(spec: str, config: "PreTrainedConfig", method: str, devices: dict[str, Any]) -> None:
    """Raise InputError where a method's library or device is not there: transformers' own checks, before weights are read."""
    from transformers.quantizers.auto import AutoHfQuantizer

    on_gpu = any("cuda" in str(device) for device in devices.values())
    if method in CUDA_ONLY and not on_gpu:
        raise InputError(
            f"{spec}: quantised by {method}, which runs on CUDA only",
            "a CUDA GPU",
            "use one, or compare its unquantised original",
        )
    try:
        given = getattr(config, "quantization_config", None) or config.get_text_config(decoder=True).quantization_config
        quantiser = AutoHfQuantizer.from_config(given, pre_quantized=True)
        quantiser.validate_environment(device_map=devices, weights_only=True)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{spec}: quantised by {method}, which cannot run here ({' '.join(str(error).split())[:300]})",
            f"what {method} needs",
            "install it, or compare the unquantised original",
        ) from error
