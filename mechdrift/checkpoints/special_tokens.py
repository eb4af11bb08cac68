"""Which tokens end a checkpoint's replies."""

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.end_ids import GENERATION, generation_ends, ids_of
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError, Unmeasurable


def end_tokens(checkpoint: Checkpoint) -> list[int]:
    """The tokens that end a reply: by the generation config, else by the config, else the tokenizer's own.

    Raises InputError for ids that are no tokens of the model, Unmeasurable where nothing names one.
    """
    _require_loadable(checkpoint)
    text = load_config(checkpoint).get_text_config(decoder=True)
    vocabulary = int(text.vocab_size)
    written = generation_ends(checkpoint.spec, checkpoint.folder, vocabulary)
    own = ids_of(checkpoint.spec, "config.json", getattr(text, "eos_token_id", None), vocabulary)
    if ends := written or own:
        return ends
    end = load_tokenizer(checkpoint).eos_token_id
    if end is None:
        raise Unmeasurable(
            f"{checkpoint.spec}: neither {GENERATION} nor config.json nor its tokenizer names the token that ends a reply"
        )
    return ids_of(checkpoint.spec, "tokenizer", end, vocabulary)


def _require_loadable(checkpoint: Checkpoint) -> None:
    """Raise InputError for a generation config that transformers refuses: the model would not load with it."""
    from transformers import GenerationConfig

    if not (checkpoint.folder / GENERATION).is_file():
        return
    try:
        GenerationConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # from its arithmetic with what a stranger wrote
        raise InputError(
            f"{checkpoint.spec}: {GENERATION} does not load ({' '.join(str(error).split())[:200]})",
            "settings that transformers knows",
            "fix it, or delete it",
        ) from error
