"""Configs, through transformers."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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


def of_block(config: "PreTrainedConfig", name: str, block: int = -1) -> Any:
    """An entry of a text model's config, which may differ from block to block (Gemma 4's head_dim); None where it has none."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # transformers' own: it is not one for all
        return getattr(config.per_layer_config[block], name, None)


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


def gguf_source(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """The argument that names a GGUF file, for what lies in its folder."""
    return {"gguf_file": checkpoint.gguf} if checkpoint.gguf and folder == checkpoint.folder else {}
