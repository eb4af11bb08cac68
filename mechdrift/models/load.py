"""Models and tokenizers in memory, through transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.adapters import put_on
from mechdrift.checkpoints.config import gguf_source, load_config
from mechdrift.checkpoints.gguf_file import dropped
from mechdrift.checkpoints.quantised import check_can_run, method_in
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import weight_files
from mechdrift.checkpoints.stored import stored_in
from mechdrift.checkpoints.whole import check_loaded
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.errors import InputError, is_out_of_memory
from mechdrift.models.dequantise import dequantised, dequantising, without_activations

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_model(checkpoint: Checkpoint, dtype: "torch.dtype", device: str) -> "PreTrainedModel":
    """The model in evaluation mode, weight by weight straight to where it runs, its adapter merged into it.

    device: one of torch's, `map` (over all GPUs, then the CPU) or `tp` (tensor parallel, under torchrun). Raises InputError,
    also where files and model do not have the same tensors: transformers would draw or drop them and only log it.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = gguf_source(checkpoint, checkpoint.folder)
    if checkpoint.adapter and device == TENSOR_PARALLEL:
        raise InputError(
            f"{checkpoint.spec}: an adapter, tensor parallel", "a whole model", f"merge it first, or use --mechdrift-device {MAP}"
        )
    if checkpoint.quantised and not source:
        config = load_config(checkpoint)
        method = method_in(checkpoint.quantised)
        gpus = torch.cuda.is_available() and device != "cpu"
        check_can_run(checkpoint.spec, config, method, {"": "cuda" if gpus else "cpu"})
        source = {"config": dequantising(config, method)}
    elif source:
        from transformers import GgufConfig

        # Its own kernels would compute other numbers where they are installed, and be fetched where they are not.
        source["quantization_config"] = GgufConfig(dequantize=True)
    info: dict[str, Any]
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation=attention_of(checkpoint),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placement(device),
            **source,
        )
    except Exception as error:  # from each family's own arithmetic with a config that does not fit
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{checkpoint.spec}: does not load as {checkpoint.model_type} ({' '.join(str(error).split())[:300]})",
            "a causal language model that transformers knows",
            "check config.json against the weights",
        ) from error
    if checkpoint.gguf:
        info["unexpected_keys"] |= dropped(checkpoint.folder / checkpoint.gguf, model)
    elif checkpoint.quantised:
        info["unexpected_keys"] = without_activations(info["unexpected_keys"])
    held = {} if checkpoint.gguf else stored_in(weight_files(checkpoint.spec, checkpoint.folder))
    check_loaded(checkpoint.spec, model, info, held, checkpoint.quantised)
    if not checkpoint.gguf:
        model = dequantised(model, dtype)
    quantiser = getattr(model, "hf_quantizer", None)  # gone, or saying so, where weights were dequantised
    plain = quantiser is None or getattr(quantiser.quantization_config, "dequantize", False)
    if checkpoint.quantised or checkpoint.gguf:
        if plain:
            model = model.to(dtype)  # some methods dequantise to bfloat16 whatever dtype is requested
        _check_finite(checkpoint.spec, model)
    if checkpoint.adapter:
        model = put_on(checkpoint.spec, model, Path(checkpoint.adapter), merge=plain)
    return model.eval()


def attention_of(checkpoint: Checkpoint) -> str:
    """The attention implementation: `sdpa`, but `eager` for families that sdpa cannot do (Gemma 2 caps its scores)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(load_config(checkpoint)), None)
    return "eager" if model is not None and not model._supports_sdpa else "sdpa"


def _check_finite(spec: str, model: "PreTrainedModel") -> None:
    """Raise InputError at a weight that is not finite: of rounded ones only the dequantised values can tell."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype.itemsize > 1 and not weight.isfinite().all():
            raise InputError(f"{spec}: {name} is NaN or infinite once dequantised", "finite weights", "quantise it again")


def placement(device: str) -> dict[str, Any]:
    """from_pretrained's arguments that put a model there."""
    if device == TENSOR_PARALLEL:
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    return {"device_map": "auto" if device == MAP else {"": device}}
