"""What is claimed of knowledge: one table, each claim in two prompt forms.

`judged`, as published, and `cloze`, for models that know what they cannot judge.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.drift import Drift
from mechdrift.findings.knowledge import depth, location, transfer
from mechdrift.findings.knowledge.readings import ByForm, Knowledge
from mechdrift.prompts.pairs import FORMS

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, knowledge"


def noted(measure: Callable[..., Drift]) -> Callable[..., Drift]:
    """A measure whose rows say how many pairs of each kind were swept."""

    @wraps(measure)
    def with_note(read: Knowledge, *arguments: Any) -> Drift:
        return read.noted(measure(read.read, *arguments))

    return with_note


def _own(by_form: ByForm, form: str) -> Sequence[Any]:
    return (by_form.read(form),)


def _whole(by_form: ByForm, form: str) -> Sequence[Any]:
    return by_form.read(form), "all"


def _across(by_form: ByForm, form: str) -> Sequence[Any]:
    read = by_form.read(form)
    return read, read.transferred


def _forward(by_form: ByForm, form: str) -> Sequence[Any]:
    return *_across(by_form, form), "forward"


def _backward(by_form: ByForm, form: str) -> Sequence[Any]:
    return *_across(by_form, form), "backward"


InBothForms = partial(Claim[ByForm], rows=over(form=FORMS))
KNOWLEDGE: Family[ByForm] = Family(
    "knowledge",
    (
        InBothForms(
            "location",
            "What the model knows is read at the same tokens and blocks before and after post-training.",
            f"{DU}, claim 1, on the tokens that carry it and across disjoint entities",
            noted(location.location),
            _own,
            version=2,  # what base's route goes through beside subject and object is compared too
        ),
        InBothForms(
            "location_all",
            "The whole map, last token included, is what it was.",
            f"{DU}, claim 1",
            noted(location.location),
            _whole,
        ),
        InBothForms(
            "depth_shift",
            "What the model knows is as deep in the network after post-training as before.",
            "ours, beside the location",
            noted(depth.depth_shift),
            _own,
        ),
        InBothForms(
            "accuracy",
            "The post model answers what the base model answered.",
            f"{DU}; the absolute row beside the maps",
            noted(location.accuracy),
            _own,
        ),
        InBothForms(
            "clean_gap",
            "The post model tells the two answers apart by as wide a margin as the base model.",
            f"{DU}; the absolute row beside the maps",
            noted(location.clean_gap),
            _own,
        ),
        InBothForms(
            "published", "The binned maps are what they were.", f"{DU}, claim 1, as published", noted(location.published), _own
        ),
        InBothForms(
            "recovery_forward",
            "The base model's representations bring back the post model's answer as well as its own do.",
            f"{DU}, claim 1, forward patching",
            noted(transfer.cross_recovery),
            _forward,
        ),
        InBothForms(
            "recovery_backward",
            "The post model's representations bring back the base model's answer as well as its own do.",
            f"{DU}, claim 1, backward patching",
            noted(transfer.cross_recovery),
            _backward,
        ),
        InBothForms(
            "recovery_asymmetry",
            "Representations work as well in one direction as in the other.",
            f"{DU}, claim 1; published is that backward works less",
            noted(transfer.asymmetry),
            _across,
        ),
    ),
)
FINDINGS = KNOWLEDGE.findings
