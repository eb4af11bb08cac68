"""Long documents, made of the run's own texts: what they begin with comes again at their end, in reverse order.

So the further a document goes, the further back lies what would help to predict it: a model that sees less far loses there.
"""

import hashlib
from collections.abc import Callable, Sequence

LONGEST = 4096
"""Tokens of a document, at most."""
SHORTEST = 64
FEWEST = 8
"""Documents: with fewer they are made half as long, for the sake of an interval."""
BETWEEN = "\n"

Lengths = Callable[[list[str]], list[int]]


def documents(texts: Sequence[str], lengths: Lengths, longest: int, most: int, seed: int) -> list[str]:
    """At most so many documents of about one length in tokens, no text in two of them; none where there are too few texts.

    lengths: of texts in tokens, without special ones. A document has `longest` tokens or a little more, or half of it, and so on
    down to SHORTEST, until FEWEST can be made. Which texts go together is drawn by their content and the seed.
    """
    ordered = sorted(dict.fromkeys(texts), key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
    counts = lengths([text + BETWEEN for text in ordered])
    tokens = longest
    while tokens >= SHORTEST:
        found = _grouped(ordered, counts, tokens // 2)
        if len(found) >= FEWEST:
            return [BETWEEN.join([*group, *reversed(group)]) for group in found[:most]]
        tokens //= 2
    return []


def _grouped(texts: Sequence[str], counts: Sequence[int], tokens: int) -> list[list[str]]:
    """Texts in groups of at least so many tokens; what is left over is in none."""
    groups: list[list[str]] = []
    group: list[str] = []
    filled = 0
    for text, count in zip(texts, counts, strict=True):
        group.append(text)
        filled += count
        if filled >= tokens:
            groups.append(group)
            group, filled = [], 0
    return groups
