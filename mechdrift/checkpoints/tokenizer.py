"""Tokenizers, through transformers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mechdrift.checkpoints.config import gguf_source
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.template_choice import OWN, TemplateChoice
from mechdrift.checkpoints.tokenizer_check import check_tokenizer
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(checkpoint: Checkpoint, choice: TemplateChoice = OWN) -> "PreTrainedTokenizerBase":
    """The checkpoint's own tokenizer; it must give character offsets, by which named positions are found.

    choice: its chat template, if not its own, and what that is given. Tried in a sandbox first, where that was not done yet.
    Raises InputError.
    """
    from transformers import AutoTokenizer

    try_tokenizer(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.tokenizer_folder,
            local_files_only=True,
            trust_remote_code=False,
            **gguf_source(checkpoint, checkpoint.tokenizer_folder),
        )
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(
            f"{checkpoint.spec}: tokenizer does not load ({' '.join(str(error).split())[:300]})",
            "a tokenizer of its own",
            "save it again",
        ) from error
    if not tokenizer.is_fast:
        raise InputError(f"{checkpoint.spec}: slow tokenizer", "one with offsets (tokenizer.json)", "convert it to a fast one")
    choice.give(tokenizer)
    return tokenizer


def try_tokenizer(checkpoint: Checkpoint, texts: Iterable[str] = ()) -> None:
    """Try the checkpoint's tokenizer in a sandbox, on texts that it will be given. Raises InputError."""
    folder = checkpoint.tokenizer_folder
    gguf = gguf_source(checkpoint, folder).get("gguf_file")
    names = ("tokenizer", "config", *(["weights"] if gguf else []))
    content = "".join(checkpoint.digests.get(name, "") for name in names)
    check_tokenizer(checkpoint.spec, folder, content, gguf, texts)
