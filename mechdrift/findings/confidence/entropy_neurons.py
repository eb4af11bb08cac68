"""Which neurons of the last MLP are entropy neurons, and whether they are the same before and after post-training.

Rule as published (Stolfo et al. 2024, Confidence Regulation Neurons in Language Models, arXiv 2406.16254): of the quarter of
neurons that write with the greatest norm the ten with the least LogitVar, the variance over tokens of the cosine between what a
neuron writes and the unembedding. It reads weights alone and cannot show that a neuron does anything: see confidence.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item
from mechdrift.stats import Normal

COUNT = 10
CANDIDATES = 4  # neurons of like norm among which the control of an entropy neuron is chosen by its activations
PERSISTENCE = 0.9  # p of the rank-biased overlap
PUBLISHED = 8  # of COUNT shared, Llama-3.1-8B against its Instruct; all of them against its SFT (Du et al. 2025, artefacts)
CHANCE_LEVEL = 0.05
SITE = "last MLP"
SITE_RULE = "of the quarter of neurons by norm, the 10 with the least LogitVar"

Table = Float[np.ndarray, "neuron 3"]


@dataclass(frozen=True)
class Chosen:
    """The entropy neurons of one model."""

    neurons: tuple[int, ...]
    """Indices, the least LogitVar first."""
    table: Table
    """Norm, LogitVar and rho of every neuron."""

    @property
    def loud(self) -> int:
        """Neurons among which they were chosen."""
        return len(self.table) // 4

    @property
    def ratios(self) -> Float[np.ndarray, " neuron"]:
        """Norm over log LogitVar of every neuron: as published, negative; NaN where LogitVar is 0."""
        norm, variance = self.table[:, 0].astype(np.float64), self.table[:, 1].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return norm / np.log(variance)


def choose(table: Table) -> Chosen:
    """The entropy neurons by the published rule; of equals the first. Raises Unmeasurable where there are too few neurons."""
    loud = loudest(table)
    if len(loud) < 2 * COUNT:
        raise Unmeasurable(f"{len(table)} neurons in the last MLP: a quarter of them is fewer than {2 * COUNT}")
    least = loud[np.argsort(table[loud, 1], kind="stable")[:COUNT]]
    return Chosen(tuple(int(neuron) for neuron in least), table)


def loudest(table: Table) -> Int[np.ndarray, " quarter"]:
    """The quarter of neurons that write with the greatest norm."""
    return np.argsort(-table[:, 0], kind="stable")[: len(table) // 4]


def candidates(chosen: Chosen) -> tuple[tuple[int, ...], ...]:
    """For each entropy neuron the other neurons of the same quarter that are nearest to it in norm, the nearest first."""
    others = np.array([neuron for neuron in loudest(chosen.table) if neuron not in chosen.neurons])
    norms = chosen.table[:, 0]
    return tuple(
        tuple(int(other) for other in others[np.argsort(np.abs(norms[others] - norms[neuron]), kind="stable")[:CANDIDATES]])
        for neuron in chosen.neurons
    )


def controls(chosen: Chosen, spread: dict[int, float]) -> tuple[int, ...]:
    """For each entropy neuron the candidate that moves the stream most nearly as far: norm times spread of activation.

    spread: standard deviation of the activation of every entropy neuron and candidate. None is taken twice, unless all candidates
    of a neuron are taken: then its nearest one is.
    """
    norms = chosen.table[:, 0]
    taken: list[int] = []
    for neuron, near in zip(chosen.neurons, candidates(chosen), strict=True):
        moves = float(norms[neuron]) * spread[neuron]
        free = [other for other in near if other not in taken] or list(near)
        taken.append(min(free, key=lambda other: abs(float(norms[other]) * spread[other] - moves)))
    return tuple(taken)


def chance_overlap(among: int, count: int = COUNT) -> float:
    """Expected intersection over union of two sets of this size drawn at random from the same `among` neurons."""
    shared = np.arange(count + 1)
    return float(np.sum(stats.hypergeom(among, count, count).pmf(shared) * shared / (2 * count - shared)))


def chance_of(shared: int, among: int, count: int = COUNT) -> float:
    """Probability that two random sets share so many or more."""
    return float(stats.hypergeom(among, count, count).sf(shared - 1))


def rank_biased_overlap(one: Sequence[int], other: Sequence[int], p: float = PERSISTENCE) -> float:
    """Agreement of two rankings of equal length without ties, in [0, 1], the top weighted most.

    Extrapolated from their depth k in closed form: X_k / k p^k + (1 - p) / p sum_d X_d / d p^d, X_d what the first d share.
    Source: Webber, Moffat and Zobel 2010, RBO_ext.
    """
    agreement = [len({*one[:depth]} & {*other[:depth]}) / depth for depth in range(1, len(one) + 1)]
    weighted = sum(share * p**depth for depth, share in enumerate(agreement, 1))
    return agreement[-1] * p ** len(one) + (1 - p) / p * weighted


def overlap(base: Chosen, post: Chosen, null_directions: int) -> Drift:
    """The same neurons are entropy neurons before and after: intersection over union of their places.

    In [0, 1]; higher is better; exact: nothing was sampled. A permutation of neurons, which no output shows, takes it to chance;
    overlap_by_direction does not follow. The note has the chance level, the agreement of ranks, how norm over log LogitVar
    changed in shared ones, and rho. Raises Unmeasurable where the numbers of neurons differ. Source: Du et al. 2025, claim 4.
    """
    if len(base.table) != len(post.table):
        raise Unmeasurable(f"the last MLP has {len(base.table)} neurons in base and {len(post.table)} in post")
    shared = [neuron for neuron in base.neurons if neuron in post.neurons]
    rank = rank_biased_overlap(base.neurons, post.neurons)
    note = f"{_summary(len(shared), base.loud)}; rank-biased overlap {rank:.3f} (p = {PERSISTENCE:g})"
    if shared:
        changes = post.ratios[shared] / base.ratios[shared]
        note += (
            f"; norm / log LogitVar of shared ones, post over base: median {np.median(changes):.3f} "
            f"[{changes.min():.3f} .. {changes.max():.3f}]"
        )
    rho = [float(np.median(one.table[list(one.neurons), 2])) for one in (base, post)]
    note += f"; rho (bottom {null_directions} directions), median: base {rho[0]:.3f}, post {rho[1]:.3f}"
    union = sorted({*base.neurons} | {*post.neurons})
    items = [
        Item(
            f"neuron {neuron}",
            "shared" if neuron in shared else "base alone" if neuron in base.neurons else "post alone",
            float(base.ratios[neuron]),
            float(post.ratios[neuron]),
            0.0 if neuron in shared else -1 / len(union),
        )
        for neuron in union
    ]
    return _drift("confidence.overlap", len(shared), note, items)


def overlap_by_direction(base: Chosen, post: Chosen, nearest: Float[np.ndarray, "10 2"]) -> Drift:
    """The same directions are written by entropy neurons before and after, whatever the neurons' places.

    nearest: for each of base's, the neuron of post that writes most nearly along what it writes, and their cosine. A neuron is
    shared if that one is an entropy neuron of post. Intersection over union in [0, 1]; higher is better; exact. Beside `overlap`
    it tells a change of places from a change of neurons. Ours.
    """
    places = dict(zip(base.neurons, (int(place) for place in nearest[:, 0]), strict=True))
    shared = len({*places.values()} & {*post.neurons})
    items = [
        Item(
            f"neuron {neuron}, in post {place}",
            "shared" if place in post.neurons else "base alone",
            float(base.ratios[neuron]),
            float(post.ratios[place]),
            0.0 if place in post.neurons else -2 / (2 * COUNT - shared),
        )
        for neuron, place in places.items()
    ]
    low, high = float(nearest[:, 1].min()), float(nearest[:, 1].max())
    note = f"{_summary(shared, base.loud)}; cosine with the nearest of post {low:.3f} .. {high:.3f}"
    return _drift("confidence.overlap_by_direction", shared, note, items)


def _summary(shared: int, among: int) -> str:
    """How many are shared, and what chance would do."""
    chance = chance_of(shared, among)
    if shared >= PUBLISHED:
        word = "as published"
    elif chance < CHANCE_LEVEL:
        word = f"more than by chance, and fewer than the {PUBLISHED} published of Llama-3.1-8B"
    else:
        word = "unlike published"
    return f"{shared} of {COUNT} shared, by chance {chance_overlap(among):.4f} (p {chance:.2g}): {word}"


def _drift(name: str, shared: int, note: str, items: Sequence[Item]) -> Drift:
    """Intersection over union of two sets of COUNT."""
    return Drift(
        measure=name,
        evidence=Normal(shared / (2 * COUNT - shared), 0.0, 0),
        null=1.0,
        unit="intersection over union",
        better="higher",
        site=SITE,
        site_rule=SITE_RULE,
        data="weights",
        parameters={"count": COUNT},
        note=note,
        items=tuple(items),
    )
