"""Models and tokenizers in memory, through transformers."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.adapters import put_on
from mechdrift.checkpoints.gguf_file import dropped
from mechdrift.checkpoints.quantised import check_can_run
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import weight_files
from mechdrift.checkpoints.stored import stored_in
from mechdrift.checkpoints.tokenizer_check import check_tokenizer
from mechdrift.checkpoints.whole import check_loaded
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.errors import InputError, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(checkpoint: Checkpoint) -> "PreTrainedTokenizerBase":
    """The checkpoint's own tokenizer; it must give character offsets, by which named positions are found.

    Tried in a sandbox first, where that was not done yet. Raises InputError.
    """
    from transformers import AutoTokenizer

    try_tokenizer(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.tokenizer_folder,
            local_files_only=True,
            trust_remote_code=False,
            **_gguf(checkpoint, checkpoint.tokenizer_folder),
        )
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(
            f"{checkpoint.spec}: tokenizer does not load ({' '.join(str(error).split())[:300]})",
            "a tokenizer of its own",
            "save it again",
        ) from error
    if not tokenizer.is_fast:
        raise InputError(f"{checkpoint.spec}: slow tokenizer", "one with offsets (tokenizer.json)", "convert it to a fast one")
    return tokenizer


def try_tokenizer(checkpoint: Checkpoint, texts: Iterable[str] = ()) -> None:
    """Try the checkpoint's tokenizer in a sandbox, on texts that it will be given. Raises InputError."""
    folder = checkpoint.tokenizer_folder
    gguf = _gguf(checkpoint, folder).get("gguf_file")
    names = ("tokenizer", "config", *(["weights"] if gguf else []))
    content = "".join(checkpoint.digests.get(name, "") for name in names)
    check_tokenizer(checkpoint.spec, folder, content, gguf, texts)


def load_model(checkpoint: Checkpoint, dtype: "torch.dtype", device: str) -> "PreTrainedModel":
    """The model in evaluation mode, weight by weight straight to where it runs, its adapter merged into it.

    device: one of torch's, `map` (over all GPUs, then the CPU) or `tp` (tensor parallel, under torchrun). Raises InputError,
    also where files and model do not have the same tensors: transformers would draw or drop them and only log it.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = _gguf(checkpoint, checkpoint.folder)
    if checkpoint.adapter and device == TENSOR_PARALLEL:
        raise InputError(
            f"{checkpoint.spec}: an adapter, tensor parallel", "a whole model", f"merge it first, or use --mechdrift-device {MAP}"
        )
    if checkpoint.quantised and not source:
        config = load_config(checkpoint)
        gpus = torch.cuda.is_available() and device != "cpu"
        check_can_run(checkpoint.spec, config, checkpoint.quantised, {"": "cuda" if gpus else "cpu"})
    if source:
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
    held = {} if checkpoint.gguf else stored_in(weight_files(checkpoint.spec, checkpoint.folder))
    check_loaded(checkpoint.spec, model, info, held)
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


def load_config(checkpoint: Checkpoint) -> "PreTrainedConfig":
    """The model's config, as transformers reads it. Raises InputError."""
    return _config(checkpoint.folder, checkpoint.gguf, checkpoint.short)


def context_of(checkpoint: Checkpoint) -> int | None:
    """The longest prompt, in tokens, that the model was made for; None where its config does not say."""
    longest = getattr(load_config(checkpoint).get_text_config(decoder=True), "max_position_embeddings", None)
    return int(longest) if longest else None


def require_known(checkpoint: Checkpoint, prompts: Iterable[Sequence[int]]) -> None:
    """Raise InputError for a token that the model has no embedding for. A token that no prompt holds may be one too many."""
    known = int(load_config(checkpoint).get_text_config(decoder=True).vocab_size)
    if (largest := max(map(max, prompts))) >= known:
        raise InputError(
            f"{checkpoint.spec}: its tokenizer gives token {largest}, and its model has a vocabulary of {known}",
            "a tokenizer and a model that belong together",
            "save both from the same training run",
        )


@cache
def _config(folder: Path, gguf: str, _content: str) -> "PreTrainedConfig":  # a GGUF file's takes seconds
    from transformers import AutoConfig

    source = {"gguf_file": gguf} if gguf else {}
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **source)
    except Exception as error:  # as in resolve.py
        raise InputError(
            f"{folder / gguf}: its config does not load ({' '.join(str(error).split())[:300]})",
            "a causal language model that transformers knows",
            "check it",
        ) from error


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


def _gguf(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """The argument that names a GGUF file, for what lies in its folder."""
    return {"gguf_file": checkpoint.gguf} if checkpoint.gguf and folder == checkpoint.folder else {}
