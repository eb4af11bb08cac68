"""The verdict rule."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mechdrift.measures.drift import Drift
from mechdrift.stats import Normal, PairedProportions, Spread
from mechdrift.verdict.decide import decide
from mechdrift.verdict.limits import Limit, Profile, Rule

ORDER = {"drifted": 0, "undecided": 1, "held": 2}


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


def test_a_quantity_of_one_model_is_judged_as_it_is() -> None:
    """No change is known of it: no limit is too fine, and nothing of it is known without measuring."""
    for error, verdict in ((0.01, "held"), (0.05, "held"), (0.06, "undecided")):
        assert decide(drift(0.89, error, null=None), profile(at_least=0.8)).verdict == verdict
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
    far = Drift(**vars(lost) | {"evidence": Normal(-0.5, 0.01, 100)})
    assert decide(drift(9.9, 0.01, post_lacks=True, sibling=far), rule).verdict == "drifted"


def test_without_a_limit_a_row_is_reported() -> None:
    assert decide(drift(0.1, 0.01), Profile("p", {}, 1)).verdict == "reported"


@given(st.floats(-2, 2), st.floats(0, 1), st.floats(-2, 2), st.floats(0, 1))
def test_the_verdict_is_monotone_in_estimate_and_limit(estimate: float, more: float, bound: float, error: float) -> None:
    verdicts = [
        decide(drift(estimate, error), profile(at_least=bound)).verdict,
        decide(drift(estimate + more, error), profile(at_least=bound)).verdict,
        decide(drift(estimate, error), profile(at_least=bound - more)).verdict,
    ]
    assume("unmeasurable" not in verdicts)
    assert ORDER[verdicts[0]] <= ORDER[verdicts[1]]
    assert ORDER[verdicts[0]] <= ORDER[verdicts[2]]


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.floats(0, 1))
def test_what_is_not_a_number_is_never_green(estimate: float, error: float) -> None:
    assert decide(drift(estimate, error), profile(at_least=0.8)).verdict == "unmeasurable"
