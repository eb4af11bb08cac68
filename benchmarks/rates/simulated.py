"""The bars on estimates whose standard error is itself estimated: similarities and ratios, drawn again and again."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mechdrift.stats import Normal, cross_fitted_similarity, ratio_of_means
from mechdrift.verdict.profiles import load_profile

from .bars import Judged, verdict
from .tables import share, table

ENTITIES, WIDTH, RUNS = 390, 64, 1000
Draw = Callable[[float, np.random.Generator], Normal]


def similarity(cosine: float, rng: np.random.Generator, noise: float) -> Normal:
    """Of directions of length 1 at this cosine, seen through noise of which both models share four fifths of the variance."""
    base, post = np.zeros(WIDTH), np.zeros(WIDTH)
    base[0], post[0], post[1] = 1.0, cosine, np.sqrt(1 - cosine**2)
    first, second = noise * rng.normal(size=(2, ENTITIES, WIDTH))
    return cross_fitted_similarity(base + first, post + np.sqrt(0.8) * first + np.sqrt(0.2) * second).evidence


def ratio(true: float, rng: np.random.Generator) -> Normal:
    """Of gaps that differ from entity to entity by a log-normal factor, post's with noise of their own."""
    base = np.exp(0.5 * rng.normal(size=ENTITIES))
    return ratio_of_means(true * base + 0.5 * rng.normal(size=ENTITIES), base)


DRAWS: dict[str, tuple[str, Draw]] = {
    **{
        f"similarity, noise {noise:g}": ("truth.direction_similarity", partial(similarity, noise=noise))
        for noise in (0.2, 0.6, 2.0)
    },
    "ratio of means": ("truth.clean_gap", ratio),
}


def judged(label: str) -> Judged:
    """A row by the shipped profile's own limit; what it is judged on is drawn."""
    profile = load_profile("base-to-post")
    limit = profile.rule(label).limit
    assert limit
    return Judged(label, limit, profile.gated_as_shipped, 1.0, "normal", ENTITIES)


def simulated(name: str, runs: int, seed: int = 0) -> tuple[int, int, float]:
    """Of so many draws: how often held with the truth at the limit, how often drifted at twice it; and the mean width there.

    The width is half the 90% interval at the limit.
    """
    label, draw = DRAWS[name]
    row, rng = judged(label), np.random.default_rng(seed)
    (bound,) = row.bounds
    at_limit = [draw(bound, rng) for _ in range(runs)]
    held = sum(verdict(row, each) == "held" for each in at_limit)
    drifted = sum(verdict(row, draw(2 * bound - row.origin, rng)) == "drifted" for _ in range(runs))
    return held, drifted, float(np.mean([(each.interval().high - each.interval().low) / 2 for each in at_limit]))


def write_simulated(folder: Path) -> None:
    """The counts, where they are not there yet."""
    path = folder / "simulated.json"
    if not path.is_file():
        path.write_text(json.dumps({name: simulated(name, RUNS) for name in DRAWS}), encoding="utf-8")


def simulated_table(folder: Path) -> str:
    """Bars (a) and (c), with what the estimates' intervals were."""
    path = folder / "simulated.json"
    found = json.loads(path.read_bytes()) if path.is_file() else {}
    lines = [
        [name, str(ENTITIES), f"{width:.4f}", str(judged(DRAWS[name][0]).limit), share(held, RUNS), share(drifted, RUNS)]
        for name, (held, drifted, width) in found.items()
    ]
    head = ["simulated", "n", "half the 90% interval", "limit", "held, truth at the limit", "drifted, at twice it"]
    return table(head, lines)
