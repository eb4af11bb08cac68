"""Does the truth direction hold? Du et al. 2025, arXiv 2504.02904, claim 2."""

from collections.abc import Sequence

import pytest

from mechdrift.engine.recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.fixtures import Judge, Pair
from mechdrift.measures import truthfulness
from mechdrift.measures.drift import Drift
from mechdrift.prompts.statements import Statement
from mechdrift.suites.truthfulness import TruthReadings, read_truth

# Libraries below may warn; a project that makes warnings errors means its own.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def truth(pair: Pair, recordings: Recorder, statements: Sequence[Statement], pytestconfig: pytest.Config) -> TruthReadings:
    """Both models' readings."""
    return read_truth(pair, recordings, statements, pytestconfig.getoption("--mechdrift-seed"))


@pytest.fixture
def direction_similarity(truth: TruthReadings) -> Drift:
    """Cosine of the truth directions across disjoint entities."""
    try:
        sibling = truthfulness.judgement_accuracy(truth.base_gap, truth.post_gap, truth.statements)
    except Unmeasurable:  # a base that cannot judge may still tell true from false inside
        sibling = None
    return truth.noted(truthfulness.direction_similarity(truth.base, truth.post, truth.statements, sibling))


@pytest.fixture
def probe_transfer(truth: TruthReadings, request: pytest.FixtureRequest) -> Drift:
    """Transferred against own probe."""
    return truth.noted(truthfulness.probe_transfer(truth.base, truth.post, truth.statements, request.param))


@pytest.fixture
def probe_accuracy(truth: TruthReadings) -> Drift:
    """Own probes, before and after."""
    return truth.noted(truthfulness.probe_accuracy(truth.base, truth.post, truth.statements))


@pytest.fixture
def judgement_accuracy(truth: TruthReadings) -> Drift:
    """TRUE/FALSE judgements, before and after."""
    return truth.noted(truthfulness.judgement_accuracy(truth.base_gap, truth.post_gap, truth.statements))


@pytest.fixture
def clean_gap(truth: TruthReadings) -> Drift:
    """Margin of the judgements, before and after."""
    return truth.noted(truthfulness.clean_gap(truth.base_gap, truth.post_gap, truth.statements))


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
