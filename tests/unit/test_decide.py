"""The verdict rule."""

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mechdrift.findings.drift import Drift
from mechdrift.stats import Normal, PairedProportions, Proportion, Spread
from mechdrift.verdict.decide import decide, errors_needed
from mechdrift.verdict.limits import Limit, Profile, Rule

ORDER = {"drifted": 0, "undecided": 1, "unmeasurable": 2, "held": 3}


def drift(estimate: float, error: float, null: float | None = 1.0, n: int = 100, **more: object) -> Drift:
    fields: dict[str, object] = {"unit": "u", "better": "higher", "site": "s", "site_rule": "r", "data": "d"}
    return Drift(measure="m", evidence=Normal(estimate, error, n), null=null, **fields | more)  # type: ignore[arg-type]


def profile(at_least: float | None = None, at_most: float | None = None, gates: int = 12) -> Profile:
    limit = Limit(at_least, at_most, "test")
    return Profile("p", {"m": Rule("gate", limit), "sibling": Rule("gate", Limit(-0.1, None, "test"))}, gates)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.9, 0.95, 1.0), "held"),
        ((0.7, 0.95, 1.0), "undecided"),  # a part is outside, most are not
        ((0.7, 0.79, 1.0), "drifted"),
        ((0.1, 0.95, 1.9), "undecided"),  # a wide range is no lack of resolution
    ],
)
def test_what_is_exact_has_a_range_and_supports_any_limit(values: tuple[float, ...], verdict: str) -> None:
    exact = replace(drift(0, 0), evidence=Spread(values))
    found = decide(exact, profile(at_least=0.8))
    assert (found.verdict, found.needed_n) == (verdict, None)
    assert exact.floor == (1.0, 1.0)


@pytest.mark.parametrize(
    ("estimate", "error", "verdict"),
    [
        (0.95, 0.01, "held"),
        (1.20, 0.01, "held"),  # better than no change is no loss
        (0.81, 0.01, "undecided"),  # inside, but its interval crosses
        (0.78, 0.01, "undecided"),  # outside by 2 errors: p = .023, over .05/12
        (0.77, 0.01, "drifted"),  # by 3 errors: p = .0013
        (0.50, 0.01, "drifted"),
        (0.95, 0.05, "unmeasurable"),  # .2 of room is 4 errors, 4.5 needed
        (0.20, 0.05, "drifted"),  # far outside is drift whatever the limit's fineness
        (math.nan, 0.01, "unmeasurable"),
        (0.95, math.nan, "unmeasurable"),
        (0.95, math.inf, "unmeasurable"),
    ],
)
def test_one_sided_limit(estimate: float, error: float, verdict: str) -> None:
    assert decide(drift(estimate, error), profile(at_least=0.8)).verdict == verdict


@pytest.mark.parametrize(("estimate", "verdict"), [(0.0, "held"), (0.049, "undecided"), (0.07, "drifted"), (-0.07, "drifted")])
def test_two_sided_limit(estimate: float, verdict: str) -> None:
    assert decide(drift(estimate, 0.005, null=0.0), profile(-0.05, 0.05)).verdict == verdict


z = NormalDist().inv_cdf


@pytest.mark.parametrize("null", [0.0, 1.0])
@pytest.mark.parametrize(
    ("at_least", "at_most", "room"),
    [(-0.05, 0.5, 0.05), (-0.5, 0.05, 0.05), (-0.5, 0.5, 0.5), (-0.5, None, 0.5), (None, 0.05, 0.05), (-0.5, -0.05, None)],
)
def test_the_nearer_side_of_a_limit_is_what_n_must_support(
    at_least: float | None, at_most: float | None, room: float | None, null: float
) -> None:
    """Counted from no change: a limit that leaves .05 on either side is 1.7 errors of .03 away, one of .5 is 17."""
    low, high = (None if bound is None else null + bound for bound in (at_least, at_most))
    found = decide(drift(null, 0.03, null=null), profile(low, high))
    if room is None:  # no change would break it: 1.7 errors beyond, p = .048
        assert found.verdict == "undecided"
    elif room > 0.1:
        assert found.verdict == "held"
    else:
        needed = 100 * ((z(0.95) + z(1 - 0.05 / 24)) * 0.03 / room) ** 2
        assert (found.verdict, found.needed_n) == ("unmeasurable", math.ceil(needed))
        assert "is 1.7 standard errors from no change, 4.5 needed; n = 733 would do" in found.reason


@pytest.mark.parametrize(("gates", "m"), [(0, 1), (1, 1), (2, 2), (12, 12)])
def test_evidence_and_resolution_are_shared_among_the_gates(gates: int, m: int) -> None:
    """Bonferroni over the gates, of which there is one at least: z of .05/m to drift, 1.645 + z of .05/2m to be judged."""
    rule = profile(at_least=0.8, gates=gates)
    assert errors_needed(rule) == pytest.approx(z(0.95) + z(1 - 0.05 / (2 * m)))
    barely, clearly = z(1 - 0.05 / m) - 0.01, z(1 - 0.05 / m) + 0.01
    assert decide(drift(0.8 - 0.01 * barely, 0.01), rule).verdict == "undecided"
    drifted = decide(drift(0.8 - 0.01 * clearly, 0.01), rule)
    assert drifted.verdict == "drifted"
    assert drifted.reason.endswith(f", under {0.05 / m:.2g}")


@pytest.mark.parametrize(
    ("estimate", "limit", "n"),
    [
        (0.81, (0.8, None), 100 * z(0.95) ** 2),  # inside by one error: until the interval fits
        (0.78, (0.8, None), 100 * (z(1 - 0.05 / 12) / 2) ** 2),  # outside by two: until p is under .05/12
        (0.81, (0.8, 5.0), 100 * z(0.95) ** 2),  # the nearer side is what is in doubt
        (1.19, (-5.0, 1.2), 100 * z(0.95) ** 2),
        (1.22, (-5.0, 1.2), 100 * (z(1 - 0.05 / 12) / 2) ** 2),
    ],
)
def test_the_n_that_would_decide_is_that_of_the_nearer_side(
    estimate: float, limit: tuple[float | None, float | None], n: float
) -> None:
    found = decide(drift(estimate, 0.01), profile(*limit))
    assert found.verdict == "undecided"
    assert found.needed_n == math.ceil(n - 1e-9)
    assert f"about {found.needed_n - 100} more would decide" in found.reason


@pytest.mark.parametrize("off", [0.0, 1e-17, -1e-10])
def test_no_n_decides_what_sits_on_the_bound(off: float) -> None:
    found = decide(drift(0.8 + off, 0.01), profile(at_least=0.8))
    assert (found.verdict, found.needed_n) == ("undecided", None)
    assert "would decide" not in found.reason


@pytest.mark.parametrize("limit", [(0.8, None), (None, 0.8), (0.8, 0.8)])
def test_what_is_exactly_at_its_limit_is_held(limit: tuple[float | None, float | None]) -> None:
    assert decide(drift(0.8, 0.0, null=0.8), profile(*limit)).verdict == "held"


@pytest.mark.parametrize(("values", "verdict"), [((1.0, 1.0, math.inf), "unmeasurable"), ((-math.inf, 1.0, 1.0), "unmeasurable")])
def test_one_end_that_is_no_number_is_enough(values: tuple[float, ...], verdict: str) -> None:
    assert decide(resting_on(Spread(values), 1.0), profile(at_least=0.5)).verdict == verdict


def test_a_quantity_of_one_model_is_judged_as_it_is() -> None:
    """No change is known of it: no limit is too fine, and nothing of it is known without measuring."""
    for error, verdict in ((0.01, "held"), (0.05, "held"), (0.06, "undecided")):
        assert decide(drift(0.89, error, null=None), profile(at_least=0.8)).verdict == verdict
    assert decide(drift(9.0, 2.0, null=None), profile(at_least=0.8)).verdict == "held", "no limit is too fine for any error"
    bad = drift(0.5, 0.01, null=None)
    assert decide(bad.of_identical(), profile(at_least=0.8)).verdict == "drifted"
    assert bad.floor is None


def test_more_gates_need_stronger_evidence() -> None:
    doubtful = drift(0.777, 0.01)
    assert decide(doubtful, profile(at_least=0.8, gates=1)).verdict == "drifted"
    assert decide(doubtful, profile(at_least=0.8, gates=40)).verdict == "undecided"


@pytest.mark.parametrize(("gates", "errors"), [(12, 4.5), (40, 4.9)])
def test_a_limit_that_n_cannot_support_is_refused_with_the_n_it_needs(gates: int, errors: float) -> None:
    fine = decide(drift(1.0, 0.2 / (errors + 0.05)), profile(at_least=0.8, gates=gates))
    coarse = decide(drift(1.0, 0.2 / (errors - 0.05)), profile(at_least=0.8, gates=gates))
    assert fine.verdict == "held"
    assert coarse.verdict == "unmeasurable"
    assert coarse.needed_n is not None
    assert 100 < coarse.needed_n < 110


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [(1, 3, "unmeasurable"), (5, 8, "unmeasurable"), (1, 13, "undecided"), (0, 40, "drifted"), (13, 0, "held")],
)
def test_a_limit_is_too_fine_only_for_rows_that_may_not_have_moved(gained: int, lost: int, verdict: str) -> None:
    """Of 115 pairs, a limit of .10: a fall of .104 is seen, and what is seen can be judged."""
    moved = replace(drift(0.0, 0.0, null=0.0), evidence=PairedProportions(gained, lost, 115))
    found = decide(moved, profile(at_least=-0.1, gates=28))
    assert found.verdict == verdict
    assert (moved.interval.low <= 0 <= moved.interval.high) == (verdict == "unmeasurable")


def test_an_undecided_row_says_which_n_would_decide() -> None:
    decision = decide(drift(0.81, 0.01, n=100), profile(at_least=0.8))
    assert decision.needed_n == 271  # the 90% interval is 1.645 errors wide, there is 1: (1.645)^2 x 100
    enough = drift(0.81, 0.01 * math.sqrt(100 / 271), n=271)
    assert decide(enough, profile(at_least=0.8)).verdict == "held"


def test_no_disagreement_between_many_pairs_is_held_and_between_few_unmeasurable() -> None:
    def judged(n: int) -> str:
        paired = drift(0.0, 0.0, null=0.0)
        return decide(Drift(**vars(paired) | {"evidence": PairedProportions(0, 0, n)}), profile(at_least=-0.1)).verdict

    assert judged(360) == "held"
    assert judged(20) == "unmeasurable"


def test_a_direction_that_post_lost_is_decided_by_its_sibling() -> None:
    lost = Drift(**vars(drift(-0.3, 0.1, null=0.0)) | {"measure": "sibling"})
    kept = Drift(**vars(drift(0.0, 0.01, null=0.0)) | {"measure": "sibling"})
    rule = profile(at_least=0.8)
    assert decide(drift(9.9, 0.01, post_lacks=True, sibling=kept), rule).verdict == "undecided"
    assert decide(drift(9.9, 0.01, post_lacks=True), rule).verdict == "undecided"
    unsure = decide(drift(9.9, 0.01, post_lacks=True, sibling=lost), rule)
    alone = decide(lost, rule)
    assert unsure.verdict == "undecided"
    assert alone.needed_n is not None
    assert unsure.needed_n == alone.needed_n, "what it rests on says how many more items would decide"
    assert alone.reason in unsure.reason
    far = Drift(**vars(lost) | {"evidence": Normal(-0.5, 0.01, 100)})
    assert decide(drift(9.9, 0.01, post_lacks=True, sibling=far), rule).verdict == "drifted"


def test_what_is_left_of_many_items_may_drift_and_is_never_held() -> None:
    """The sibling tells of the loss and does not decide: a loss that shrinks again would make a further drift a milder one."""
    lost = Drift(**vars(drift(-0.5, 0.01, null=0.0)) | {"measure": "sibling"})
    rule = profile(at_least=0.8)
    assert decide(drift(0.99, 0.01), rule).verdict == "held"
    left = decide(drift(0.99, 0.01, fewer_left=True, sibling=lost), rule)
    assert left.verdict == "undecided"
    assert "sibling, which tells the loss, is drifted" in left.reason
    assert decide(drift(0.7, 0.01, fewer_left=True, sibling=lost), rule).verdict == "drifted"
    assert decide(drift(0.7, 0.01, fewer_left=True), rule).verdict == "drifted"
    assert decide(drift(float("nan"), 0.01, fewer_left=True, sibling=lost), rule).verdict == "unmeasurable"


def test_what_the_model_lacks_that_must_have_it_is_unmeasurable_whatever_is_shown() -> None:
    found = decide(drift(0.99, 0.01, lacking="base has none"), profile(at_least=0.8))
    assert (found.verdict, found.reason) == ("unmeasurable", "base has none")


def test_without_a_limit_a_row_is_reported() -> None:
    assert decide(drift(0.1, 0.01), Profile("p", {}, 1)).verdict == "reported"


FINITE = st.floats(-2, 2)
ERROR = st.floats(0, 1)
BAD = st.sampled_from([math.nan, math.inf, -math.inf])


def rank(judged: Drift, rule: Profile) -> int:
    return ORDER[decide(judged, rule).verdict]


@given(FINITE, ERROR, st.floats(0.001, 3), st.floats(0, 1), st.integers(1, 60))
@example(estimate=0.25, error=0.375, room=1.5, more=1.0, gates=3)
def test_what_is_better_or_asked_less_of_is_judged_no_worse(
    estimate: float, error: float, room: float, more: float, gates: int
) -> None:
    """In the order drifted, undecided, refused, held, while the limit leaves room for no change.

    But a limit is refused only where no change is in the interval: what is so much worse that it is not may be held within a wide
    limit, and then what is better, and like no change, is refused.
    """
    rule, worse, better = profile(at_least=1 - room, gates=gates), drift(estimate, error), drift(estimate + more, error)
    low, high = worse.interval
    seen = not low <= 1 <= high
    if seen and decide(better, rule).verdict == "unmeasurable":
        assert better.interval[0] <= 1 <= better.interval[1]
        assert decide(worse, rule).verdict in ("drifted", "undecided", "held")
    else:
        assert rank(worse, rule) <= rank(better, rule)
    assert rank(worse, rule) <= rank(worse, profile(at_least=1 - room - more, gates=gates))


@given(FINITE, ERROR, st.floats(0, 3), st.floats(0, 1))
def test_a_limit_that_demands_a_change_is_never_refused_and_as_monotone(
    estimate: float, error: float, beyond: float, more: float
) -> None:
    """Loosened until it leaves a little room it may be refused, which is why the two are told apart."""
    found = [
        rank(drift(estimate, error), profile(at_least=1 + beyond + more)),
        rank(drift(estimate, error), profile(at_least=1 + beyond)),
        rank(drift(estimate + more, error), profile(at_least=1 + beyond)),
    ]
    assert ORDER["unmeasurable"] not in found
    assert found == sorted(found)


@given(FINITE, ERROR, st.floats(0.001, 2), st.floats(0.001, 2), st.floats(0, 1), st.floats(0, 1))
def test_two_sides_are_as_monotone_in_the_limit(
    estimate: float, error: float, below: float, above: float, more: float, and_more: float
) -> None:
    tight = rank(drift(estimate, error), profile(1 - below, 1 + above))
    assert tight <= rank(drift(estimate, error), profile(1 - below - more, 1 + above + and_more))


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.9), st.floats(0, 0.09))
def test_shares_are_as_monotone_whose_error_goes_with_their_counts(gained: int, lost: int, room: float, more: float) -> None:
    """Loosening a limit never makes a verdict worse; one item that is lost instead of gained never makes it better than held."""

    def found(gained: int, lost: int, room: float) -> int:
        return rank(replace(drift(0, 0, null=0.0), evidence=PairedProportions(gained, lost, 100)), profile(at_least=-room))

    assert found(gained, lost, room) <= found(gained, lost, room + more)
    if gained:
        verdicts = found(gained, lost, room), found(gained - 1, lost + 1, room)
        assert verdicts != (ORDER["drifted"], ORDER["held"])


def resting_on(evidence: Any, null: float | None) -> Drift:
    """A drift with any evidence; the type checker of our tests would look at its estimate, and may find none."""
    found = drift(1, 0.001, null=null)
    object.__setattr__(found, "evidence", evidence)
    return found


EVIDENCE: list[tuple[type, dict[str, Any]]] = [
    (Normal, {"estimate": 1.0, "standard_error": 0.001, "n": 100}),
    (PairedProportions, {"gained": 3.0, "lost": 1.0, "n": 100}),
    (Proportion, {"successes": 99.0, "n": 100}),
    (Spread, {"values": (1.0, 1.0, 1.0)}),
]


@given(st.sampled_from(EVIDENCE), st.data(), BAD, st.sampled_from([None, 0.0, 1.0]))
def test_what_is_no_number_in_any_field_is_never_held(
    kind: tuple[type, dict[str, Any]], data: st.DataObject, bad: float, null: float | None
) -> None:
    make, fields = kind
    name = data.draw(st.sampled_from(sorted(fields)))
    spoilt = make(**fields)
    object.__setattr__(spoilt, name, (1.0, bad) if isinstance(fields[name], tuple) else bad)
    for rule in (profile(at_least=-5), profile(at_most=5), profile(-5, 5)):
        assert decide(resting_on(make(**fields), null), rule).verdict == "held"
        assert decide(resting_on(spoilt, null), rule).verdict == "unmeasurable"
    assert decide(resting_on(spoilt, null), Profile("p", {}, 1)).verdict == "unmeasurable"


@given(BAD)
def test_a_null_and_a_limit_that_are_no_numbers_are_never_held(bad: float) -> None:
    assert decide(drift(1, 0.001, null=bad), profile(at_least=0.5)).verdict == "unmeasurable"
    for rule in (profile(at_least=bad), profile(at_most=bad), profile(bad, 2.0), profile(0.5, bad), profile()):
        assert decide(drift(1, 0.001), rule).verdict == "unmeasurable"


@pytest.mark.parametrize("evidence", [Proportion(0, 0), PairedProportions(0, 0, 0), Spread(())])
def test_of_nothing_counted_there_is_no_verdict(evidence: Any) -> None:
    assert decide(resting_on(evidence, 1.0), profile(at_least=-5)).verdict == "unmeasurable"
