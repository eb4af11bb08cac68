"""Which neurons are chosen, and how two choices are compared, against closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.errors import Unmeasurable
from mechdrift.findings.confidence.entropy_neurons import (
    COUNT,
    candidates,
    chance_of,
    chance_overlap,
    choose,
    controls,
    overlap,
    overlap_by_direction,
    rank_biased_overlap,
)

NEURONS = 120  # a quarter of them is 30


def table(seed: int = 0, count: int = NEURONS) -> np.ndarray:
    """Norms that fall with the neuron's place, LogitVar and rho at random."""
    rng = np.random.default_rng(seed)
    return np.stack([np.linspace(2, 1, count), rng.uniform(0.001, 0.01, count), rng.uniform(size=count)], 1).astype(np.float32)


def test_the_rule() -> None:
    """Of the loudest 30 the ten with least LogitVar, the least first; a quiet neuron with less does not count."""
    given = table()
    given[100, 1] = 1e-6
    chosen = choose(given)
    assert list(chosen.neurons) == sorted(range(30), key=lambda neuron: given[neuron, 1])[:COUNT]
    np.testing.assert_allclose(chosen.ratios, given[:, 0] / np.log(given[:, 1].astype(float)), rtol=1e-6)
    with pytest.raises(Unmeasurable, match="76 neurons in the last MLP: a quarter of them is fewer than 20"):
        choose(table(count=76))


def test_controls_are_like_in_norm_then_in_how_far_they_move_the_stream() -> None:
    chosen = choose(table())
    others = [neuron for neuron in range(30) if neuron not in chosen.neurons]
    near = candidates(chosen)
    for neuron, found in zip(chosen.neurons, near, strict=True):
        distances = sorted(abs(other - neuron) for other in others)  # norms fall evenly
        assert sorted(abs(other - neuron) for other in found) == distances[: len(found)]
    norms = chosen.table[:, 0].astype(float)
    spread = {neuron: 1.0 / norms[neuron] for neuron in range(30)}  # all move the stream by 1 ...
    first, second = near[0][-1], chosen.neurons[0]
    spread |= {other: 3.0 / norms[other] for other in near[0] if other != first} | {second: 1.1 / norms[second]}
    found = controls(chosen, spread)
    assert found[0] == first
    assert len(set(found)) == COUNT
    assert not set(found) & set(chosen.neurons)


def test_two_neurons_do_not_share_a_control_unless_nothing_is_left() -> None:
    """All neurons alike: the nearest in norm that is free, each time."""
    given = table()
    given[:, 0] = 1.0
    chosen = choose(given)
    near = candidates(chosen)
    assert len(set(near)) == 1, "all have the same four candidates"
    assert set(controls(chosen, dict.fromkeys(range(NEURONS), 1.0))) == set(near[0])


@pytest.mark.parametrize(("among", "expected"), [(3584, 0.0014), (20, None), (30, None)])
def test_chance_level(among: int, expected: float | None) -> None:
    """Against simulation; 3584 is a quarter of Llama-3.1-8B's neurons, whose level is published as about .0014."""
    rng = np.random.default_rng(1)
    drawn = np.array([len({*rng.permutation(among)[:COUNT]} & set(range(COUNT))) for _ in range(4000)])
    simulated = drawn / (2 * COUNT - drawn)
    assert chance_overlap(among) == pytest.approx(simulated.mean(), abs=4 * simulated.std() / math.sqrt(4000))
    assert chance_of(2, among) == pytest.approx((drawn >= 2).mean(), abs=0.03)
    if expected is not None:
        assert chance_overlap(among) == pytest.approx(expected, abs=0.00015)


def test_rank_biased_overlap_by_hand() -> None:
    """With p = .5: prefixes of (a, b, c) and (b, a, d) share 0, 2 and 2: RBO = 2/3 / 8 + 1 * (0 / 2 + 1 / 4 + 2/3 / 8)."""
    assert rank_biased_overlap([1, 2, 3], [2, 1, 4], p=0.5) == pytest.approx(2 / 3 / 8 + 1 / 4 + 2 / 3 / 8)
    assert rank_biased_overlap([1, 2], [1, 2]) == pytest.approx(1.0)
    assert rank_biased_overlap([1, 2], [3, 4]) == 0.0


@given(st.permutations(range(12)), st.permutations(range(12)), st.floats(0.1, 0.99))
def test_rank_biased_overlap_is_a_symmetric_share(one: list[int], other: list[int], p: float) -> None:
    found = rank_biased_overlap(one[:10], other[:10], p)
    assert -1e-12 <= found <= 1 + 1e-12
    assert found == pytest.approx(rank_biased_overlap(other[:10], one[:10], p))
    assert rank_biased_overlap(one[:10], one[:10], p) == pytest.approx(1.0)


@given(st.integers(0, COUNT))
def test_overlap_counts_places_and_its_parts_add_up(kept: int) -> None:
    base = table()
    post = base.copy()
    chosen = choose(base)
    moved = list(chosen.neurons[kept:])
    others = [neuron for neuron in range(30) if neuron not in chosen.neurons][: len(moved)]
    post[moved], post[others] = base[others], base[moved]  # a permutation of neurons
    post[:30, 0] = base[:30, 0]
    drift = overlap(chosen, choose(post), 2)
    assert drift.estimate == pytest.approx(kept / (2 * COUNT - kept))
    assert sum(item.contribution for item in drift.items) == pytest.approx(drift.estimate - 1)
    assert (": as published" in drift.note) == (kept >= 8), "of Llama-3.1-8B's ten, eight are shared"
    assert ("unlike published" in drift.note) == (chance_of(kept, 30) >= 0.05)


def test_by_direction_a_permutation_is_none() -> None:
    base = table()
    order = np.random.default_rng(2).permutation(NEURONS)
    post = base[order]
    places = np.argsort(order)  # where each neuron of base went
    one, other = choose(base), choose(post)
    nearest = np.stack([places[list(one.neurons)], np.ones(COUNT)], 1).astype(np.float32)
    assert overlap(one, other, 2).estimate < 0.3
    assert overlap_by_direction(one, other, nearest).estimate == 1.0
    nearest[:5, 0] = [neuron for neuron in range(NEURONS) if neuron not in other.neurons][:5]
    drift = overlap_by_direction(one, other, nearest)
    assert drift.estimate == pytest.approx(5 / 15)
    assert sum(item.contribution for item in drift.items) == pytest.approx(drift.estimate - 1)


def test_other_numbers_of_neurons_have_no_places_in_common() -> None:
    with pytest.raises(Unmeasurable, match="120 neurons in base and 160 in post"):
        overlap(choose(table()), choose(table(count=160)), 2)
