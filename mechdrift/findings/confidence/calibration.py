"""Reliability of judgements: how far a model's confidence in its answers is from how often they are right."""

import numpy as np
from jaxtyping import Bool, Float, Int

from mechdrift.stats import Jackknifed

BINS = 10

Confidences = Float[np.ndarray, " judgement"]
Hits = Bool[np.ndarray, " judgement"]


def calibration_error(confidences: Confidences, hits: Hits, entities: Int[np.ndarray, " judgement"]) -> Jackknifed:
    """Expected calibration error over BINS bins of equal mass: in [0, 1], 0 = calibrated; by the delete-one-entity jackknife.

    sum over bins of |sum of hits - sum of confidences|, over the number of judgements; bins stay when an entity is left out.
    confidences: probability given to the answer, in [0.5, 1] of two; hits: whether it is right; entities: 0 .. n - 1, the unit of
    sampling. Judgements of equal confidence share a bin, so there may be fewer. Biased upwards, as every binned estimate is: see
    error_by_chance. Source: Guo et al. 2017; equal mass: Nixon et al. 2019.
    """
    bins = _bins(confidences)
    gaps = np.zeros((int(entities.max()) + 1, BINS))
    np.add.at(gaps, (entities, bins), hits - confidences.astype(np.float64))
    counts = np.bincount(entities, minlength=len(gaps))
    total = gaps.sum(0)
    return Jackknifed(float(np.abs(total).sum() / len(hits)), np.abs(total - gaps).sum(1) / (len(hits) - counts))


def error_by_chance(confidences: Confidences) -> float:
    """The error that a perfectly calibrated judge shows on so many judgements of these confidences, as bins are never quite even.

    sum over bins of sqrt(2 / pi) times the standard deviation of its number of hits, over the number of judgements: the mean of
    |x| for a normal x, judgements independent.
    """
    values = confidences.astype(np.float64)
    variances = np.bincount(_bins(confidences), values * (1 - values), minlength=BINS)
    return float(np.sqrt(2 / np.pi) * np.sqrt(variances).sum() / len(values))


def _bins(confidences: Confidences) -> Int[np.ndarray, " judgement"]:
    """The bin of each judgement. A bin ends at its edge, so that equal confidences stay together."""
    return np.searchsorted(np.quantile(confidences, np.arange(1, BINS) / BINS), confidences, side="left")


def confidence_of(gaps: Float[np.ndarray, " judgement"]) -> Confidences:
    """Probability of the likelier of two answers, from the difference of their logits."""
    return 1 / (1 + np.exp(-np.abs(gaps.astype(np.float64))))
