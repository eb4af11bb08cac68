"""What a run compares with what: base with each post, and along a chain of stages each checkpoint with the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BASE, POST = "base", "post"
WITHOUT = "~"  # no name of a checkpoint has it: `post~sft` is post without the stage that ended at sft


@dataclass(frozen=True)
class Between:
    """Two checkpoints of a run, by their names in it."""

    earlier: str = BASE
    """Taken for base."""
    later: str = POST
    """Taken for post."""
    step: bool = False
    """Whether they are neighbours in a chain: its rows are shown, and neither gate nor enter a baseline."""

    def __str__(self) -> str:
        """As labels and reports have it."""
        return f"{self.earlier} -> {self.later}"

    @property
    def file(self) -> str:
        """As test ids and file names have it; no name has a '+' of its own."""
        return f"{self.earlier}+{self.later}"

    @property
    def names(self) -> list[str]:
        """As a row has it."""
        return [self.earlier, self.later]

    def label(self, row: str) -> str:
        """A row's name within the run: base -> post goes without saying. `row_of` takes it off again."""
        return row if self == BASE_TO_POST else f"{row} {self}"


BASE_TO_POST = Between()


def compared(stages: Sequence[str], posts: Sequence[str], lineage: bool = False) -> tuple[Between, ...]:
    """What a run of these names compares: ends, then neighbours, and for a lineage base with post without each stage."""
    ends = tuple(Between(BASE, post) for post in posts)
    others = [Between(BASE, name, step=True) for name in without(stages, posts[-1]).values()] if lineage else []
    return tuple(dict.fromkeys([*ends, *neighbours(stages, posts), *others]))


def without(stages: Sequence[str], post: str) -> dict[str, str]:
    """By the checkpoint at a stage's end: what post without that stage is called; without the last it is the one before."""
    return {stage: f"{post}{WITHOUT}{stage}" for stage in stages} | {post: stages[-1]}


def neighbours(stages: Sequence[str], posts: Sequence[str]) -> list[Between]:
    """The steps of a chain."""
    return [Between(*names, step=True) for names in pairwise([BASE, *stages, *posts])] if stages else []
