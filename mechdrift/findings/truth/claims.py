"""What is claimed of truth: one table."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.drift import Drift
from mechdrift.findings.truth import directions, probes, steering
from mechdrift.findings.truth.readings import Truth
from mechdrift.findings.truth.recorded import TruthReadings
from mechdrift.findings.truth.steering import FLIPS, FORMULAS

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, truthfulness"
MARKS = "Marks and Tegmark 2024, arXiv 2310.06824"


def noted(measure: Callable[..., Drift]) -> Callable[..., Drift]:
    """A measure whose rows say which kinds of statements were left out."""

    @wraps(measure)
    def with_note(read: TruthReadings, *arguments: Any) -> Drift:
        return read.noted(measure(*arguments))

    return with_note


def _transfer(truth: Truth, direction: str) -> Sequence[Any]:
    read = truth.recorded
    return read, read.base, read.post, read.statements, direction, read.place


def _judgements(truth: Truth) -> Sequence[Any]:
    read = truth.recorded
    return read, read.base_gap, read.post_gap, read.statements


TRUTH: Family[Truth] = Family(
    "truth",
    (
        Claim(
            "direction_similarity",
            "The direction that tells true statements from false is nearly the same before and after post-training.",
            DU,
            noted(directions.direction_similarity),
            lambda truth: (
                (read := truth.recorded),
                read.base,
                read.post,
                read.statements,
                truth.readable,
                read.place,
            ),
            version=2,  # where post has too little left, its own probe decides
        ),
        Claim(
            "probe_transfer_forward",
            "A truth probe fitted on the base model reads the post model as well as the post model's own probe.",
            DU,
            noted(probes.probe_transfer),
            lambda truth: _transfer(truth, "forward"),
            version=2,  # where post has too little left, its own probe decides
        ),
        Claim(
            "probe_transfer_backward",
            "A truth probe fitted on the post model reads the base model as well as the base model's own probe.",
            DU,
            noted(probes.probe_transfer),
            lambda truth: _transfer(truth, "backward"),
        ),
        Claim(
            "probe_accuracy",
            "Truth is as readable from the post model, by its own probe, as it was from the base model.",
            DU,
            noted(probes.probe_accuracy),
            lambda truth: ((read := truth.recorded), read.base, read.post, read.statements, read.place),
        ),
        Claim(
            "judgement_accuracy",
            "The post model judges statements TRUE or FALSE as well as the base model did.",
            f"{DU}; the absolute row beside the direction",
            noted(probes.judgement_accuracy),
            _judgements,
        ),
        Claim(
            "clean_gap",
            "The post model tells true from false by as wide a margin as the base model.",
            f"{DU}; the absolute row beside steering",
            noted(probes.clean_gap),
            _judgements,
        ),
        Claim(
            "judgement_direction",
            "What sets judging true apart from judging false, at the end of the judged prompt, "
            "points the same way in both models.",
            f"{DU}; apart from the truth direction, since it is mostly the unembedding of the two answers",
            noted(directions.judgement_direction),
            lambda truth: (truth.recorded, *truth.judging, truth.recorded.statements, truth.judgement),
        ),
        Claim(
            "two_directions",
            "With negated statements too, the directions in which truth lies are the same before and after post-training.",
            "Buerger et al. 2024, Truth is Universal, arXiv 2407.12831, two-direction form",
            noted(directions.two_directions),
            lambda truth, direction: (
                (read := truth.recorded),
                read.base_both,
                read.post_both,
                read.both,
                direction,
                read.place,
            ),
            over(direction=("general", "polarity")),
        ),
        Claim(
            "steering_transfer",
            "The base model's truth direction steers the post model as well as the post model's own does.",
            f"{DU}, intervention effect",
            steering.transfer,
            lambda truth: truth.steered.transfer("truth.steering_transfer"),
            version=2,
        ),
        Claim(
            "steering_transfer_by",
            "The base model's truth direction steers the post model as well as its own, each way and by each published formula.",
            f"{DU}, intervention effect; {MARKS}, normalised indirect effect",
            steering.transfer,
            lambda truth, formula, flips: truth.steered.transfer("truth.steering_transfer_by", formula, flips),
            over(formula=FORMULAS, flips=FLIPS),
            version=2,
        ),
        Claim(
            "steering_backward",
            "The post model's truth direction steers the base model as well as the base model's own does.",
            f"{DU}, intervention effect",
            steering.transfer,
            lambda truth: truth.steered.transfer("truth.steering_backward"),
            version=2,
        ),
        Claim(
            "steering_effect",
            "The post model is steered by its own truth direction as much as the base model was by its own.",
            f"{DU}; the absolute row beside the transfer",
            steering.own_difference,
            lambda truth: truth.steered.effect(),
            version=2,
        ),
    ),
)
FINDINGS = TRUTH.findings
