"""Models and tokenizers in memory, through transformers."""

from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = "sdpa"


def load_tokenizer(checkpoint: Checkpoint) -> "PreTrainedTokenizerBase":
    """The checkpoint's own tokenizer; it must give character offsets, by which named positions are found."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"{checkpoint.spec}: tokenizer does not load ({error})", "a tokenizer of its own", "save it again"
        ) from error
    if not tokenizer.is_fast:
        raise InputError(f"{checkpoint.spec}: slow tokenizer", "one with offsets (tokenizer.json)", "convert it to a fast one")
    return tokenizer


def load_model(checkpoint: Checkpoint, dtype: "torch.dtype", device: str) -> "PreTrainedModel":
    """The model in evaluation mode. Raises InputError where a weight is missing: transformers would draw it at random."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    info: dict[str, Any]
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.spec}: does not load as {checkpoint.model_type} ({' '.join(str(error).split())[:300]})",
            "a causal language model that transformers knows",
            "check config.json against the weights",
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"{checkpoint.spec}: {len(missing)} tensors missing, first {missing[0]}",
            "every weight of the config",
            "save it again",
        )
    return model.to(device).eval()
