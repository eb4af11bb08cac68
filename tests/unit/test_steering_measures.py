"""Intervention effects against closed forms, and the rows that rest on them."""

from dataclasses import replace

import numpy as np
import pytest

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.truth import steering
from mechdrift.findings.truth.steering import (
    EFFECT_MINIMUM,
    FLIPS,
    Arms,
    How,
    base_effects,
    effect_over_random,
    kept_statements,
    mean_differences,
    own_difference,
    transfer,
)
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Normal

N = 60
STATEMENTS = [
    Statement(f"{entity} is {label}.", label, str(entity), "ab"[entity % 2], "test")
    for entity in range(N)
    for label in (True, False)
]
LABELS = np.array([s.label for s in STATEMENTS])
ALL = np.ones(len(STATEMENTS), dtype=bool)
HOW = How("resid_post[1..2] @ period", "rule", "a+b", "coefficient 1")
P_TRUE, P_FALSE = 0.8, -0.6  # of the plain model
BOTH: steering.Effects = dict.fromkeys(FLIPS, Normal(0.6, 0.01, N))  # base's own direction works both ways


def output(on_true: float, on_false: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """P of every statement."""
    return np.where(LABELS, on_true, on_false) + np.random.default_rng(seed).normal(size=len(LABELS)) * noise


PLAIN = output(P_TRUE, P_FALSE)


def arms(own: tuple[float, float], transferred: tuple[float, float], noise: float = 0.0, seed: int = 0) -> Arms:
    """A model that says these P on true and on false statements; a random push does nothing."""
    return Arms(PLAIN, output(*own, noise, seed), output(*transferred, noise, seed + 1), PLAIN)


@pytest.mark.parametrize(
    ("formula", "flips", "expected"),
    [
        ("du", "true-to-false", (-0.1 - 0.8) / (-1 - 0.8)),
        ("du", "false-to-true", (0.5 - -0.6) / (1 - -0.6)),
        ("du", "both", ((-0.1 - 0.8) / (-1 - 0.8) + (0.5 - -0.6) / (1 - -0.6)) / 2),
        ("marks", "true-to-false", (-0.1 - 0.8) / (-0.6 - 0.8)),
        ("marks", "false-to-true", (0.5 - -0.6) / (0.8 - -0.6)),
    ],
)
def test_effects_are_the_published_formulas(formula: steering.Formula, flips: steering.Flips, expected: float) -> None:
    """Written out by hand for P_T = .8 -> -.1 and P_F = -.6 -> .5."""
    _, true, false = steering.sums(PLAIN, output(-0.1, 0.5), STATEMENTS, ALL)
    assert steering.effect(true.total(), false.total(), formula, flips)[0] == pytest.approx(expected)


def test_the_jackknife_leaves_each_entity_out() -> None:
    noisy = output(-0.1, 0.5, noise=0.3)
    found = effect_over_random(PLAIN, noisy, PLAIN, STATEMENTS, ALL)
    left_out = []
    for entity in range(N):
        kept = np.array([s.entity != str(entity) for s in STATEMENTS])
        left_out.append(effect_over_random(PLAIN, noisy, PLAIN, STATEMENTS, kept).estimate)
    expected = np.sqrt((N - 1) / N * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert found.n == N
    assert found.standard_error == pytest.approx(expected)


def test_a_transfer_is_the_difference_of_two_effects_with_its_interval() -> None:
    drift = transfer("truth.steering_transfer", arms((-0.4, 0.6), (-0.1, 0.2), noise=0.1), BOTH, STATEMENTS, ALL, HOW)
    own, other = (0.6 + 0.6) / 1.6, (0.2 + 0.6) / 1.6  # false to true, where it is worse than -.3 / 1.8
    assert drift.interval.low < other - own < drift.interval.high
    assert drift.unit == "intervention effect false-to-true, transferred minus own"
    assert drift.null == 0.0
    assert drift.better == "higher"
    assert sum(item.contribution for item in drift.items) == pytest.approx(drift.estimate, abs=0.01)
    assert "true-to-false own 0.6" in drift.note
    assert "false-to-true own 0.7" in drift.note
    assert "coefficient 1" in drift.note


@pytest.mark.parametrize("loss", [0.0, 0.15, 0.4])
def test_the_interval_covers_a_planted_loss_of_transfer(loss: float) -> None:
    """90% intervals of 200 draws, each with noise on every statement."""
    own = (0.8 - 1.8 * 0.6, -0.6 + 1.6 * 0.6)
    covered = 0
    for seed in range(200):
        said_so = arms(own, (0.8 - 1.8 * (0.6 - loss), own[1]), 0.3, 2 * seed)
        drift = transfer("x", said_so, BOTH, STATEMENTS, ALL, HOW, "du", "true-to-false")
        covered += drift.interval.low <= -loss <= drift.interval.high
    assert 170 <= covered <= 194  # binomial 200 x .9: 4.2 standard deviations are 18


def test_a_push_that_a_random_vector_does_as_well_is_no_effect_of_the_direction() -> None:
    broken = output(-0.9, -0.9)
    found = effect_over_random(PLAIN, broken, output(-0.9, -0.9), STATEMENTS, ALL)
    assert found.estimate == 0.0
    nothing = Arms(PLAIN, broken, broken, broken)
    with pytest.raises(
        Unmeasurable,
        match=r"steers base by 0\.000 \[.*\] true-to-false, 0\.000 .* beyond a random one, more than 0\.2 needed; n = 60",
    ):
        transfer("x", nothing, base_effects(nothing, STATEMENTS), STATEMENTS, ALL, HOW)


def test_the_absolute_row_is_post_minus_base() -> None:
    base, post = arms((-0.9, 0.9), (0, 0)), arms((-0.1, 0.2), (0, 0))
    drift = own_difference(base, post, BOTH, STATEMENTS, ALL, HOW)
    assert drift.estimate == pytest.approx(0.9 / 1.8 - 1.7 / 1.8)  # true to false; the other way 0.8 / 1.6 - 1.5 / 1.6
    weak = arms((0.7, -0.5), (0, 0))
    with pytest.raises(Unmeasurable, match="beyond a random one"):
        own_difference(weak, post, base_effects(weak, STATEMENTS), STATEMENTS, ALL, HOW)


def test_one_way_that_no_longer_works_is_not_hidden_by_the_other() -> None:
    """Both ways do .3 of the way with their own direction; the other model's does all of it one way and nothing the other."""
    way = {"true": P_TRUE - 0.3 * 1.8, "false": P_FALSE + 0.3 * 1.6}
    moved = arms((way["true"], way["false"]), (way["true"] - 0.2 * 1.8, P_FALSE), 0.05)
    effects = {flips: transfer("x", moved, BOTH, STATEMENTS, ALL, HOW, "du", flips).estimate for flips in FLIPS}
    assert np.mean(list(effects.values())) > -0.1, "a mean would be held at -0.15"
    both = transfer("x", moved, BOTH, STATEMENTS, ALL, HOW)
    assert both.estimate == effects["false-to-true"] < -0.25
    assert both.interval.high < -0.15


def test_a_way_in_which_base_does_nothing_is_neither_judged_nor_hides_the_other() -> None:
    one_way: steering.Effects = {"true-to-false": Normal(0.6, 0.01, N), "false-to-true": Normal(0.1, 0.01, N)}
    assert steering.working(one_way) == ("true-to-false",)
    moved = arms((-0.4, -0.5), (-0.1, 0.9))
    both = transfer("x", moved, one_way, STATEMENTS, ALL, HOW)
    assert both.estimate == pytest.approx((0.9 - 1.2) / 1.8)
    assert "false-to-true not compared: base's own does 0.100" in both.note
    with pytest.raises(Unmeasurable, match=r"by 0\.100 .* false-to-true beyond"):
        transfer("x", moved, one_way, STATEMENTS, ALL, HOW, "du", "false-to-true")


def test_where_post_lost_much_base_is_steered_over_all_that_it_knows() -> None:
    """Base's direction moves the first entities alone not at all: what post still judges right does not show what base had."""
    few = np.arange(len(STATEMENTS)) < 20
    base = arms((-0.4, 0.6), (0, 0))
    base = replace(base, own=np.where(few, PLAIN, base.own))
    kept = kept_statements(PLAIN, np.where(few, PLAIN, -PLAIN), STATEMENTS)
    assert kept.mask.sum() == 20
    assert not effect_over_random(base.plain, base.own, base.random, STATEMENTS, kept.mask).interval().low > EFFECT_MINIMUM
    found = base_effects(base, STATEMENTS)
    assert steering.working(found) == FLIPS
    # By the published formula: 5 of 6 entities go from .8 to -.4 and from -.6 to .6, the others nowhere.
    assert [each.estimate for each in found.values()] == pytest.approx([5 / 6 * 1.2 / 1.8, 5 / 6 * 1.2 / 1.6])
    # What base judges wrong is not asked.
    wrong = replace(base, plain=np.where(few, -PLAIN, PLAIN))
    assert base_effects(wrong, STATEMENTS)["true-to-false"].estimate == pytest.approx(1.2 / 1.8)


def test_only_statements_that_both_judge_right_are_steered_and_the_others_counted() -> None:
    base, post = output(0.8, -0.6), output(0.8, -0.6)
    base[:3] = [-0.1, 0.1, 0.0]  # a tie is wrong
    post[-24:] *= -1
    kept = kept_statements(base, post, STATEMENTS)
    assert (kept.requested, kept.base_wrong, kept.post_wrong) == (120, 3, 24)
    assert list(np.flatnonzero(~kept.mask)) == [0, 1, 2, *range(96, 120)]
    assert not kept.lost_in_post_alone
    post[-26:-24] *= -1
    assert kept_statements(base, post, STATEMENTS).lost_in_post_alone
    base[-30:] *= -1
    assert not kept_statements(base, post, STATEMENTS).lost_in_post_alone, "base has lost them too"


def test_where_post_judges_nothing_right_the_sibling_decides() -> None:
    sibling = Drift("truth.judgement_accuracy", Normal(-0.5, 0.01, N), 0.0, "", "higher", "", "", "")
    how = How("s", "r", "d", "note", post_lacks=True, sibling=sibling)
    for drift in (
        transfer("truth.steering_transfer", arms((0, 0), (0, 0)), None, STATEMENTS, ~ALL, how),
        own_difference(arms((0, 0), (0, 0)), arms((0, 0), (0, 0)), None, STATEMENTS, ~ALL, how),
    ):
        assert drift.post_lacks
        assert drift.sibling is sibling
        assert np.isnan(drift.estimate)


def test_directions_leave_their_own_kind_out() -> None:
    """Each kind has truth along an axis of its own, and an offset: the direction for a kind is that of the other."""
    statements = [
        Statement(f"{kind} {i} {label}.", label, f"{kind}{i}", kind, "fit" if i < 5 else "test")
        for kind in "ab"
        for i in range(10)
        for label in (True, False)
    ]
    blocks = np.zeros((len(statements), 3))
    for row, s in enumerate(statements):
        blocks[row, "ab".index(s.kind)] = 1.5 if s.label else -1.5
        blocks[row, 2] = 7.0 if s.kind == "a" else -7.0
        if s.split == "test":
            blocks[row] = 99.0
    found = mean_differences(blocks, statements, ["a", "b"])
    assert found["a"] == pytest.approx([0, 3, 0])
    assert found["b"] == pytest.approx([3, 0, 0])
    with pytest.raises(Unmeasurable, match="only 'a'"):
        mean_differences(blocks, statements, ["a"])
