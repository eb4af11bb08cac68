"""The truthfulness measures on planted activations, where the answer is known."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest
from scipy import special, stats

from mechdrift.errors import Unmeasurable
from mechdrift.findings.judging import entity_contributions, judged_kinds
from mechdrift.findings.truth import directions as truth_directions
from mechdrift.findings.truth import probes as truthfulness
from mechdrift.findings.truth.probes import choose_layer, clean_gap, fit_probe, independent_pairs
from mechdrift.prompts.statements import Statement, shipped_statements, split_entities
from mechdrift.verdict.decide import decide
from mechdrift.verdict.profiles import load_profile

WIDTH, LAYERS, TRUTH_LAYER = 24, 3, 1
STATEMENTS = [s for s in shipped_statements() if not s.negated and s.kind not in ("cities", "general_facts", "numbers")]
ENTITIES = len({(s.kind, s.entity) for s in STATEMENTS if s.split == "test"})
PROFILE = load_profile("base-to-post")
SIGNS = np.where([s.label for s in STATEMENTS], 1.0, -1.0)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=WIDTH)
    return vector / np.linalg.norm(vector)


def at_angle(direction: np.ndarray, degrees: float) -> np.ndarray:
    other = unit(99) - (unit(99) @ direction) * direction
    angle = np.radians(degrees)
    return np.cos(angle) * direction + np.sin(angle) * other / np.linalg.norm(other)


def planted(
    direction: np.ndarray, seed: int, statements: Sequence[Statement] = STATEMENTS, noise: float = 0.5, values: float = 1.0
) -> np.ndarray:
    """Truth along one direction at one layer; everywhere kinds, values and entities, each with a vector of its own."""
    rng = np.random.default_rng(seed)

    def vectors(names: list[str], scale: float) -> np.ndarray:
        table = {name: np.random.default_rng(crc32(name.encode())).normal(size=(LAYERS, WIDTH)) for name in set(names)}
        return scale * np.stack([table[name] for name in names])

    activations = vectors([s.kind for s in statements], 3.0) + vectors([s.value for s in statements], values)
    activations += vectors([s.entity for s in statements], 1.0) + rng.normal(size=activations.shape) * noise
    signs = np.where([s.label for s in statements], 1.0, -1.0)
    activations[:, TRUTH_LAYER] += 2.0 * signs[:, None] * direction
    return activations.astype(np.float32)


def test_the_layer_with_truth_is_chosen() -> None:
    layer, scores = choose_layer(planted(unit(0), 1), STATEMENTS)
    assert layer == TRUTH_LAYER
    assert scores[TRUTH_LAYER] > 2 * max(scores[0], scores[2])


@pytest.mark.parametrize("degrees", [0, 30, 60])
def test_similarity_covers_the_planted_angle(degrees: int) -> None:
    direction = unit(0)
    base, post = planted(direction, 1), planted(at_angle(direction, degrees), 2)
    drift = truth_directions.direction_similarity(base, post, STATEMENTS, None)
    assert drift.site == f"resid_post[{TRUTH_LAYER}] @ period"
    assert drift.evidence.n == ENTITIES
    low, high = drift.evidence.interval(0.999)
    assert low <= np.cos(np.radians(degrees)) <= high
    assert high - low < 0.15
    assert sum(item.contribution for item in drift.items) == pytest.approx(drift.estimate - 1, abs=0.02)


def test_without_truth_there_is_nothing_to_compare() -> None:
    """Values, kinds and entities alone have no direction: its squared length is within noise of zero, not below it."""
    blank = planted(np.zeros(WIDTH), 1, values=3.0)
    with pytest.raises(Unmeasurable, match="base has no truth direction at block"):
        truth_directions.direction_similarity(blank, blank, STATEMENTS, None)
    test = np.array([i for i, s in enumerate(STATEMENTS) if s.split == "test"])
    entities, rows = entity_contributions(blank[:, 0].astype(float), STATEMENTS, test)
    apart = independent_pairs(entities, STATEMENTS, test)
    products = rows @ rows.T
    # Left in, pairs that share a value pull the mean product far below zero: that bias is what leaving them out removes.
    every_pair = products[~np.eye(len(rows), dtype=bool)]
    assert stats.ttest_1samp(every_pair, 0).statistic < -3
    assert abs(products[apart].mean()) < 0.2 * abs(every_pair.mean())


def test_a_post_without_truth_is_marked_as_having_lost_it() -> None:
    drift = truth_directions.direction_similarity(planted(unit(0), 1), planted(np.zeros(WIDTH), 2), STATEMENTS, None)
    assert drift.post_lacks
    assert "post has no truth direction left" in drift.note


def test_probes_transfer_between_equal_directions_and_not_between_orthogonal_ones() -> None:
    base, same, other = planted(unit(0), 1), planted(unit(0), 2), planted(at_angle(unit(0), 90), 3)
    for direction in ("forward", "backward"):
        assert truthfulness.probe_transfer(base, same, STATEMENTS, direction).estimate == pytest.approx(0, abs=0.02)
        drift = truthfulness.probe_transfer(base, other, STATEMENTS, direction)
        assert drift.estimate == pytest.approx(-0.5, abs=0.1)  # chance against nearly always right
    assert truthfulness.probe_accuracy(base, other, STATEMENTS).estimate == pytest.approx(0, abs=0.02)
    lost = truthfulness.probe_accuracy(base, planted(np.zeros(WIDTH), 4), STATEMENTS)
    assert lost.estimate == pytest.approx(-0.5, abs=0.1)
    assert sum(item.contribution for item in lost.items) == pytest.approx(lost.estimate)


def test_a_post_whose_own_probe_reads_nothing_is_no_yardstick() -> None:
    """Chance against chance is no transfer: what base's own probe read, post's no longer does, and that is the drift."""
    base, blank = planted(unit(0), 1), planted(np.zeros(WIDTH), 2)
    found = truthfulness.probe_transfer(base, blank, STATEMENTS, "forward")
    assert found.interval.low < 0 < found.interval.high
    assert found.post_lacks
    assert found.sibling is not None
    assert found.sibling.estimate == truthfulness.probe_accuracy(base, blank, STATEMENTS).estimate
    decided = decide(found, PROFILE)
    assert decided.verdict == "drifted"
    assert "truth.probe_accuracy, which tells a loss, is drifted" in decided.reason
    assert decided.needed_n is None, "no more data is requested"
    assert "no yardstick" in found.note
    sound = truthfulness.probe_transfer(base, planted(unit(0), 3), STATEMENTS, "forward")
    assert not sound.post_lacks
    assert sound.sibling is None


@pytest.mark.parametrize(
    ("strengths", "seeds"),
    [((1.0, 0.3, 0.1, 0.0), 1), pytest.param((1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0), 5, marks=pytest.mark.nightly)],
)
def test_a_truth_that_fades_is_judged_no_better_the_more_it_fades(strengths: Sequence[float], seeds: int) -> None:
    """Majority of the seeds, of every gate that reads the period."""
    ranks = ["held", "unmeasurable", "undecided", "drifted"]
    seen: dict[str, list[int]] = {}
    for left in strengths:
        verdicts: dict[str, list[int]] = {}
        for seed in range(seeds):
            base, post = planted(unit(0), 10 + seed), planted(left * unit(0), 20 + seed)
            absolute = truthfulness.probe_accuracy(base, post, STATEMENTS)
            drifts = (
                absolute,
                truthfulness.probe_transfer(base, post, STATEMENTS, "forward"),
                truth_directions.direction_similarity(base, post, STATEMENTS, absolute),
            )
            for drift in drifts:
                verdicts.setdefault(drift.measure, []).append(ranks.index(decide(drift, PROFILE).verdict))
        for measure, found in verdicts.items():
            seen.setdefault(measure, []).append(sorted(found)[seeds // 2])
    for measure, found in seen.items():
        assert found == sorted(found), measure
        assert (found[0], found[-1]) == (0, 3), measure


def test_widths_that_differ_are_unmeasurable() -> None:
    base = planted(unit(0), 1)
    narrow = base[:, :, :20]
    with pytest.raises(Unmeasurable, match=r"base \(3, 24\), post \(3, 20\)"):
        truth_directions.direction_similarity(base, narrow, STATEMENTS, None)
    with pytest.raises(Unmeasurable, match=r"base \(3, 24\), post \(3, 20\)"):
        truthfulness.probe_transfer(base, narrow, STATEMENTS, "forward")
    assert truthfulness.probe_accuracy(base, narrow, STATEMENTS).estimate > -0.5  # each reads its own


def test_a_single_kind_has_no_kind_to_leave_out() -> None:
    one = [s for s in STATEMENTS if s.kind == "inventors"]
    with pytest.raises(Unmeasurable, match="there is only 'inventors'"):
        choose_layer(planted(unit(0), 1, one), one)


def test_probe_threshold_equals_a_logistic_regression() -> None:
    """The 1-D fit against the score equations of logistic regression, which the optimum must satisfy."""
    rng = np.random.default_rng(5)
    labels = rng.random(400) < 0.4
    centred = rng.normal(size=(400, 3)) + labels[:, None] * np.array([1.0, 0.5, 0.0])
    probe = fit_probe(centred, labels)
    projection = centred @ probe.direction

    def score(slope: float) -> np.ndarray:
        residual = labels - special.expit(slope * (projection - probe.threshold))
        return np.array([residual.sum(), residual @ projection])

    slopes = np.linspace(0.1, 10, 4000)
    assert min(np.abs(score(slope)).max() for slope in slopes) < 0.5  # of 400 statements; both equations at one slope


def test_probe_of_separable_data_takes_the_midpoint_of_the_nearest_points() -> None:
    centred = np.array([[-3.0], [-1.0], [2.0], [4.0]])
    probe = fit_probe(centred, np.array([False, False, True, True]))
    assert probe.threshold * probe.direction[0] == pytest.approx(0.5)


def gaps(size: float, noise: float, seed: int, flipped: float = 0.0) -> np.ndarray:
    """Judgement logits: +-size/2 with noise, a share of entities judged the wrong way."""
    rng = np.random.default_rng(seed)
    wrong = {s.entity for s in STATEMENTS if rng.random() < flipped}
    turn = np.array([-1.0 if s.entity in wrong else 1.0 for s in STATEMENTS])
    gap = SIGNS * turn * size / 2 + rng.normal(size=len(STATEMENTS)) * noise
    return np.where([s.split == "test" for s in STATEMENTS], gap, np.nan)


def test_judgement_accuracy_and_gap_are_what_was_planted() -> None:
    base, post = gaps(8, 0.1, 0), gaps(4, 0.1, 1)
    assert truthfulness.judgement_accuracy(base, post, STATEMENTS).estimate == 0
    ratio = clean_gap(base, post, STATEMENTS)
    assert ratio.interval.low <= 0.5 <= ratio.interval.high
    assert sum(item.contribution for item in ratio.items) == pytest.approx(ratio.estimate - 1)
    worse = gaps(8, 0.0, 0, flipped=0.2)
    truth = np.nanmean(np.where(np.isnan(worse), np.nan, SIGNS * worse > 0)) - 1
    drift = truthfulness.judgement_accuracy(base, worse, STATEMENTS)
    assert drift.estimate == pytest.approx(truth)
    assert drift.items[0].kind == "animal_classes"


def test_a_base_that_cannot_judge_is_unmeasurable_with_n_and_gap() -> None:
    with pytest.raises(
        Unmeasurable, match=rf"of the statements, more than 0\.7 needed; n = {ENTITIES} entities; clean gap -?\d\.\d\d logits"
    ):
        truthfulness.judgement_accuracy(gaps(0, 1, 0), gaps(8, 0.1, 1), STATEMENTS)


def test_a_tie_is_a_wrong_judgement() -> None:
    drift = truthfulness.judgement_accuracy(gaps(8, 0.1, 0), gaps(0, 0, 0), STATEMENTS)
    assert drift.estimate == -1


def test_statements_without_pairs_count_too() -> None:
    """A user's table: every entity has one statement, values are not named."""
    rng = np.random.default_rng(7)
    own = []
    for kind in ("k1", "k2"):
        splits = split_entities([f"{kind}{i}" for i in range(150)], 0)
        own += [Statement(f"{name}.", rng.random() < 0.4, name, kind, split) for name, split in splits.items()]
    drift = truth_directions.direction_similarity(planted(unit(0), 1, own), planted(unit(0), 2, own), own, None)
    low, high = drift.evidence.interval(0.999)
    assert low <= 1 <= high
    assert drift.evidence.n == 180


def two_form(general: np.ndarray, polarity: np.ndarray, seed: int) -> np.ndarray:
    """Affirmed and negated statements: truth along one direction, truth x polarity along another."""
    statements = shipped_statements()
    signs = np.where([s.label for s in statements], 1.0, -1.0)[:, None]
    turns = np.where([s.negated for s in statements], -1.0, 1.0)[:, None]
    activations = planted(np.zeros(WIDTH), seed, statements)
    activations[:, TRUTH_LAYER] += (2 * signs * general + 3 * signs * turns * polarity).astype(np.float32)
    return activations


@pytest.mark.parametrize("degrees", [0, 40])
def test_two_directions_are_found_apart(degrees: int) -> None:
    """Only the general direction is turned in post: the polarity direction has to stay."""
    general, polarity = at_angle(unit(0), 0), at_angle(unit(0), 90)
    turned = np.cos(np.radians(degrees)) * general + np.sin(np.radians(degrees)) * unit(7)
    base, post = two_form(general, polarity, 1), two_form(turned, polarity, 2)
    place = truthfulness.Place(TRUTH_LAYER)
    found = {
        which: truth_directions.two_directions(base, post, shipped_statements(), which, place)
        for which in ("general", "polarity")
    }
    cosine = general @ turned / np.linalg.norm(turned)
    assert found["general"].interval.low - 0.02 <= cosine <= found["general"].interval.high + 0.02
    assert found["polarity"].estimate == pytest.approx(1, abs=0.02)
    assert found["general"].evidence.n == len({(s.kind, s.entity) for s in shipped_statements() if s.split == "test"})


def test_polarity_contributions_are_the_least_squares_directions() -> None:
    """Against numpy's own solver on the centred activations."""
    statements = shipped_statements()
    test = np.array([i for i, s in enumerate(statements) if s.split == "test"])
    values = np.random.default_rng(0).normal(size=(len(statements), 4))
    centred = values[test].copy()
    groups = np.array([f"{statements[i].kind}{statements[i].negated}" for i in test])
    for group in set(groups):
        centred[groups == group] -= centred[groups == group].mean(0)
    signs = np.array([1.0 if statements[i].label else -1.0 for i in test])
    turns = np.array([-1.0 if statements[i].negated else 1.0 for i in test])
    solved = np.linalg.lstsq(np.stack([signs, signs * turns], axis=1), centred, rcond=None)[0]
    for row, which in enumerate(("general", "polarity")):
        _, rows = truth_directions.polarity_contributions(values, statements, test, which)
        assert rows.mean(0) == pytest.approx(solved[row])


def test_two_directions_need_both_polarities() -> None:
    with pytest.raises(Unmeasurable, match="no kind has affirmed and negated statements"):
        truth_directions.two_directions(planted(unit(0), 1), planted(unit(0), 2), STATEMENTS, "general", truthfulness.Place(1))


def test_the_judgement_direction_is_found_where_it_is_clearest_on_the_choose_split() -> None:
    fit = np.array([s.split == "fit" for s in STATEMENTS])
    base, post = planted(unit(0), 1), planted(at_angle(unit(0), 30), 2)
    base[fit] = post[fit] = np.nan
    drift = truth_directions.judgement_direction(base, post, STATEMENTS, None)
    assert drift.site == f"resid_post[{TRUTH_LAYER}] @ last"
    assert drift.interval.low <= np.cos(np.radians(30)) <= drift.interval.high


def test_a_place_set_by_hand_is_used_and_named() -> None:
    place = truthfulness.Place(0, "hand-set")
    drift = truthfulness.probe_accuracy(planted(unit(0), 1)[:, [1, 0, 2]], planted(unit(0), 2)[:, [1, 0, 2]], STATEMENTS, place)
    assert (drift.site, drift.site_rule) == ("resid_post[0] @ period", "hand-set")


def test_kinds_that_base_cannot_judge_are_left_out_with_their_accuracy() -> None:
    """Knows two kinds of four, by the choose split: nothing else may decide."""
    rng = np.random.default_rng(0)
    known = {"animal_classes", "spanish_words"}
    hits = np.array([s.kind in known or rng.random() < 0.5 for s in STATEMENTS])
    gap = np.where([s.split == "choose" for s in STATEMENTS], np.where(hits, SIGNS, -SIGNS), np.nan)
    kinds, left_out = judged_kinds(gap, STATEMENTS)
    assert set(kinds) == known
    for kind, accuracy in left_out.items():
        right = [hit for hit, s in zip(hits, STATEMENTS, strict=True) if s.kind == kind and s.split == "choose"]
        assert accuracy == pytest.approx(np.mean(right))
    assert left_out.keys() == {s.kind for s in STATEMENTS} - known


def test_a_base_that_judges_no_two_kinds_is_asked_all() -> None:
    gap = np.where(
        [s.split == "choose" for s in STATEMENTS], np.where([s.kind == "inventors" for s in STATEMENTS], SIGNS, -SIGNS), np.nan
    )
    assert judged_kinds(gap, STATEMENTS) == (tuple(sorted({s.kind for s in STATEMENTS})), {})
