"""What readings cost, counted in one place: of parts that are made in a run, and of the same parts in a plan of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Work:
    """Amounts; what padding, checks of a model and batches that are tried again add is not among them."""

    prompts: int = 0
    """Prompts read, once for all arms that share their tokens."""
    tokens: int = 0
    """Times that a whole model is run on a token, shared beginnings once; a sweep's block runs by what they add up to."""
    head_tokens: int = 0
    """Times that the head alone is run on a token."""
    replies: int = 0
    """Replies made, their prompts counted under tokens."""
    reply_tokens: int = 0
    """Tokens of replies, at most: a reply may end before."""
    reply_steps: int = 0
    """Forwards that make one token for a batch of replies, at most, in batches as transformers' way has them."""
    matrix_cubes: int = 0
    """Of every symmetric eigendecomposition the third power of its side."""
    bytes: int = 0
    """What is kept in the store."""

    def __add__(self, other: "Work") -> "Work":
        """Both together."""
        return Work(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Work)))

    def __sub__(self, other: "Work") -> "Work":
        """What came since the other."""
        return Work(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(Work)))


def reading(lengths: Sequence[int]) -> Work:
    """Of prompts of these lengths, each run once."""
    return Work(prompts=len(lengths), tokens=sum(lengths))


NOTHING = Work()
