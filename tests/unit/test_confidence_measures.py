"""Gaps in entropy and calibration, and what of them goes away, against closed forms and planted effects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.engine.last_mlp import Ablation, LastMLP, Norm, Streams, entropies, neuron_table
from mechdrift.errors import Unmeasurable
from mechdrift.findings.confidence.calibration import BINS, calibration_error, confidence_of, error_by_chance
from mechdrift.findings.confidence.gaps import (
    Entropies,
    Moved,
    Sampled,
    calibration_gap,
    calibration_gap_explained,
    entropies_of,
    entropy_gap,
    entropy_gap_explained,
    explained,
    neuron_effect,
    require_effect,
)
from mechdrift.models.head import Head
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Jackknifed, ratio_of_means

UNITS = 60
RNG = np.random.default_rng(0)


def sampled(count: int = UNITS) -> Sampled:
    """One text a unit."""
    names = tuple(f"text {number}" for number in range(count))
    return Sampled(names, ("texts",) * count, np.arange(count), f"{count} texts")


def moved(total: float, direct: float) -> Moved:
    """Effects with some noise over units."""
    noise = RNG.uniform(0.9, 1.1, UNITS)
    return Moved(total * noise, direct * noise)


def entropies_with(plain: np.ndarray, ablated: np.ndarray, total: float = 0.1, direct: float = 0.01) -> Entropies:
    """Of a model whose entropy neurons have these effects; its controls' are direct."""
    return Entropies(plain, moved(total, direct), moved(0.1, 0.1), ablated)


# A planted null space: the unembedding reads all of the stream but its last axis, to which neuron 0 alone writes.
WIDTH, TOKENS = 6, 50


def planted(cap: float | None = None) -> LastMLP:
    rng = torch.Generator().manual_seed(0)
    head = torch.randn(TOKENS, WIDTH, generator=rng)
    head[:, -1] = 0
    raw = torch.randn(3, WIDTH, generator=rng)
    raw[0] = torch.tensor([0.0] * (WIDTH - 1) + [4.0])
    raw[1, -1] = 0
    norm = Norm(torch.ones(WIDTH), None, 1e-6, False)
    return LastMLP(raw, raw, None, norm, head, torch.zeros(TOKENS), Head(1.0, cap))


@pytest.mark.parametrize("cap", [None, 3.0])
def test_a_neuron_in_the_null_space_works_through_the_norm_alone(cap: float | None) -> None:
    """Its LogitVar is 0 and its rho 1; without it the entropy falls by a closed form, and directly by nothing at all."""
    mlp = planted(cap)
    table = neuron_table(mlp)
    assert table[0].tolist() == pytest.approx([4.0, 0.0, 1.0], abs=1e-6)
    assert (table[1:, 1] > 1e-3).all()
    rest = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    rest[:, -1] = 0
    activation = torch.linspace(0, 3, 20)[:, None]
    streams = Streams(rest + activation * mlp.raw[0], None, activation)
    found = entropies(mlp, streams, [0], [Ablation((0,), (0.0,))])

    def expected(stream: torch.Tensor) -> torch.Tensor:
        scale = (stream.square().mean(1, keepdim=True) + 1e-6).sqrt()
        logits = rest @ mlp.head.T / scale
        return torch.distributions.Categorical(logits=logits if cap is None else cap * torch.tanh(logits / cap)).entropy()

    torch.testing.assert_close(found[:, 0], expected(rest + activation * mlp.raw[0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, 1], expected(rest), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, 2], found[:, 0], rtol=1e-5, atol=1e-5)
    assert (found[1:, 0] - found[1:, 1] > 0.01).all(), "without it the model is surer"


def test_readings_become_means_by_unit() -> None:
    """Two texts of one unit, one of another; two entropy neurons and controls; set apart from single ablations."""
    texts = Sampled(("a", "b"), ("k", "k"), np.array([0, 0, 1]), "")
    plain = [np.array([1.0, 3.0]), np.array([5.0]), np.array([2.0])]
    shifts = np.array([0.1, -0.2, -0.3, 0.4, 0.05, 0.06, 0.07, 0.08, 1.0, 9.0])
    rows = [np.concatenate([row[:, None], row[:, None] + shifts], 1) for row in plain]
    found = entropies_of(rows, texts)
    np.testing.assert_allclose(found.plain, [3.5, 2.0])
    np.testing.assert_allclose(found.ablated, [4.5, 3.0])
    np.testing.assert_allclose(found.chosen.total, [0.2, 0.2])
    np.testing.assert_allclose(found.chosen.direct, [0.3, 0.3])
    np.testing.assert_allclose(found.controls.total, [0.06, 0.06])
    np.testing.assert_allclose(found.controls.direct, [0.07, 0.07])


def test_an_effect_through_the_norm_is_told_from_a_direct_one() -> None:
    plain = np.ones(UNITS)
    works, not_ = entropies_with(plain, plain), entropies_with(plain, plain, direct=0.1)
    drift = neuron_effect(works, sampled(), "base")
    assert drift.estimate == pytest.approx(0.9)
    assert drift.null is None
    assert ": as published" in drift.note
    require_effect(works)
    assert ": unlike published" in neuron_effect(not_, sampled(), "post").note
    with pytest.raises(
        Unmeasurable, match=r"base's entropy neurons work through the norm no more than their controls: .* n = 60"
    ):
        require_effect(not_)


def test_the_entropy_gap_is_a_mean_with_its_standard_error() -> None:
    base, change = RNG.uniform(1, 3, UNITS), RNG.normal(-0.2, 0.1, UNITS)
    drift = entropy_gap(base, base + change, sampled())
    assert drift.estimate == pytest.approx(change.mean())
    assert drift.evidence.standard_error == pytest.approx(change.std(ddof=1) / np.sqrt(UNITS))  # type: ignore[attr-defined]
    assert sum(item.contribution for item in drift.items) == pytest.approx(drift.estimate)
    same = entropy_gap(base, base, sampled())
    assert (same.estimate, same.of_identical().estimate) == (0.0, 0.0)


@pytest.mark.parametrize(("share", "word"), [(1.0, ": unlike published"), (0.1, ": as published"), (0.5, "neither as published")])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_what_goes_away_of_a_gap(share: float, word: str, side: float) -> None:
    """Of a gap of .4 nats, either way, a planted share goes away; it counts as shrunk whichever way the gap is."""
    base = RNG.uniform(1, 3, UNITS)
    gap = side * RNG.normal(0.4, 0.05, UNITS)
    left = (1 - share) * gap + RNG.normal(0, 0.02, UNITS)
    drift = entropy_gap_explained(entropies_with(base, base), entropies_with(base + gap, base + left), sampled())
    assert drift.estimate == pytest.approx(share * 0.4, abs=0.03)
    assert word in drift.note
    with pytest.raises(Unmeasurable, match="no more than their controls"):
        entropy_gap_explained(entropies_with(base, base, direct=0.1), entropies_with(base + gap, base), sampled())


def test_no_share_of_a_gap_that_may_be_none() -> None:
    base, noise = RNG.uniform(1, 3, UNITS), RNG.normal(0, 0.1, UNITS)
    noise -= noise.mean()
    drift = entropy_gap_explained(entropies_with(base, base), entropies_with(base + noise, base), sampled())
    assert "no gap to explain" in drift.note
    assert "share" not in drift.note
    same = entropies_with(base, base)
    assert entropy_gap_explained(same, same, sampled()).estimate == 0.0


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=30), st.floats(-3, 3))
def test_differences_and_ratios_of_jackknifed_means(values: list[float], factor: float) -> None:
    """As scipy's standard error of a mean has it, and as the ratio of means that the rest of the house uses."""
    one, other = np.array(values), np.linspace(1, 2, len(values))
    mean = Jackknifed.mean(one).evidence()
    assert mean.standard_error == pytest.approx(one.std(ddof=1) / np.sqrt(len(one)), abs=1e-9)
    difference = (Jackknifed.mean(one) - Jackknifed.mean(other)).evidence()
    assert difference.estimate == pytest.approx((one - other).mean(), abs=1e-9)
    assert difference.standard_error == pytest.approx((one - other).std(ddof=1) / np.sqrt(len(one)), abs=1e-9)
    ratio, known = (Jackknifed.mean(one) / Jackknifed.mean(other)).evidence(), ratio_of_means(one, other)
    assert (ratio.estimate, ratio.standard_error) == pytest.approx((known.estimate, known.standard_error), abs=1e-9)
    assert Jackknifed.mean(one).times(factor).estimate == pytest.approx(factor * one.mean(), abs=1e-9)


# Calibration


def test_a_calibrated_judge_has_no_error_and_a_constant_one_its_bias() -> None:
    confidences = np.repeat(np.arange(0.55, 1.0, 0.05), 2000)
    hits = np.concatenate([np.arange(2000) < round(2000 * level) for level in np.arange(0.55, 1.0, 0.05)])
    entities = np.arange(len(hits))
    assert calibration_error(confidences, hits, entities).estimate == pytest.approx(0.0, abs=1e-9)
    constant = np.full(len(hits), 0.9)
    expected = abs(hits.mean() - 0.9)
    assert calibration_error(constant, hits, entities).estimate == pytest.approx(expected, abs=1e-12), "one bin for equal ones"
    assert calibration_error(np.full(40, 1.0), np.zeros(40, bool), np.arange(40)).estimate == 1.0


def test_bins_are_of_equal_mass_and_each_counts_by_itself() -> None:
    """A bin of nine tenths of the mass right and one of a tenth wrong: errors do not cancel between bins."""
    confidences = np.linspace(0.5, 1.0, 100)
    hits = confidences < np.quantile(confidences, 0.9)
    by_hand = sum(
        abs((hits[start : start + 10].astype(float) - confidences[start : start + 10]).sum()) for start in range(0, 100, 10)
    )
    found = calibration_error(confidences, hits, np.arange(100))
    assert BINS == 10
    assert found.estimate == pytest.approx(by_hand / 100)


@pytest.mark.parametrize("count", [60, 600])
def test_a_calibrated_judge_errs_by_chance_as_told(count: int) -> None:
    """Against simulation: hits drawn with the very probabilities that are said."""
    rng = np.random.default_rng(3)
    confidences = rng.uniform(0.5, 1.0, count)
    drawn = [calibration_error(confidences, rng.uniform(size=count) < confidences, np.arange(count)) for _ in range(400)]
    assert error_by_chance(confidences) == pytest.approx(np.mean([one.estimate for one in drawn]), rel=0.05)


@given(st.integers(0, 10_000))
def test_an_entity_left_out_is_left_out_of_its_bins(seed: int) -> None:
    """By leaving its judgements' gaps out, in bins that stay; and the error is a share."""
    rng = np.random.default_rng(seed)
    confidences, hits, entities = rng.uniform(0.5, 1, 40), rng.uniform(size=40) < 0.7, np.repeat(np.arange(20), 2)
    found = calibration_error(confidences, hits, entities)
    assert 0 <= found.estimate <= 1
    edges = np.quantile(confidences, np.arange(1, BINS) / BINS)
    for entity in (0, 7, 19):
        kept = entities != entity
        bins = np.array([(edges < value).sum() for value in confidences])[kept]
        gaps = (hits - confidences)[kept]
        expected = sum(abs(gaps[bins == number].sum()) for number in range(BINS)) / kept.sum()
        assert found.left_out[entity] == pytest.approx(expected)


def statements(count: int = 100) -> list[Statement]:
    """A true and a false one of every entity."""
    return [
        Statement(f"{label} {number}.", label, f"entity {number}", "kind", "test")
        for number in range(count)
        for label in (True, False)
    ]


def test_the_calibration_gap_and_what_goes_away_of_it() -> None:
    """Base is calibrated at .8; post says .99 and is right as often; half of it is its entropy neurons'."""
    requested = statements()
    signs = np.array([1.0 if s.label else -1.0 for s in requested])
    right = np.where(np.arange(len(requested)) % 10 < 8, 1.0, -1.0)

    def sure(level: float) -> np.ndarray:
        return signs * right * np.log(level / (1 - level))

    assert confidence_of(sure(0.8)).tolist() == pytest.approx([0.8] * len(requested))
    drift = calibration_gap(sure(0.8), sure(0.99), requested)
    assert drift.estimate == pytest.approx(0.19)
    assert drift.evidence.n == 100
    assert "base: error 0.0000 (calibrated: 0.0226), confidence 0.800, right 0.800; post: error 0.1900" in drift.note
    works = entropies_with(np.ones(UNITS), np.ones(UNITS))
    less = calibration_gap_explained((sure(0.8), sure(0.8)), (sure(0.99), sure(0.9)), requested, works)
    assert less.estimate == pytest.approx(0.09)
    assert "share that goes away 0.474" in less.note
    none = replace(works, chosen=works.controls)
    with pytest.raises(Unmeasurable, match="no more than their controls"):
        calibration_gap_explained((sure(0.8), sure(0.8)), (sure(0.99), sure(0.9)), requested, none)


def test_a_gap_that_grows_is_under_zero() -> None:
    gap, left = (Jackknifed.mean(np.full(20, value) + np.linspace(-0.01, 0.01, 20)) for value in (-0.3, -0.5))
    shrunk, note = explained(gap, left)
    assert shrunk.estimate == pytest.approx(-0.2)
    assert "as published" in note
