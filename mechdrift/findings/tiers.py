"""Tiers: how many items a run asks, for a quick look, for a commit, for a night. Limits and verdicts know nothing of them.

What a lower tier asks is among what a higher one asks: items are drawn by their content, or in one order that all tiers share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mechdrift.errors import InputError
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.findings.registry import Finding, registered
from mechdrift.prompts.statements import Split, Statement
from mechdrift.prompts.texts import drawn


@dataclass(frozen=True)
class Tier:
    """The most of everything that a run asks; None: all there are."""

    name: str
    """As the option has it."""
    entities: dict[Split, int | None]
    """Of each kind of statements. The fit split is always whole: the examples of few-shot prompts are drawn from it."""
    units: int
    """Whose pairs are swept in each prompt form; the published procedure has 238 pairs."""
    instructions: dict[Split, int]
    """Of each side; published are 128 to fit and 100 to test."""
    borderline: int
    """Harmless ones that look harmful; 150 are shipped."""
    texts: int
    """On which confidence is measured; half of it of each of the project's two sources."""
    documents: int
    """Long texts on which the loss far back is measured."""
    blocks: int | None
    """Whose matrices are decomposed: the dearest step on a large model, and no gate rests on it."""
    left_out: frozenset[str]
    """Findings that are left out."""
    thinks_everywhere: bool = False
    """Whether a model that thinks does so under interventions too, or in its plain replies alone."""

    def includes(self, finding: str) -> bool:
        """Whether a finding's rows are measured."""
        return finding not in self.left_out

    def statements(self, every: Sequence[Statement]) -> tuple[Statement, ...]:
        """Those of at most so many entities of each kind and split, drawn by their names; in the order they are given."""
        entities: dict[tuple[str, Split], dict[str, None]] = {}
        for one in every:
            entities.setdefault((one.kind, one.split), {})[one.entity] = None
        chosen = {key: set(drawn(list(names), self.entities[key[1]])) for key, names in entities.items()}
        return tuple(one for one in every if one.entity in chosen[one.kind, one.split])

    def layers(self, count: int) -> list[int]:
        """The blocks whose matrices are decomposed, spread over all of a model: by the reversed bits of their numbers."""
        width = max(count - 1, 1).bit_length()
        return sorted(sorted(range(count), key=lambda layer: f"{layer:0{width}b}"[::-1])[: self.blocks])


REPLIES = (  # to be made token by token, which is most of what refusal costs
    *("refusal.harmful", "refusal.harmless", "refusal.answered"),
    *("refusal.change_harmful", "refusal.change_harmless", "refusal.change_answered"),
    *("refusal.borderline", "refusal.change_borderline"),
    *("refusal.ablation", "refusal.addition", "refusal.ablation_transfer", "refusal.addition_transfer"),
)
ACROSS = ("knowledge.recovery_forward", "knowledge.recovery_backward", "knowledge.recovery_asymmetry")  # half of all sweeps
STEERED = ("steering_transfer", "steering_transfer_by", "steering_backward", "steering_effect")

TIERS = {
    tier.name: tier
    for tier in (
        Tier(
            "smoke",
            entities={"fit": None, "choose": 20, "test": 40},  # 80 in a gated row where base knows two kinds; 60 are the fewest
            units=96,  # 90 are what the limit on accuracy needs where two answers of 96 differ
            instructions={"fit": 64, "choose": 16, "test": 32},
            borderline=0,
            texts=64,
            documents=0,
            blocks=2,
            left_out=frozenset(
                [
                    *REPLIES,
                    *ACROSS,
                    *(f"truth.{name}" for name in STEERED),
                    "truth.judgement_direction",  # a reading of its own
                    "context.late_loss",  # the longest prompts of all
                ]
            ),
        ),
        Tier(
            "commit",
            entities={"fit": None, "choose": None, "test": 220},
            units=160,  # two pairs each as a rule
            instructions={"fit": 128, "choose": 128, "test": 256},
            borderline=150,
            texts=256,
            documents=20,
            blocks=6,
            left_out=frozenset(),
        ),
        Tier(
            "nightly",
            entities={"fit": None, "choose": None, "test": None},
            units=480,
            instructions={"fit": 256, "choose": 256, "test": 1024},
            borderline=150,
            texts=1024,
            documents=60,
            blocks=None,
            left_out=frozenset(),
            thinks_everywhere=True,
        ),
    )
}


def selected(only: Sequence[str], tier: Tier) -> dict[str, Finding]:
    """The findings that --mechdrift-only names, by their names, a family or a row's label, or all: those of the tier.

    Raises InputError.
    """
    findings = registered()
    wanted = {finding_of(name) for name in only}
    known = set(findings) | {finding.family for finding in findings.values()}
    if unknown := sorted(name for name in only if finding_of(name) not in known):
        raise InputError(
            f"--mechdrift-only {unknown[0]!r}: no such finding", f"one of {', '.join(sorted(known))}", "try --mechdrift-list"
        )
    if left_out := sorted(tier.left_out & wanted):
        raise InputError(
            f"--mechdrift-only {left_out[0]}, which tier {tier.name} does not measure",
            "one that it measures",
            "try another tier",
        )
    return {
        name: finding
        for name, finding in findings.items()
        if tier.includes(name) and (not wanted or wanted & {name, finding.family})
    }


def is_selected(label: str, only: Sequence[str]) -> bool:
    """Whether --mechdrift-only names a row: by its label, of any two checkpoints, its finding or its family; or nothing."""
    finding = finding_of(label)
    return not only or bool({row_of(label), finding, finding.partition(".")[0]} & {row_of(name) for name in only})
