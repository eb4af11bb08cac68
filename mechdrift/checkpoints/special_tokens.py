"""Which tokens end a checkpoint's replies."""

from mechdrift.checkpoints.end_ids import GENERATION, generation_ends, ids_of
from mechdrift.checkpoints.load import load_config, load_tokenizer
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import Unmeasurable


def end_tokens(checkpoint: Checkpoint) -> list[int]:
    """The tokens that end a reply: by the generation config, else by the config, else the tokenizer's own.

    Raises InputError for ids that are no tokens of the model, Unmeasurable where nothing names one.
    """
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
