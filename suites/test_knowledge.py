"""Knowledge: where it lies in both models, and whether one model's representations work in the other (Du et al. 2025).

Asked in two forms: `judged`, as published, and `cloze`, for models that know what they cannot judge.
"""

from collections.abc import Callable, Sequence
from functools import cache

import pytest

from mechdrift.engine.stored_recordings import Recorder
from mechdrift.fixtures import Judge, Pair
from mechdrift.hand_set import HandSet
from mechdrift.measures import knowledge, knowledge_depth, knowledge_transfer
from mechdrift.measures.drift import Drift
from mechdrift.prompts.pairs import FORMS, Form
from mechdrift.prompts.written_pairs import WrittenPair
from mechdrift.suites.knowledge import Knowledge, read_knowledge
from mechdrift.tiers import Tier

MEASURES: dict[str, Callable[[Knowledge], Drift]] = {
    "location": lambda read: knowledge.location(read.read),
    "location_all": lambda read: knowledge.location(read.read, "all"),
    "depth_shift": lambda read: knowledge_depth.depth_shift(read.read),
    "accuracy": lambda read: knowledge.accuracy(read.read),
    "clean_gap": lambda read: knowledge.clean_gap(read.read),
    "published": lambda read: knowledge.published(read.read),
    "recovery_forward": lambda read: knowledge_transfer.cross_recovery(read.read, read.transferred, "forward"),
    "recovery_backward": lambda read: knowledge_transfer.cross_recovery(read.read, read.transferred, "backward"),
    "recovery_asymmetry": lambda read: knowledge_transfer.asymmetry(read.read, read.transferred),
}


@pytest.fixture(scope="session")
def readings(
    pair: Pair, recordings: Recorder, pairs: Sequence[WrittenPair], hand_set: HandSet, tier: Tier, seed: int
) -> Callable[[Form], Knowledge]:
    """What was read, by form; each form when it is first requested."""

    @cache
    def read(form: Form) -> Knowledge:
        return recordings.at_one_batch(lambda: read_knowledge(pair, recordings, form, seed, tier, pairs, hand_set))

    return read


@pytest.fixture
def measured(request: pytest.FixtureRequest, readings: Callable[[Form], Knowledge]) -> Drift:
    """One measure in one form."""
    name, form = request.param
    read = readings(form)
    return read.noted(MEASURES[name](read))


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param((name, form), marks=pytest.mark.finding(f"knowledge.{name}", form=form), id=f"{name}-{form}")
        for form in FORMS
        for name in MEASURES
    ],
    indirect=True,
)
def test_knowledge_stays_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about knowledge, in each form."""
    drift.judge(measured)
