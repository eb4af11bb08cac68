"""Intervals and p-values against closed forms, exact enumeration and scipy."""

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from mechdrift.stats import (
    Evidence,
    Normal,
    PairedProportions,
    Proportion,
    Spread,
    cross_fitted_similarity,
    cross_fitted_slope,
    evidence_of,
    jackknife_error,
    ratio_of_means,
)


def restricted_score(gained: int, lost: int, n: int, delta: float) -> float:
    """Tango's statistic with the nuisance share found by maximising the likelihood numerically."""
    same = n - gained - lost

    def negative_log_likelihood(share: float) -> float:
        shares = (share + delta, share, 1 - 2 * share - delta)
        counts = (gained, lost, same)
        if any(s < 0 or (s == 0 and c > 0) for s, c in zip(shares, counts, strict=True)):
            return math.inf
        return -sum(c * math.log(s) for s, c in zip(shares, counts, strict=True) if c)

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (gained - lost - n * delta) / math.sqrt(n * (2 * share + delta * (1 - delta)))


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 2, 50), (3, 10, 60), (0, 5, 40), (7, 0, 30)])
@pytest.mark.parametrize("delta", [-0.3, -0.1, 0.05, 0.2])
def test_tango_maximises_the_likelihood(gained: int, lost: int, n: int, delta: float) -> None:
    expected = stats.norm.cdf(restricted_score(gained, lost, n, delta))
    assert PairedProportions(gained, lost, n).p_value(delta, "at_least") == pytest.approx(expected, abs=1e-5)


def test_tango_covers_exactly() -> None:
    """Coverage of the 90% interval by enumerating every outcome: a score interval is not exact, but close."""
    n = 40
    intervals = {
        (b, c): PairedProportions(b, c, n).interval() for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n
    }
    for gain, loss in [(0.02, 0.02), (0.05, 0.15), (0.2, 0.3), (0.0, 0.1)]:
        law = stats.multinomial(n, [gain, loss, 1 - gain - loss])
        covered = sum(law.pmf([b, c, n - b - c]) for (b, c), (low, high) in intervals.items() if low <= gain - loss <= high)
        assert covered > 0.86, f"true difference {gain - loss:.2f}: coverage {covered:.3f}"


def test_paired_interval_keeps_its_width_without_disagreement() -> None:
    low, high = PairedProportions(0, 0, 60).interval()
    z = stats.norm.ppf(0.95)
    assert high == pytest.approx(z * z / (60 + z * z), abs=1e-6)  # closed form at zero disagreement
    assert low == pytest.approx(-high, abs=1e-9)


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 200))
def test_paired_interval_inverts_its_p_value(n: int, gained: int, lost: int) -> None:
    gained, lost = min(gained, n), min(lost, n - min(gained, n))
    evidence = PairedProportions(gained, lost, n)
    low, high = evidence.interval()
    assert -1 <= low <= evidence.estimate <= high <= 1
    if low > -1 + 1e-9:
        assert evidence.p_value(low, "at_most") == pytest.approx(0.05, abs=1e-4)
    if high < 1 - 1e-9:
        assert evidence.p_value(high, "at_least") == pytest.approx(0.05, abs=1e-4)


def test_a_bound_nothing_can_break_is_respected() -> None:
    """And one that everything else breaks is broken: a difference is from -1 to 1, a share from 0 to 1."""
    assert PairedProportions(0, 10, 10).p_value(-1.0, "at_least") == 1.0
    assert PairedProportions(0, 0, 10).p_value(-1.0, "at_most") == 0.0
    assert PairedProportions(10, 0, 10).p_value(1.0, "at_most") == 1.0
    assert PairedProportions(0, 0, 10).p_value(1.0, "at_least") == 0.0
    assert Proportion(5, 10).p_value(0.0, "at_least") == Proportion(5, 10).p_value(1.0, "at_most") == 1.0
    assert Proportion(5, 10).p_value(0.0, "at_most") == Proportion(5, 10).p_value(1.0, "at_least") == 0.0
    assert Proportion(0, 10).p_value(0.0, "at_most") == Proportion(10, 10).p_value(1.0, "at_least") == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (37, 60), (1, 400)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.9, method="wilson")
    assert Proportion(successes, n).interval() == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_inverts_its_p_value() -> None:
    low, high = Proportion(37, 60).interval()
    assert Proportion(37, 60).p_value(low, "at_most") == pytest.approx(0.05, abs=1e-9)
    assert Proportion(37, 60).p_value(high, "at_least") == pytest.approx(0.05, abs=1e-9)


def test_normal_equals_scipy_and_is_exact_without_error() -> None:
    law = stats.norm(0.5, 0.1)
    assert Normal(0.5, 0.1, 10).interval() == pytest.approx((law.ppf(0.05), law.ppf(0.95)))
    assert Normal(0.5, 0.1, 10).p_value(0.7, "at_least") == pytest.approx(stats.norm.cdf(-2))
    assert Normal(0.5, 0.0, 10).interval() == (0.5, 0.5)
    assert Normal(0.5, 0.0, 10).p_value(0.5, "at_least") == 1.0
    assert Normal(0.5, 0.0, 10).p_value(0.5000001, "at_least") == 0.0


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30)
    left_out = (values.sum() - values) / 29
    assert jackknife_error(left_out) == pytest.approx(stats.sem(values))


def test_ratio_of_means_equals_brute_force() -> None:
    rng = np.random.default_rng(1)
    above, below = rng.normal(2, 1, 25), rng.normal(3, 1, 25)
    evidence = ratio_of_means(above, below)
    by_hand = np.array([np.delete(above, i).mean() / np.delete(below, i).mean() for i in range(25)])
    assert evidence.estimate == pytest.approx(above.mean() / below.mean())
    assert evidence.standard_error == pytest.approx(jackknife_error(by_hand))


def brute_force_u(x: np.ndarray, y: np.ndarray, apart: np.ndarray) -> float:
    """Mean of x_e . y_f over the pairs that are apart, pair by pair."""
    pairs = [(e, f) for e in range(len(x)) for f in range(len(x)) if apart[e, f]]
    return sum(float(x[e] @ y[f]) for e, f in pairs) / len(pairs)


@pytest.mark.parametrize("excluded", [0, 6])
def test_similarity_equals_brute_force_over_pairs(excluded: int) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 1, (12, 5)), rng.normal(1, 1, (12, 5))
    apart = ~np.eye(12, dtype=bool)
    for e, f in rng.integers(0, 12, (excluded, 2)):
        apart[e, f] = apart[f, e] = False

    def similarity(kept: list[int]) -> float:
        a, b, mask = x[kept], y[kept], apart[np.ix_(kept, kept)]
        return brute_force_u(a, b, mask) / math.sqrt(brute_force_u(a, a, mask) * brute_force_u(b, b, mask))

    found = cross_fitted_similarity(x, y, apart)
    assert found.evidence.estimate == pytest.approx(similarity(list(range(12))))
    left_out = np.array([similarity([i for i in range(12) if i != out]) for out in range(12)])
    assert found.evidence.standard_error == pytest.approx(jackknife_error(left_out))


@pytest.mark.parametrize("degrees", [0.0, 15.0, 60.0])
def test_similarity_of_a_turned_copy_is_the_cosine_exactly(degrees: float) -> None:
    """Cos I + sin J turns every vector by the same angle, so noise turns with it and nothing is left to chance."""
    rng = np.random.default_rng(3)
    x = rng.normal(0.2, 1, (50, 8))
    quarter = np.kron(np.eye(4), np.array([[0.0, -1.0], [1.0, 0.0]]))
    turn = math.cos(math.radians(degrees)) * np.eye(8) + math.sin(math.radians(degrees)) * quarter
    found = cross_fitted_similarity(x, x @ turn.T)
    assert found.evidence.estimate == pytest.approx(math.cos(math.radians(degrees)), abs=1e-9)
    assert found.influence.sum() == pytest.approx(found.evidence.estimate, abs=0.05)


def in_pairs(n: int, *pairs: tuple[int, int]) -> np.ndarray:
    """Which of n entities are apart: these pairs alone."""
    apart = np.zeros((n, n), dtype=bool)
    for e, f in pairs:
        apart[e, f] = apart[f, e] = True
    return apart


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_too_few_entities_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} entities.*too few"):
        cross_fitted_similarity(np.ones((n, 2)), np.ones((n, 2)))
    with pytest.raises(ValueError, match=f"{n} entities: too few"):
        cross_fitted_slope(np.ones((n, 2)), np.ones((n, 2)))


@pytest.mark.parametrize(
    ("apart", "pairs"),
    [
        (in_pairs(6), 0),
        (in_pairs(6, (0, 1)), 1),  # none without either
        (in_pairs(6, (0, 1), (0, 2), (0, 3), (0, 4), (0, 5)), 5),  # none without the first
        (in_pairs(6, (5, 1), (5, 2)), 2),  # none without the last
    ],
)
def test_pairs_that_one_entity_takes_along_are_too_few(apart: np.ndarray, pairs: int) -> None:
    """Without each entity there must be a pair left to estimate from."""
    with pytest.raises(ValueError, match=f"6 entities, {pairs} independent pairs: too few"):
        cross_fitted_similarity(np.ones((6, 2)), np.ones((6, 2)), apart)


def test_four_entities_are_enough() -> None:
    """By hand: U(x, y) = 36/12, U(x, x) = (12^2 - 50)/12, U(y, y) = 1; without the first 3 11/3, (121 - 49)/6, 1, and so on."""
    x, y = np.array([[1.0], [2.0], [3.0], [6.0]]), np.ones((4, 1))
    similar = cross_fitted_similarity(x, y)
    assert similar.evidence.estimate == pytest.approx(3 / math.sqrt(94 / 12))
    without = [(11 / 3, 72 / 6), (10 / 3, 54 / 6), (9 / 3, 40 / 6), (6 / 3, 22 / 6)]
    left_out = np.array([xy / math.sqrt(xx) for xy, xx in without])
    assert similar.evidence.standard_error == pytest.approx(jackknife_error(left_out))
    assert similar.evidence.n == 4
    strength = jackknife_error(np.array([xx for _, xx in without]))
    assert similar.strength[0] == pytest.approx(94 / 12 / strength)
    assert similar.strength[1] == math.inf
    assert cross_fitted_similarity(x / 10, y).strength[0] == pytest.approx(similar.strength[0]), "of no unit"
    assert similar.influence == pytest.approx(similar.evidence.estimate - 3 / 4 * left_out)


def test_a_slope_of_four_entities_is_that_of_pair_by_pair() -> None:
    x, y = np.random.default_rng(4).normal(1, 1, (2, 4, 3))

    def slope(kept: list[int]) -> float:
        others = ~np.eye(len(kept), dtype=bool)
        return brute_force_u(x[kept], y[kept], others) / brute_force_u(y[kept], y[kept], others)

    found, left_out = cross_fitted_slope(x, y)
    assert found.estimate == pytest.approx(slope([0, 1, 2, 3]))
    assert found.n == 4
    assert left_out == pytest.approx(np.array([slope([i for i in range(4) if i != out]) for out in range(4)]))
    assert found.standard_error == pytest.approx(jackknife_error(left_out))


def test_four_entities_in_two_pairs_are_enough() -> None:
    """U(x, x) = (1 x 2 + 3 x 6)/2; without either of a pair the other is left."""
    found = cross_fitted_similarity(np.array([[1.0], [2.0], [3.0], [6.0]]), np.ones((4, 1)), in_pairs(4, (0, 1), (2, 3)))
    assert found.evidence.estimate == pytest.approx(3 / math.sqrt(10))
    left_out = np.array([4.5 / math.sqrt(18), 4.5 / math.sqrt(18), 1.5 / math.sqrt(2), 1.5 / math.sqrt(2)])
    assert found.evidence.standard_error == pytest.approx(jackknife_error(left_out))


def test_four_entities_in_a_row_are_enough() -> None:
    """U(x, x) = (1 x 2 + 2 x 3 + 3 x 6)/3; without the second, 3 x 6 is left of them."""
    found = cross_fitted_similarity(np.array([[1.0], [2.0], [3.0], [6.0]]), np.ones((4, 1)), in_pairs(4, (0, 1), (1, 2), (2, 3)))
    assert found.evidence.estimate == pytest.approx((1.5 + 2.5 + 4.5) / 3 / math.sqrt(26 / 3))
    left_out = np.array([3.5 / math.sqrt(12), 4.5 / math.sqrt(18), 1.5 / math.sqrt(2), 2 / math.sqrt(4)])
    assert found.evidence.standard_error == pytest.approx(jackknife_error(left_out))


def test_the_plug_in_is_the_cosine_of_the_means() -> None:
    """Means (2, 0) and (3, 3)."""
    x = np.array([[1.0, 1.0], [3.0, -1.0], [2.0, 2.0], [2.0, -2.0]])
    y = np.array([[3.0, 1.0], [3.0, 5.0], [2.0, 3.0], [4.0, 3.0]])
    assert cross_fitted_similarity(x, y).plug_in == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(
    "evidence", [Normal(0.2, 0.1, 40), PairedProportions(12.5, 2.0, 50), Proportion(37.0, 60), Spread((0.1, 0.4, 0.2))]
)
def test_evidence_is_the_same_after_a_record(evidence: Evidence) -> None:
    result = json.loads(json.dumps({"kind": evidence.kind, **asdict(evidence)}))  # type: ignore[call-overload]
    assert evidence_of(result) == evidence


def test_evidence_of_no_kind_is_named() -> None:
    with pytest.raises(ValueError, match="evidence 'guess': expected one of normal"):
        evidence_of({"kind": "guess"})
