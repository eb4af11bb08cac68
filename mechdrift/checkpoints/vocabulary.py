"""Two vocabularies side by side: what was added in training is for a reader to know, and no reason to refuse."""

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.tokenizer import load_tokenizer

NAMED = 3  # tokens shown of those that were added


def vocabulary_note(base: Checkpoint, post: Checkpoint) -> str | None:
    """How post's vocabulary differs from base's, in one line; None where it does not.

    Comparable are two checkpoints all the same, as long as they read what is asked alike, which is checked of every prompt and
    answer. A pad token that was added and an embedding that was padded (Tulu 3 has both) change nothing of that.
    """
    tokens = [load_tokenizer(point).get_vocab() for point in (base, post)]
    rows = [load_config(point).get_text_config(decoder=True).vocab_size for point in (base, post)]
    before, after = tokens
    added, gone = sorted(after.keys() - before.keys(), key=after.__getitem__), before.keys() - after.keys()
    moved = [token for token, number in before.items() if after.get(token, number) != number]
    parts = []
    if added:
        named = [*map(repr, added[:NAMED]), *(["..."] if len(added) > NAMED else [])]
        parts.append(f"post has {len(added):,} more ({', '.join(named)})")
    if gone:
        parts.append(f"{len(gone):,} fewer")
    if moved:
        parts.append(f"{len(moved):,} under another id")
    if rows[0] != rows[1]:
        parts.append(f"its embedding has {rows[1]:,} rows, base's {rows[0]:,}")
    return f"vocabularies differ: {', '.join(parts)}; compared is what both read alike" if parts else None
