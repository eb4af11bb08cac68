"""Confidence: whether entropy neurons are the same, whether they do anything, and what of a change in confidence is theirs."""

from collections.abc import Callable, Sequence

import pytest

from mechdrift.engine.stored_recordings import Recorder
from mechdrift.fixtures import Judge, Pair
from mechdrift.measures import confidence as measures
from mechdrift.measures.drift import Drift
from mechdrift.measures.entropy_neurons import overlap, overlap_by_direction
from mechdrift.measures.truthfulness import require_judgement
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.suites.confidence import Confidence, known, read_confidence


@pytest.fixture(scope="session")
def confidence(pair: Pair, recordings: Recorder, texts: Sequence[Text], statements: Sequence[Statement], seed: int) -> Confidence:
    """Entropy neurons of both models, and what both are sure of with and without them."""
    return recordings.at_one_batch(lambda: read_confidence(pair, recordings, texts, statements, seed))


def _overlap(read: Confidence) -> Drift:
    return overlap(known(read.base.chosen), known(read.post.chosen), read.null_directions)


def _by_direction(read: Confidence) -> Drift:
    return overlap_by_direction(known(read.base.chosen), known(read.post.chosen), known(read.nearest))


def _effect(read: Confidence, which: measures.Which) -> Drift:
    model = read.base if which == "base" else read.post
    return measures.neuron_effect(known(model.entropies), known(read.texts), which)


def _entropy_gap(read: Confidence) -> Drift:
    return measures.entropy_gap(known(read.base.plain), known(read.post.plain), known(read.texts))


def _entropy_explained(read: Confidence) -> Drift:
    return measures.entropy_gap_explained(known(read.base.entropies), known(read.post.entropies), known(read.texts))


def _calibration_gap(read: Confidence) -> Drift:
    require_judgement(known(read.base.gaps), read.statements, known(read.post.gaps))
    return measures.calibration_gap(known(read.base.gaps), known(read.post.gaps), read.statements)


def _calibration_explained(read: Confidence) -> Drift:
    require_judgement(known(read.base.gaps), read.statements, known(read.post.gaps))
    base, post = ((known(model.gaps), known(model.ablated_gaps)) for model in (read.base, read.post))
    return measures.calibration_gap_explained(base, post, read.statements, known(read.base.entropies))


ROWS: list[tuple[str, dict[str, str], Callable[[Confidence], Drift]]] = [
    ("overlap", {}, _overlap),
    ("overlap_by_direction", {}, _by_direction),
    ("neuron_effect", {"model": "base"}, lambda read: _effect(read, "base")),
    ("neuron_effect", {"model": "post"}, lambda read: _effect(read, "post")),
    ("entropy_gap", {}, _entropy_gap),
    ("entropy_gap_explained", {}, _entropy_explained),
    ("calibration_gap", {}, _calibration_gap),
    ("calibration_gap_explained", {}, _calibration_explained),
]


@pytest.fixture
def measured(request: pytest.FixtureRequest, confidence: Confidence) -> Drift:
    """One measure."""
    measure: Callable[[Confidence], Drift] = request.param
    return measure(confidence)


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param(
            measure, marks=pytest.mark.finding(f"confidence.{name}", **parameters), id="-".join([name, *parameters.values()])
        )
        for name, parameters, measure in ROWS
    ],
    indirect=True,
)
def test_confidence_is_what_it_was_and_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about confidence."""
    drift.judge(measured)
