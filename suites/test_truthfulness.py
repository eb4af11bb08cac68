"""Does the truth direction hold? Du et al. 2025, arXiv 2504.02904, claim 2."""

from collections.abc import Sequence
from contextlib import suppress

import pytest

from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.fixtures import Judge, Pair
from mechdrift.hand_set import HandSet
from mechdrift.measures import truth_directions, truthfulness
from mechdrift.measures.drift import Drift
from mechdrift.measures.steering import FLIPS, FORMULAS, Flips, Formula
from mechdrift.prompts.statements import Statement
from mechdrift.suites.truthfulness import TruthReadings, read_judging, read_truth
from mechdrift.suites.truthfulness_steering import SteeringReadings, read_steering

# Libraries below may warn; a project that makes warnings errors means its own.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def truth(pair: Pair, recordings: Recorder, statements: Sequence[Statement], seed: int, hand_set: HandSet) -> TruthReadings:
    """Both models' readings."""
    return recordings.at_one_batch(lambda: read_truth(pair, recordings, statements, seed, hand_set))


@pytest.fixture(scope="session")
def steered(pair: Pair, recordings: Recorder, truth: TruthReadings, seed: int, hand_set: HandSet) -> SteeringReadings:
    """What both models say when they are steered."""
    return recordings.at_one_batch(lambda: read_steering(pair, recordings, truth, seed, hand_set))


@pytest.fixture(scope="session")
def judgement(truth: TruthReadings) -> Drift | None:
    """The absolute row that decides where post has no direction of judging left; a base that cannot judge may still have one."""
    try:
        return truth.noted(truthfulness.judgement_accuracy(truth.base_gap, truth.post_gap, truth.statements))
    except Unmeasurable:
        return None


@pytest.fixture
def direction_similarity(truth: TruthReadings) -> Drift:
    """Cosine of the truth directions across disjoint entities; where post has none left, its own probe decides."""
    absolute: Drift | None = None
    with suppress(Unmeasurable):  # of base's own probe, which has its row: base may have a direction all the same
        absolute = truthfulness.probe_accuracy(truth.base, truth.post, truth.statements, truth.place)
    return truth.noted(truth_directions.direction_similarity(truth.base, truth.post, truth.statements, absolute, truth.place))


@pytest.fixture
def probe_transfer(truth: TruthReadings, request: pytest.FixtureRequest) -> Drift:
    """Transferred against own probe."""
    return truth.noted(truthfulness.probe_transfer(truth.base, truth.post, truth.statements, request.param, truth.place))


@pytest.fixture
def probe_accuracy(truth: TruthReadings) -> Drift:
    """Own probes, before and after."""
    return truth.noted(truthfulness.probe_accuracy(truth.base, truth.post, truth.statements, truth.place))


@pytest.fixture
def judgement_accuracy(truth: TruthReadings) -> Drift:
    """TRUE/FALSE judgements, before and after."""
    return truth.noted(truthfulness.judgement_accuracy(truth.base_gap, truth.post_gap, truth.statements))


@pytest.fixture
def clean_gap(truth: TruthReadings) -> Drift:
    """Margin of the judgements, before and after."""
    return truth.noted(truthfulness.clean_gap(truth.base_gap, truth.post_gap, truth.statements))


@pytest.fixture
def judgement_direction(pair: Pair, recordings: Recorder, truth: TruthReadings, judgement: Drift | None, seed: int) -> Drift:
    """Cosine of the judgement directions across disjoint entities."""
    base, post = recordings.at_one_batch(lambda: read_judging(pair, recordings, truth, seed))
    return truth.noted(truth_directions.judgement_direction(base, post, truth.statements, judgement))


@pytest.mark.finding("truth.direction_similarity")
def test_truth_direction_is_nearly_the_same(direction_similarity: Drift, drift: Judge) -> None:
    """The direction that tells true statements from false is nearly the same."""
    drift.judge(direction_similarity)


@pytest.mark.parametrize(
    "probe_transfer",
    [
        pytest.param("forward", marks=pytest.mark.finding("truth.probe_transfer_forward")),
        pytest.param("backward", marks=pytest.mark.finding("truth.probe_transfer_backward")),
    ],
    indirect=True,
)
def test_truth_probe_transfers(probe_transfer: Drift, drift: Judge) -> None:
    """A probe of one model reads the other."""
    drift.judge(probe_transfer)


@pytest.mark.finding("truth.probe_accuracy")
def test_truth_stays_readable(probe_accuracy: Drift, drift: Judge) -> None:
    """Each model's own probe works as well as the other's."""
    drift.judge(probe_accuracy)


@pytest.mark.finding("truth.judgement_accuracy")
def test_judgements_stay_right(judgement_accuracy: Drift, drift: Judge) -> None:
    """Post judges as well as base."""
    drift.judge(judgement_accuracy)


@pytest.mark.finding("truth.clean_gap")
def test_judgements_stay_clear(clean_gap: Drift, drift: Judge) -> None:
    """Post judges by as wide a margin."""
    drift.judge(clean_gap)


@pytest.mark.finding("truth.judgement_direction")
def test_judgement_direction_is_nearly_the_same(judgement_direction: Drift, drift: Judge) -> None:
    """What tells the two judgements apart at the end of the prompt is the same."""
    drift.judge(judgement_direction)


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(which, marks=pytest.mark.finding("truth.two_directions", direction=which))
        for which in ("general", "polarity")
    ],
)
def test_directions_of_affirmed_and_negated_statements_are_nearly_the_same(
    truth: TruthReadings, which: str, drift: Judge
) -> None:
    """The two-direction form of truth is the same."""
    drift.judge(truth.noted(truth_directions.two_directions(truth.base_both, truth.post_both, truth.both, which, truth.place)))


@pytest.mark.finding("truth.steering_transfer")
def test_truth_direction_of_base_steers_post(steered: SteeringReadings, drift: Judge) -> None:
    """Base's direction does on post what post's own does."""
    drift.judge(steered.transfer("truth.steering_transfer"))


@pytest.mark.parametrize(
    ("formula", "flips"),
    [
        pytest.param(formula, flips, marks=pytest.mark.finding("truth.steering_transfer_by", formula=formula, flips=flips))
        for formula in FORMULAS
        for flips in FLIPS
    ],
)
def test_truth_direction_of_base_steers_post_each_way(
    steered: SteeringReadings, formula: Formula, flips: Flips, drift: Judge
) -> None:
    """The same, each way by itself, and by both published formulas."""
    drift.judge(steered.transfer("truth.steering_transfer_by", formula, flips))


@pytest.mark.finding("truth.steering_backward")
def test_truth_direction_of_post_steers_base(steered: SteeringReadings, drift: Judge) -> None:
    """Post's direction does on base what base's own does."""
    drift.judge(steered.transfer("truth.steering_backward"))


@pytest.mark.finding("truth.steering_effect")
def test_truth_stays_steerable(steered: SteeringReadings, drift: Judge) -> None:
    """Each model's own direction steers it as much."""
    drift.judge(steered.effect())
