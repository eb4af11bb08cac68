"""What is claimed of confidence: one table."""

from collections.abc import Sequence
from typing import Any

from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.confidence import entropy_neurons, gaps
from mechdrift.findings.confidence.readings import Confidence, known
from mechdrift.findings.judging import require_judgement

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, confidence"


def _effect(read: Confidence, model: str) -> Sequence[Any]:
    of_model = read.base if model == "base" else read.post
    return known(of_model.entropies), known(read.texts), model


def _calibration(read: Confidence) -> Sequence[Any]:
    base, post = known(read.base.gaps), known(read.post.gaps)
    require_judgement(base, read.statements, post)
    return base, post, read.statements


def _explained_calibration(read: Confidence) -> Sequence[Any]:
    base, post, statements = _calibration(read)
    ablated = (base, known(read.base.ablated_gaps)), (post, known(read.post.ablated_gaps))
    return *ablated, statements, known(read.base.entropies)


CONFIDENCE: Family[Confidence] = Family(
    "confidence",
    (
        Claim(
            "overlap",
            "The same neurons are entropy neurons before and after post-training.",
            DU,
            entropy_neurons.overlap,
            lambda read: (known(read.base.chosen), known(read.post.chosen), read.null_directions),
        ),
        Claim(
            "overlap_by_direction",
            "Entropy neurons write in the same directions before and after post-training, wherever they are.",
            "ours, beside the overlap",
            entropy_neurons.overlap_by_direction,
            lambda read: (known(read.base.chosen), known(read.post.chosen), known(read.nearest)),
        ),
        Claim(
            "neuron_effect",
            "Entropy neurons move the model's confidence through the final norm, as other neurons do not.",
            "Stolfo et al. 2024, arXiv 2406.16254",
            gaps.neuron_effect,
            _effect,
            over(model=("base", "post")),
        ),
        Claim(
            "entropy_gap",
            "The post model is as sure of the next token as the base model.",
            f"{DU}; the change that entropy neurons were to explain",
            gaps.entropy_gap,
            lambda read: (known(read.base.plain), known(read.post.plain), known(read.texts)),
        ),
        Claim(
            "entropy_gap_explained",
            "The change in entropy goes through entropy neurons; published is that it does not.",
            DU,
            gaps.entropy_gap_explained,
            lambda read: (known(read.base.entropies), known(read.post.entropies), known(read.texts)),
        ),
        Claim(
            "calibration_gap",
            "The post model's confidence in its judgements is as close to how often it is right as the base model's.",
            "ours, beside the entropy; error as Guo et al. 2017, arXiv 1706.04599",
            gaps.calibration_gap,
            _calibration,
        ),
        Claim(
            "calibration_gap_explained",
            "The change in calibration goes through entropy neurons; published is that it does not.",
            DU,
            gaps.calibration_gap_explained,
            _explained_calibration,
        ),
    ),
)
FINDINGS = CONFIDENCE.findings
