"""Does the 90% interval of the direction similarity cover? Simulated; an entity's noise is shared by both models."""

import numpy as np
import pytest

from mechdrift.stats import cross_fitted_similarity

ENTITIES, WIDTH, RUNS = 100, 64, 300
SHARED = 0.8  # correlation between the two models' noise on the same entity


def simulate(degrees: float, split_half: float, seed: int) -> tuple[float, float, float]:
    """Coverage, median estimate and mean plug-in cosine; a run whose squared length is negative counts as not covered.

    split_half: similarity of one model's direction between halves of the entities, which sets the noise.
    """
    rng = np.random.default_rng(seed)
    # Halves have n/2 entities: split-half = |t|^2 / (|t|^2 + d s^2 / (n/2)) at |t| = 1.
    noise = np.sqrt((1 - split_half) / split_half * (ENTITIES / 2) / WIDTH)
    angle = np.radians(degrees)
    base, post = np.zeros(WIDTH), np.zeros(WIDTH)
    base[0], post[0], post[1] = 1.0, np.cos(angle), np.sin(angle)
    covered, estimates, plug_ins = 0, [], []
    for _ in range(RUNS):
        first, second = rng.normal(size=(2, ENTITIES, WIDTH)) * noise
        found = cross_fitted_similarity(base + first, post + SHARED * first + np.sqrt(1 - SHARED**2) * second)
        low, high = found.evidence.interval()
        covered += low <= np.cos(angle) <= high
        estimates.append(found.evidence.estimate)
        plug_ins.append(found.plug_in)
    return covered / RUNS, float(np.nanmedian(estimates)), float(np.mean(plug_ins))


@pytest.mark.parametrize("split_half", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("degrees", [0, 15, 30])
def test_interval_covers(degrees: int, split_half: float) -> None:
    """At least 85% of intervals cover; shown with `pytest tests/power -rP`."""
    coverage, estimate, plug_in = simulate(degrees, split_half, seed=degrees)
    print(
        f"turned {degrees} degrees, split-half {split_half}: true {np.cos(np.radians(degrees)):.3f}, "
        f"median estimate {estimate:.3f}, plug-in {plug_in:.3f}, coverage of the 90% interval {coverage:.3f} over {RUNS} runs"
    )
    assert coverage >= 0.85
