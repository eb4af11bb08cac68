"""How far a model can see: the settings that decide it, and how well it predicts what lies far back.

Short prompts cannot tell: a window of 32 tokens, another rope or another cap of the scores leaves everything that this project
asks of the first tokens where it was.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from mechdrift.checkpoints.config_changes import Change, Part
from mechdrift.findings.drift import Drift, SitePoint
from mechdrift.stats import Jackknifed, Normal

FIRST_BIN = 16
SHOWN = 3

Losses = Float[np.ndarray, "document position"]


def settings(changes: Sequence[Change], part: Part) -> Drift:
    """What decides how far the model sees is as it was: the number of settings that differ, exact, 0 = none.

    changes: of one part, from the configs. 0 or more; lower is better. Ours.
    """
    named = [str(change) for change in changes[:SHOWN]]
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return Drift(
        measure="context.settings",
        evidence=Normal(float(len(changes)), 0.0, 0),
        null=0.0,
        unit="settings that differ",
        better="lower",
        site="config.json",
        site_rule="as transformers reads it",
        data=part,
        note="; ".join([*named, *more]) or "the same in both",
    )


def late_loss(base: Losses, post: Losses, data: str) -> Drift:
    """The post model predicts what stood far back in its context as well as the base model: loss of the last quarter.

    base, post: loss of every token but the first, in nats, documents of one length, whose second half repeats the first half's
    texts in reverse. Mean over the last quarter of a document, post minus base; 0 = as well, over 0 = worse; a move either way
    says that post sees its context otherwise. The curve has it by position. Interval by the delete-one-document jackknife. Ours.
    """
    count, length = base.shape
    late = length - (length + 1) // 4
    change = post.astype(np.float64) - base
    edges = _edges(length)
    curve = []
    for start, stop in pairwise(edges):
        found = Jackknifed.mean(change[:, start:stop].mean(1)).evidence()
        curve.append(SitePoint(f"tokens {start + 1} to {stop}", found.estimate, *found.interval()))
    first, last = (float(base[:, part].mean()) for part in (slice(0, length // 2), slice(late, None)))
    size = f"{count} documents of {length + 1} tokens"
    return Drift(
        measure="context.late_loss",
        evidence=Jackknifed.mean(change[:, late:].mean(1)).evidence(),
        null=0.0,
        unit="nats a token, post minus base, last quarter",
        better="neither",
        site="next token",
        site_rule="last quarter of documents whose second half repeats the first in reverse",
        data=data,
        parameters={"tokens": length + 1},
        note=f"{size}; base's loss {first:.3f} in their first half, {last:.3f} in the last quarter",
        curve=tuple(curve),
    )


def _edges(length: int) -> list[int]:
    """Where bins of positions begin and end: each as long as all before it, and the last two a quarter each."""
    edges, late = [0], length - (length + 1) // 4
    size = FIRST_BIN
    while size < late:
        edges.append(size)
        size *= 2
    return [*(edge for edge in edges if edge < late), late, length]
