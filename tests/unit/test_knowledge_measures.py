"""Location maps with known answers: planted ones, closed forms, and what must not be measured."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.knowledge import depth as knowledge_depth
from mechdrift.findings.knowledge import location as knowledge
from mechdrift.findings.knowledge import transfer as knowledge_transfer
from mechdrift.findings.knowledge.location import binned
from mechdrift.findings.knowledge.maps import KnowledgeReadings, Patched, kept_pairs, maps_of
from mechdrift.findings.knowledge.transfer import Transferred
from mechdrift.findings.minimums import ACCURACY_MINIMUM
from mechdrift.prompts.pairs import PromptPair
from mechdrift.stats import Proportion, cross_fitted_slope
from mechdrift.verdict.decide import decide
from mechdrift.verdict.profiles import load_profile

LAYERS, UNITS, GAP = 16, 60, 8.0
COLUMNS = ("subject[-2]", "subject[-1]", "between[-1]", "object[-1]", "rest[-1]", "last")


def pair(unit: int, columns: tuple[str, ...] = COLUMNS, kind: str = "cities") -> PromptPair:
    """A pair whose tokens are of no account."""
    return PromptPair((1,), (2,), (3, 4), 0, columns, f"{unit} / {unit}'", kind, "test", ("", ""))


PAIRS = tuple(pair(number // 2) for number in range(2 * UNITS))


def bump(centre: float, width: float, height: float) -> np.ndarray:
    """An effect over blocks."""
    return height * np.exp(-(((np.arange(LAYERS) - centre) / width) ** 2) / 2)


def as_published(shift: int = 0, subject: float = 1.0, object_: float = 1.0) -> np.ndarray:
    """Recovery as in published maps, [layer, column]: subject early, object in the middle, last token from the middle on."""
    recovery = np.zeros((LAYERS, len(COLUMNS)))
    recovery[:, 0] = bump(2 + shift, 1.5, 0.15 * subject)
    recovery[:, 1] = bump(3 + shift, 1.5, 0.6 * subject)
    recovery[:, 3] = bump(6 + shift, 1.2, 0.5 * object_)
    recovery[:, 5] = 1 / (1 + np.exp(-(np.arange(LAYERS) - 8.5 - shift) * 1.5))
    return recovery


def sweep(recovery: np.ndarray, noise: float = 0.3, seed: int = 0, shared: float = 0.0, gap: float = GAP) -> Patched:
    """A sweep of all pairs with this mean recovery; noise, in logits, is shared with other sweeps of this share."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    shape = len(PAIRS), *recovery.shape
    errors = np.sqrt(shared) * common.normal(size=shape) + np.sqrt(1 - shared) * own.normal(size=shape)
    clean = gap / 2 + own.normal(size=len(PAIRS)) * noise
    corrupt = -gap / 2 + own.normal(size=len(PAIRS)) * noise
    d = corrupt[:, None, None] + (clean - corrupt)[:, None, None] * recovery + noise * errors
    return Patched(d.astype(np.float32), clean.astype(np.float32), corrupt.astype(np.float32))


def readings(base: Patched, post: Patched, pairs: tuple[PromptPair, ...] = PAIRS) -> KnowledgeReadings:
    """Of two sweeps."""
    return KnowledgeReadings(base, post, pairs, "judged")


BASE = sweep(as_published())


def rows(read: KnowledgeReadings) -> list[Drift]:
    """Every row of two sweeps."""
    return [
        knowledge.accuracy(read),
        knowledge.clean_gap(read),
        knowledge.location(read),
        knowledge.location(read, "all"),
        *(knowledge_depth.depth_shift(read, part) for part in ("subject", "object", "last")),
        knowledge.published(read),
    ]


def test_the_same_sweep_has_not_moved() -> None:
    """With the short cut exactly, without it to rounding."""
    for row in rows(readings(BASE, BASE)):
        assert row.estimate == pytest.approx(row.null, abs=1e-6), row.measure
        assert row.interval == pytest.approx((row.null, row.null), abs=1e-6) or row.measure == "knowledge.accuracy"
        assert row.of_identical().estimate == row.null
        assert not row.post_lacks


def test_recovery_is_a_ratio_of_means() -> None:
    maps = maps_of(BASE, kept_pairs(BASE, BASE, PAIRS))
    gains = BASE.d.astype(float) - BASE.corrupt[:, None, None].astype(float)
    by_hand = gains.mean(0) / (BASE.clean.astype(float) - BASE.corrupt).mean()
    np.testing.assert_allclose(maps.recovery(), by_hand, rtol=1e-9)
    assert maps.columns == COLUMNS


def test_noise_alone_does_not_move_a_map() -> None:
    """Two samples of one map: near 1, no shift, and the intervals hold both."""
    for row in rows(readings(BASE, sweep(as_published(), seed=1))):
        low, high = row.interval
        slack = 0.03 if row.measure == "knowledge.published" else 0.01
        assert row.null is not None
        assert low - slack <= row.null <= high + slack, (row.measure, row.interval)


@pytest.mark.parametrize("shift", [1, 2, -1])
def test_a_map_that_moved_by_whole_blocks(shift: int) -> None:
    """The shift is found in blocks; the correlation falls on knowledge columns to what Pearson's r of the planted maps is."""
    moved = as_published(shift)
    read = readings(BASE, sweep(moved, seed=1))
    chosen = [0, 1, 3]
    expected = stats.pearsonr(as_published()[:, chosen].ravel(), moved[:, chosen].ravel()).statistic
    found = knowledge.location(read)
    assert found.estimate == pytest.approx(expected, abs=0.02)
    assert found.interval.low <= expected <= found.interval.high
    assert found.interval.high < 0.90
    assert knowledge.location(read, "all").estimate > found.estimate
    for part in ("subject", "object"):
        centre = knowledge_depth.depth_shift(read, part)
        assert centre.estimate * LAYERS == pytest.approx(shift, abs=0.25)
        assert abs(centre.estimate) > 0.05


def test_deleted_subject_and_object_are_seen_where_the_published_comparison_is_blind() -> None:
    """Nothing but the last token is left: all columns and the published r stay high, the knowledge columns do not."""
    read = readings(BASE, sweep(as_published(subject=0.0, object_=0.0), seed=1))
    on_knowledge = knowledge.location(read)
    assert on_knowledge.post_lacks
    assert on_knowledge.sibling is not None
    assert on_knowledge.sibling.measure == "knowledge.accuracy"
    assert knowledge.published(read).estimate > 0.75
    assert knowledge_depth.depth_shift(read, "subject").post_lacks
    assert not knowledge_depth.depth_shift(read, "last").post_lacks


def test_an_object_alone_deleted_lowers_the_knowledge_columns() -> None:
    read = readings(BASE, sweep(as_published(object_=0.0), seed=1))
    expected = stats.pearsonr(as_published()[:, [0, 1, 3]].ravel(), as_published(object_=0.0)[:, [0, 1, 3]].ravel()).statistic
    found = knowledge.location(read)
    assert found.interval.low <= expected <= found.interval.high
    assert found.estimate < knowledge.location(read, "all").estimate


def test_a_scaled_map_is_in_the_same_place_and_the_gap_says_that_it_shrank() -> None:
    read = readings(BASE, sweep(as_published(), seed=1, gap=GAP / 2))
    assert knowledge.location(read).interval.high > 0.99
    assert knowledge.clean_gap(read).estimate == pytest.approx(0.5, abs=0.02)
    assert knowledge.accuracy(read).estimate == 0.0


def test_without_knowledge_in_base_nothing_is_measured() -> None:
    noise = sweep(np.zeros((LAYERS, len(COLUMNS))), noise=1.0, gap=0.0)
    for measure in (
        knowledge.accuracy,
        knowledge.clean_gap,
        knowledge.location,
        knowledge_depth.depth_shift,
        knowledge.published,
    ):
        with pytest.raises(
            Unmeasurable,
            match=r"^gained: post answers 1\.000, and base answers 0\.\d+ .*judged.*n = 60 units",
        ):
            measure(readings(noise, BASE))


def test_without_a_map_in_base_its_location_is_not_measured() -> None:
    flat = sweep(np.zeros((LAYERS, len(COLUMNS))), noise=1.0)
    with pytest.raises(Unmeasurable, match="base has no location map"):
        knowledge.location(readings(flat, BASE))
    with pytest.raises(Unmeasurable, match=r"the subject carries .* of base's recovery"):
        knowledge_depth.depth_shift(readings(flat, BASE))


@pytest.mark.parametrize("left", [0.0, 1.0])
def test_what_post_forgot_is_a_drift_and_not_unmeasurable(left: float) -> None:
    """Post answers by chance, or always the same: location rows are decided by accuracy, which has drifted."""
    chance = sweep(np.zeros((LAYERS, len(COLUMNS))), noise=1.0, gap=0.0, seed=3)
    forgot = replace(chance, clean=chance.clean + 9 * np.float32(left), corrupt=chance.corrupt + 9 * np.float32(left))
    read = readings(BASE, forgot)
    for row in (knowledge.location(read), knowledge.location(read, "all"), knowledge_depth.depth_shift(read)):
        assert row.post_lacks
        assert row.sibling is not None
        assert row.sibling.interval.high < -0.10
    assert knowledge.clean_gap(read).interval.high < 0.5
    with pytest.raises(Unmeasurable):
        knowledge.location(readings(forgot, BASE))


def test_pairs_that_one_model_does_not_know_are_left_out_and_counted() -> None:
    clean = BASE.clean.copy()
    clean[:6] = -1.0
    kept = kept_pairs(BASE, replace(BASE, clean=clean), PAIRS)
    assert (kept.base_wrong, kept.post_wrong, kept.mask.sum(), len(kept.units)) == (0, 6, len(PAIRS) - 6, UNITS - 3)
    assert not kept.lost_in_post_alone
    clean[: len(PAIRS) // 4] = -1.0
    assert kept_pairs(BASE, replace(BASE, clean=clean), PAIRS).lost_in_post_alone


def test_columns_are_matched_by_name_where_pairs_have_others() -> None:
    """A third of the units have a subject of one token more: its column is not compared, the others are the same."""
    longer = tuple(pair(p.unit.count(" ") + i // 2, ("subject[-3]", *COLUMNS)) if i % 6 < 2 else p for i, p in enumerate(PAIRS))
    longer = tuple(replace(p, unit=q.unit) for p, q in zip(longer, PAIRS, strict=True))
    d = np.full((len(PAIRS), LAYERS, len(COLUMNS) + 1), np.nan, dtype=np.float32)
    for number, of in enumerate(longer):
        d[number, :, len(of.columns) - len(COLUMNS) : len(of.columns)] = BASE.d[number]
        if len(of.columns) > len(COLUMNS):
            d[number, :, 0] = 5.0
    shaped = replace(BASE, d=d)
    maps = maps_of(shaped, kept_pairs(shaped, shaped, longer))
    plain = maps_of(BASE, kept_pairs(BASE, BASE, PAIRS))
    assert maps.columns == ("subject[-3]", *COLUMNS)
    np.testing.assert_allclose(maps.recovery()[:, 1:], plain.recovery())
    assert maps.of("all").columns == COLUMNS
    assert maps.of("knowledge").columns == ("subject[-2]", "subject[-1]", "object[-1]")


def test_columns_through_which_bases_own_route_goes_are_compared_too() -> None:
    """A tenth of the recovery at one block is enough, be it before the object; the last column never counts."""
    assert maps_of(BASE, kept_pairs(BASE, BASE, PAIRS)).carrying() == ()
    route = as_published()
    route[2, COLUMNS.index("between[-1]")] = 0.3
    swept = sweep(route)
    maps = maps_of(swept, kept_pairs(swept, swept, PAIRS))
    assert maps.carrying() == ("between[-1]",)
    assert maps.of("knowledge").columns == ("subject[-2]", "subject[-1]", "object[-1]")
    # Base's whole middle route moves by a block: outside subject and object nothing would be seen.
    moved = as_published()
    moved[4, COLUMNS.index("between[-1]")] = 0.3
    read = readings(swept, sweep(moved, seed=1))
    assert knowledge.location(read).estimate > 0.98
    found = knowledge.location(replace(read, beside=maps.carrying()))
    assert found.interval.high < 0.95
    assert "4 columns, of them between[-1] beside subject and object" in found.note


def test_what_is_left_after_many_pairs_were_lost_may_have_moved() -> None:
    clean = BASE.clean.copy()
    clean[: len(PAIRS) // 4] = -1.0
    moved = sweep(as_published(2), seed=1)
    for post, verdict in ((replace(BASE, clean=clean), "undecided"), (replace(moved, clean=clean), "drifted")):
        found = knowledge.location(readings(BASE, post))
        assert found.fewer_left
        assert not found.post_lacks
        assert decide(found, load_profile("base-to-post")).verdict == verdict


def test_collapsed_columns_count_by_their_mean() -> None:
    """The columns of a user's pairs."""
    names = ("knowledge", "knowledge", "others", "others", "others", "last")
    pairs = tuple(replace(p, columns=names) for p in PAIRS)
    maps = maps_of(BASE, kept_pairs(BASE, BASE, pairs))
    recovery = maps_of(BASE, kept_pairs(BASE, BASE, PAIRS)).recovery()
    expected = np.stack([recovery[:, :2].mean(1), recovery[:, 2:5].mean(1), recovery[:, 5]], axis=1)
    assert maps.columns == ("knowledge", "others", "last")
    np.testing.assert_allclose(maps.recovery(), expected, atol=1e-9)


def test_other_numbers_of_blocks_and_no_pairs_are_named() -> None:
    deeper = replace(BASE, d=np.concatenate([BASE.d, BASE.d[:, :1]], axis=1))
    with pytest.raises(Unmeasurable, match="numbers of blocks differ: base 16, post 17"):
        knowledge.location(readings(BASE, deeper))
    assert knowledge.accuracy(readings(BASE, deeper)).estimate == 0.0
    with pytest.raises(Unmeasurable, match="no pairs"):
        readings(BASE, BASE, ())
    with pytest.raises(Unmeasurable, match="no column belongs to the knowledge"):
        knowledge_depth.depth_shift(readings(BASE, BASE), "knowledge")


@pytest.mark.parametrize("units", [1, 3, 6])
def test_few_units_are_a_reason_and_not_an_exception(units: int) -> None:
    """Nothing can be said of base from six, however well it answers; of seven it can."""
    few, small = PAIRS[: 2 * units], Patched(BASE.d[: 2 * units], BASE.clean[: 2 * units], BASE.corrupt[: 2 * units])
    read = replace(readings(small, small, few), found="so many dropped")
    for measure in (knowledge.accuracy, knowledge.clean_gap, knowledge.location, knowledge_depth.depth_shift):
        with pytest.raises(Unmeasurable, match=f"{units} units: too few to tell whether base knows.*; so many dropped"):
            measure(read)
    seven = Patched(BASE.d[:14], BASE.clean[:14], BASE.corrupt[:14])
    assert knowledge.accuracy(readings(seven, seven, PAIRS[:14])).evidence.n == 7


def test_published_r_of_one_unit_stands_without_an_interval_and_is_never_held() -> None:
    """As where pairs link all entities: the published number, and no word on how sure it is."""
    post = sweep(as_published(), seed=1)
    one = tuple(replace(p, unit="all") for p in PAIRS)
    found = knowledge.published(readings(BASE, post, one))
    assert found.estimate == pytest.approx(knowledge.published(readings(BASE, post)).estimate)
    assert found.interval == (-np.inf, np.inf)
    assert "no interval from 1 units" in found.note
    decision = decide(found, load_profile("base-to-post"))
    assert (decision.verdict, decision.needed_n) == ("unmeasurable", None)


def test_published_maps_are_means_over_pairs_whatever_their_units() -> None:
    """Half of the pairs are one unit and have another map: they count by their number, as in mean maps made by hand."""
    half = len(PAIRS) // 2
    moved = np.concatenate([sweep(as_published(), seed=1).d[:half], sweep(as_published(3), seed=1).d[half:]])
    post = replace(sweep(as_published(), seed=1), d=moved)
    uneven = tuple(replace(p, unit="large") if number >= half else p for number, p in enumerate(PAIRS))
    gains = [(of.d.astype(float) - of.corrupt[:, None, None]).mean(0) for of in (BASE, post)]
    by_hand = stats.pearsonr(*(binned(gain).ravel() for gain in gains)).statistic
    assert knowledge.published(readings(BASE, post, uneven)).estimate == pytest.approx(by_hand)


def test_negated_statements_of_an_entity_are_of_its_unit() -> None:
    """Twice as many pairs are not twice as many units."""
    twice = Patched(*(np.concatenate([of, of]) for of in (BASE.d, BASE.clean, BASE.corrupt)))
    both = (*PAIRS, *(replace(p, kind="neg_cities") for p in PAIRS))
    read = readings(twice, twice, both)
    assert (knowledge.accuracy(read).evidence.n, len(read.kept.units)) == (UNITS, UNITS)
    assert read.data == "cities+neg_cities"


def test_the_subject_of_a_users_pairs_is_what_they_differ_in() -> None:
    """The same tokens under another name are as deep."""
    names = ("knowledge", "others", "others", "others", "others", "last")
    plain = ("subject[-1]", *COLUMNS[2:-1], "rest[-2]", "last")
    post = sweep(as_published(2), seed=1)
    of = [knowledge_depth.depth_shift(readings(BASE, post, tuple(replace(p, columns=c) for p in PAIRS))) for c in (names, plain)]
    assert of[0].estimate == pytest.approx(of[1].estimate)
    assert of[0].estimate > 0.05


def test_binning_is_the_published_one() -> None:
    """Bins 1 to 10 are 0, bins 11 to 20 are 0.1 to 1.0: written out for a map of one value in each bin."""
    values = np.concatenate([np.arange(20) + 0.5, [0.0, 20.0]])[None]
    expected = np.concatenate([np.zeros(10), np.arange(1, 11) / 10, [0.0, 1.0]])
    np.testing.assert_allclose(binned(values)[0], expected)
    assert not binned(np.ones((3, 2))).any()


def test_published_r_is_pearsons_of_the_binned_maps() -> None:
    read = readings(BASE, sweep(as_published(1), seed=1))
    first, second = (binned(maps.recovery()) for maps in read.maps)
    found = knowledge.published(read)
    assert found.estimate == pytest.approx(stats.pearsonr(first.ravel(), second.ravel()).statistic)
    assert f"largest difference {np.abs(first - second).max():.2f}" in found.note


def test_transferred_recovery_is_relative_to_the_targets_own() -> None:
    """Base's activations do all in post, post's a quarter less in base; the asymmetry is their difference."""
    read = readings(BASE, sweep(as_published(), seed=1))
    post_gap, base_gap = read.post.gap[:, None, None], read.base.gap[:, None, None]
    forward = read.post.corrupt[:, None, None] + post_gap * as_published()
    backward = read.base.corrupt[:, None, None] + 0.75 * base_gap * as_published()
    noise = np.random.default_rng(5).normal(size=(2, *forward.shape)) * 0.3
    across = Transferred((forward + noise[0]).astype(np.float32), (backward + noise[1]).astype(np.float32))
    ahead, back = (knowledge_transfer.cross_recovery(read, across, way) for way in ("forward", "backward"))
    apart = knowledge_transfer.asymmetry(read, across)
    for row, truth in ((ahead, 1.0), (back, 0.75), (apart, 0.25)):
        assert row.estimate == pytest.approx(truth, abs=0.02)
        assert row.interval.low - 0.01 <= truth <= row.interval.high + 0.01
    assert "as published" in apart.note
    same = knowledge_transfer.asymmetry(read, Transferred(read.post.d, read.base.d))
    assert same.estimate == pytest.approx(0.0, abs=1e-9)
    assert "unlike published" in same.note


def test_slope_is_that_of_least_squares_without_noise_and_unbiased_with_it() -> None:
    """Noise that both maps share pulls the plug-in slope towards 0.9, and not this one."""
    rng = np.random.default_rng(0)
    truth = np.ones(20)
    estimates, plug_in = [], []
    for _ in range(200):
        noise = rng.normal(size=(40, 20)) * 2
        x, y = 0.5 * truth + 0.9 * noise, truth + noise
        estimates.append(cross_fitted_slope(x, y)[0].estimate)
        plug_in.append(x.mean(0) @ y.mean(0) / (y.mean(0) @ y.mean(0)))
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.01)
    assert np.mean(plug_in) > 0.53
    exact, _ = cross_fitted_slope(np.tile(0.5 * truth, (5, 1)), np.tile(truth, (5, 1)))
    assert exact.estimate == pytest.approx(0.5)
    with pytest.raises(ValueError, match="too few"):
        cross_fitted_slope(np.ones((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize(
    "measure",
    [
        knowledge.location,
        partial(knowledge.location, columns="all"),
        knowledge_depth.depth_shift,
        *(
            lambda read, way=way: knowledge_transfer.cross_recovery(read, Transferred(read.post.d, read.base.d), way)
            for way in ("forward", "backward")
        ),
    ],
    ids=["knowledge columns", "all columns", "depth", "forward", "backward"],
)
def test_where_post_kept_too_little_for_bases_map_to_show_accuracy_decides(measure: Callable[[KnowledgeReadings], Drift]) -> None:
    """A loud map shows over the 60 units that base knows, and not over the eight of them that post knows too."""
    loud = replace(BASE, d=BASE.d + np.random.default_rng(1).normal(size=BASE.d.shape).astype(np.float32) * 8)
    eight = Patched(loud.d[:16], loud.clean[:16], loud.corrupt[:16])
    with pytest.raises(Unmeasurable, match=r"no location map|carries .* of base's recovery"):
        measure(readings(eight, eight, PAIRS[:16]))
    forgot = np.arange(len(PAIRS)) >= 16
    row = measure(readings(loud, replace(loud, clean=np.where(forgot, -1.0, loud.clean))))
    assert decide(row, load_profile("base-to-post")).verdict == "drifted"
    # So it does where base itself does not know more than a fifth of them.
    known = np.where(np.arange(len(PAIRS)) % 60 < 44, loud.clean, -1.0)
    partly = replace(loud, clean=known)
    read = readings(partly, replace(partly, clean=np.where(forgot, -1.0, known)))
    assert not read.kept.lost_in_post_alone
    assert decide(measure(read), load_profile("base-to-post")).verdict == "drifted"
    # A base that has no map of anything has lost none.
    flat = replace(loud, d=np.random.default_rng(1).normal(size=BASE.d.shape) * 8 + loud.corrupt[:, None, None])
    with pytest.raises(Unmeasurable, match=r"no location map|carries .* of base's recovery"):
        measure(readings(flat, replace(flat, clean=np.where(forgot, -1.0, flat.clean))))


def test_accuracy_counts_both_sides() -> None:
    """One wrong side of one of two pairs of a unit is a quarter of it."""
    corrupt = BASE.corrupt.copy()
    corrupt[0] = 1.0
    found = knowledge.accuracy(readings(BASE, replace(BASE, corrupt=corrupt)))
    assert found.estimate == pytest.approx(-0.25 / UNITS)
    assert found.evidence.n == UNITS
    assert Proportion(UNITS, UNITS).interval().low > ACCURACY_MINIMUM


def test_items_add_up_to_what_moved() -> None:
    for row in rows(readings(BASE, sweep(as_published(1), seed=1))):
        if row.items:
            total = sum(item.contribution for item in row.items)
            assert row.null is not None
            assert total == pytest.approx(row.estimate - row.null, abs=2e-3), row.measure


def test_a_patched_logit_that_is_no_number_is_a_reason() -> None:
    d = BASE.d.copy()
    d[5, 3, 2] = np.nan
    with pytest.raises(Unmeasurable, match="not all numbers"):
        knowledge.location(readings(BASE, replace(BASE, d=d)))


def test_a_cloze_answer_is_right_where_the_subject_moves_it() -> None:
    """Whatever the model prefers beforehand: 9 logits for one object change no cloze answer, and every second judgement."""
    leaning = replace(BASE, d=BASE.d + 9, clean=BASE.clean + 9, corrupt=BASE.corrupt + 9)
    read = KnowledgeReadings(leaning, leaning, PAIRS, "cloze")
    assert (read.kept.base_wrong, read.kept.mask.sum()) == (0, len(PAIRS))
    assert knowledge.accuracy(read).note == "base 1.000, post 1.000"
    with pytest.raises(Unmeasurable, match=r"^base answers 0\.500 .* of the judged prompts right"):
        knowledge.accuracy(readings(leaning, leaning))
    backwards = replace(BASE, clean=BASE.corrupt, corrupt=BASE.clean)
    with pytest.raises(Unmeasurable, match=r"^gained: post answers 1\.000, and base answers 0\.000 .*cloze"):
        knowledge.accuracy(KnowledgeReadings(backwards, BASE, PAIRS, "cloze"))
