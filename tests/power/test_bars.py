"""The verdict rule at known true values: at the limit held at most 5% of the time, at twice it drifted at least 90% of it."""

from dataclasses import replace
from functools import partial

import pytest
from rates.bars import DRIFTED_AT_LEAST, HELD_AT_MOST, Judged
from rates.simulated import simulated
from rates.tables import exact_interval
from scipy import stats

from mechdrift.verdict.limits import Limit
from mechdrift.verdict.profiles import load_profile

M = load_profile("base-to-post").gated_as_shipped
# What the shipped suites ask on the shipped tables.
TRUTH, KNOWLEDGE, REFUSAL = 390, 160, 198
RUNS = 300


def judged(label: str, kind: str, n: int, null: float | None, error: float = 0.0) -> Judged:
    """A row by the shipped profile's own limit."""
    limit = load_profile("base-to-post").rule(label).limit
    assert limit
    return Judged(label, limit, M, null, kind, n, error)


@pytest.mark.parametrize(
    "row",
    [
        judged("refusal.harmful", "proportion", REFUSAL, None),
        judged("refusal.harmless", "proportion", REFUSAL, None),
        judged("refusal.ablation", "paired proportions", REFUSAL, None),
        judged("truth.judgement_accuracy", "paired proportions", TRUTH, 0.0),
        judged("knowledge.accuracy", "paired proportions", KNOWLEDGE, 0.0),
        judged("truth.steering_transfer", "normal", TRUTH, 0.0, error=0.015),
        judged("knowledge.depth_shift", "normal", KNOWLEDGE, 0.0, error=0.005),
    ],
    ids=lambda row: row.label,
)
def test_the_bars_of_sampled_rows(row: Judged) -> None:
    """Summed over all samples. A score test is not exact: the step at the limit may be a tenth of a point over the bar."""
    held, drifted = (
        [row.rates(row.origin + times * (bound - row.origin))[word] for bound in row.bounds]
        for times, word in ((1, "held"), (2, "drifted"))
    )
    print(f"{row.label}, n = {row.n}: held {max(held):.4f} at the limit, drifted {min(drifted):.4f} at twice it")
    assert max(held) <= HELD_AT_MOST + 0.002
    if row.label == "knowledge.accuracy":  # too few units for 10 points; docs/error-rates.md says what they do catch
        assert 0.8 < min(drifted) < DRIFTED_AT_LEAST
        assert replace(row, n=200).rates(-0.2)["drifted"] >= DRIFTED_AT_LEAST  # as tier nightly has, where tables have as many
    else:
        assert min(drifted) >= DRIFTED_AT_LEAST


def test_probabilities_are_those_of_the_distribution() -> None:
    """All verdicts together are certain; with one row and a flat test, drifted is the binomial tail below its critical count."""
    row = Judged("refusal.harmful", Limit(0.8, None, ""), 1, None, "proportion", 50)
    found = row.rates(0.7)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-6)
    # p under .05: hits / 50 under .8 - 1.645 sqrt(.8 .2 / 50) = .7069, 35 of 50.
    assert found["drifted"] == pytest.approx(stats.binom.cdf(35, 50, 0.7))
    paired = Judged("knowledge.accuracy", Limit(-0.1, None, ""), 16, 0.0, "paired proportions", 40)
    assert sum(paired.rates(-0.1, churn=0.05).values()) == pytest.approx(1.0, abs=1e-5)
    normal = Judged("truth.clean_gap", Limit(0.5, None, ""), 1, 1.0, "normal", 40, error=0.1)
    assert normal.rates(0.5)["drifted"] == pytest.approx(0.05, abs=2e-3)
    assert normal.rates(0.5)["held"] == pytest.approx(0.05, abs=2e-3)


def test_what_is_caught_is_caught_nine_times_in_ten() -> None:
    for row in (
        judged("refusal.harmful", "proportion", REFUSAL, None),
        judged("refusal.harmless", "proportion", REFUSAL, None),
        judged("truth.clean_gap", "normal", TRUTH, 1.0, error=0.02),
    ):
        bound = row.bounds[0]
        least = row.caught()
        assert (least < bound) == (bound < row.origin)
        assert row.rates(least)["drifted"] == pytest.approx(DRIFTED_AT_LEAST, abs=0.02)
        assert row.rates(bound + 0.5 * (least - bound))["drifted"] < DRIFTED_AT_LEAST


@pytest.mark.parametrize("name", ["similarity, noise 0.2", "similarity, noise 0.6", "ratio of means"])
def test_the_bars_hold_with_standard_errors_that_are_estimated(name: str) -> None:
    """The rule on jackknifed estimates. Where a direction is noisy, their errors are too small on one side."""
    held, drifted, width = simulated(name, RUNS, seed=3)
    low, high = exact_interval(held, RUNS, 0.99)
    print(f"{name}, +- {width:.4f}: held {held} of {RUNS} at the limit [{low:.3f}, {high:.3f}], drifted {drifted} at twice it")
    assert low <= HELD_AT_MOST + 0.02
    assert drifted >= DRIFTED_AT_LEAST * RUNS


def test_a_two_sided_limit_is_crossed_on_the_side_to_which_the_drift_goes() -> None:
    row = judged("knowledge.depth_shift", "normal", KNOWLEDGE, 0.0, error=0.005)
    assert row.caught(0.2) == pytest.approx(-row.caught(-0.2), rel=1e-3)
    assert row.caught(0.2) > 0.05


def test_intervals_are_clopper_pearsons() -> None:
    """Their ends are where a tail has 2.5%."""
    low, high = exact_interval(3, 20)
    assert stats.binom.sf(2, 20, low) == pytest.approx(0.025)
    assert stats.binom.cdf(3, 20, high) == pytest.approx(0.025)
    assert partial(exact_interval, 0)(20)[1] == pytest.approx(1 - 0.025 ** (1 / 20))
