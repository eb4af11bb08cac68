"""Do the 90% intervals of location rows cover? Simulated maps; a unit's noise is shared by both models."""

import numpy as np
import pytest

from mechdrift.findings.knowledge import depth as knowledge_depth
from mechdrift.findings.knowledge import location as knowledge
from mechdrift.findings.knowledge.maps import KnowledgeReadings, Patched
from mechdrift.prompts.pairs import PromptPair

UNITS, LAYERS, RUNS = 60, 12, 100
COLUMNS = ("subject[-2]", "subject[-1]", "object[-1]", "last")
PAIRS = tuple(PromptPair((1,), (2,), (3, 4), 0, COLUMNS, str(unit), "cities", "test", ("", "")) for unit in range(UNITS))
GAP = 8.0
SHARED = 0.8  # correlation between the two models' noise on the same unit


def planted(shift: float) -> np.ndarray:
    """Recovery, [layer, column]."""
    block = np.arange(LAYERS)
    columns = [height * np.exp(-(((block - centre - shift) / 1.5) ** 2) / 2) for centre, height in ((2, 0.2), (3, 0.5), (6, 0.4))]
    return np.stack([*columns, 1 / (1 + np.exp(-(block - 7 - shift)))], axis=1)


def simulate(shift: float, noise: float, seed: int) -> dict[str, tuple[float, float, float]]:
    """Truth, coverage and median estimate of location on knowledge columns and of the object's depth."""
    rng = np.random.default_rng(seed)
    first, second = planted(0), planted(shift)
    chosen = [0, 1, 2]
    truth = {
        "location": float(np.corrcoef(first[:, chosen].ravel(), second[:, chosen].ravel())[0, 1]),
        "depth": float(np.diff([(np.arange(LAYERS) @ map_[:, 2]) / map_[:, 2].sum() for map_ in (first, second)])[0] / LAYERS),
    }
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in truth}
    for _ in range(RUNS):
        common, own = rng.normal(size=(2, UNITS, LAYERS, len(COLUMNS))) * noise
        loud, own_loud = rng.normal(size=(2, UNITS, 1, 1)) * 0.2  # units differ in how much they show
        scale = [np.exp(loud), np.exp(SHARED * loud + np.sqrt(1 - SHARED**2) * own_loud)]
        clean, corrupt = np.full(UNITS, GAP / 2), np.full(UNITS, -GAP / 2)
        base, post = (
            Patched(GAP * (map_ * each) - GAP / 2 + errors, clean, corrupt)
            for map_, each, errors in (
                (first, scale[0], common),
                (second, scale[1], SHARED * common + np.sqrt(1 - SHARED**2) * own),
            )
        )
        read = KnowledgeReadings(base, post, PAIRS, "judged")
        for name, row in (("location", knowledge.location(read)), ("depth", knowledge_depth.depth_shift(read, "object"))):
            low, high = row.interval
            found[name].append((row.estimate, low <= truth[name] <= high))
    return {
        name: (truth[name], float(np.mean([hit for _, hit in runs])), float(np.median([estimate for estimate, _ in runs])))
        for name, runs in found.items()
    }


@pytest.mark.parametrize(
    ("shift", "noise"),
    [(0.7, 4.0), *(pytest.param(*other, marks=pytest.mark.nightly) for other in ((0.0, 1.0), (0.0, 4.0), (0.7, 1.0)))],
)
def test_interval_covers(shift: float, noise: float) -> None:
    """At least 85% of intervals cover; shown with `pytest tests/power -rP`."""
    for name, (truth, coverage, estimate) in simulate(shift, noise, seed=7).items():
        print(
            f"{name}, moved by {shift} blocks, noise {noise} logits a cell: true {truth:.3f}, median estimate {estimate:.3f}, "
            f"coverage of the 90% interval {coverage:.3f} over {RUNS} runs"
        )
        assert coverage >= 0.85
