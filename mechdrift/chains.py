"""What a run compares with what: base with each post, and along a chain of stages each checkpoint with the next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mechdrift.verdict.limits import row_of
from mechdrift.verdict.record import Move, Step
from mechdrift.verdict.row import JudgedRow

BASE, POST = "base", "post"
WITHOUT = "~"  # no name of a checkpoint has it: `post~sft` is post without the stage that ended at sft
NOT_MEASURED = {"unmeasurable", "error"}


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


def moves(rows: Iterable[JudgedRow], steps: Sequence[Between]) -> list[Move]:
    """What each step of a chain did to each row from base to post; with a sentence on gates that drifted."""
    found = {row.label: row for row in rows}
    moved = []
    for label, row in sorted(found.items()):
        by_step = {step: found[step.label(label)] for step in steps if step.label(label) in found}
        if not by_step or row_of(label) != label:
            continue
        gated = row.role == "gate" and row.verdict == "drifted"
        moved.append(
            Move(
                label=label,
                role=row.role,
                verdict=row.verdict,
                steps=[_step(step, one) for step, one in by_step.items()],
                sentence=_sentence(label, {step: one.verdict for step, one in by_step.items()}) if gated else None,
            )
        )
    return moved


def _step(step: Between, row: JudgedRow) -> Step:
    return Step(between=step.names, estimate=row.estimate, low=row.low, high=row.high, verdict=row.verdict)


def _sentence(label: str, verdicts: dict[Between, str]) -> str:
    """Where a row that drifted from base to post did so."""
    where = _summary([step for step, verdict in verdicts.items() if verdict == "drifted"])
    unknown = _summary([step for step, verdict in verdicts.items() if verdict in NOT_MEASURED])
    message = f"{label} drifted {where or 'from base to post, and in no step alone'}"
    return f"{message}; not measured {unknown}" if unknown else message


def _summary(steps: Sequence[Between]) -> str:
    return " and ".join(f"between {step.earlier} and {step.later}" for step in steps)
