"""Context: how far the model sees, by its settings and by what it predicts."""

from collections.abc import Sequence

import pytest

from mechdrift.checkpoints.config_changes import PARTS, Part, reach_changes
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.fixtures import Judge, Pair
from mechdrift.measures import context as measures
from mechdrift.measures.drift import Drift
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.suites.context import DATA, read_late_losses, texts_of
from mechdrift.tiers import Tier


@pytest.fixture(scope="session")
def late_loss(
    pair: Pair,
    recordings: Recorder,
    texts: Sequence[Text],
    statements: Sequence[Statement],
    instructions: Instructions,
    tier: Tier,
    seed: int,
) -> Drift:
    """Loss of both models far back in long documents."""
    every = texts_of(texts, statements, instructions)
    read = recordings.at_one_batch(lambda: read_late_losses(pair, recordings, every, tier, seed))
    return measures.late_loss(read.base, read.post, DATA)


@pytest.mark.parametrize("part", [pytest.param(part, marks=pytest.mark.finding("context.settings", part=part)) for part in PARTS])
def test_settings_of_the_context_are_what_they_were(part: Part, pair: Pair, drift: Judge) -> None:
    """Windows, rope and soft caps, from the configs alone."""
    drift.judge(measures.settings(reach_changes(pair.base, pair.post, part), part))


@pytest.mark.finding("context.late_loss")
def test_what_stood_far_back_is_predicted_as_well(late_loss: Drift, drift: Judge) -> None:
    """Long documents that repeat themselves."""
    drift.judge(late_loss)
