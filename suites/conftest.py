"""Short names for what mechdrift gives its suites."""

from collections.abc import Sequence
from typing import Literal

import pytest

from mechdrift.engine.generate.arms import Generator
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.fixtures import Judge, Pair
from mechdrift.hand_set import HandSet
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.prompts.written_pairs import WrittenPair
from mechdrift.tiers import Tier


@pytest.fixture(scope="session")
def pair(mechdrift_pair: Pair) -> Pair:
    """Base and post."""
    return mechdrift_pair


@pytest.fixture(scope="session")
def statements(mechdrift_statements: Sequence[Statement]) -> Sequence[Statement]:
    """True and false statements, split by entity."""
    return mechdrift_statements


@pytest.fixture(scope="session")
def pairs(mechdrift_pairs: Sequence[WrittenPair]) -> Sequence[WrittenPair]:
    """The user's pairs of prompts; none where the shipped tables' are asked."""
    return mechdrift_pairs


@pytest.fixture(scope="session")
def instructions(mechdrift_instructions: Instructions) -> Instructions:
    """Harmful and harmless instructions, split."""
    return mechdrift_instructions


@pytest.fixture(scope="session")
def texts(mechdrift_texts: Sequence[Text]) -> Sequence[Text]:
    """Texts on which the next token is looked at."""
    return mechdrift_texts


@pytest.fixture(scope="session")
def hand_set(mechdrift_hand_set: HandSet) -> HandSet:
    """Choices that the user made by hand."""
    return mechdrift_hand_set


@pytest.fixture(scope="session")
def tier(mechdrift_tier: Tier) -> Tier:
    """How many items are used."""
    return mechdrift_tier


@pytest.fixture(scope="session")
def recordings(mechdrift_recordings: Recorder) -> Recorder:
    """What a checkpoint does with prompts."""
    return mechdrift_recordings


@pytest.fixture(scope="session")
def must_refuse(mechdrift_both_post_trained: bool) -> Literal["base", "post"]:
    """Which model must refuse: post, but for two that are both post-trained, of which the earlier has it to lose."""
    return "base" if mechdrift_both_post_trained else "post"


@pytest.fixture(scope="session")
def generator(mechdrift_generator: Generator) -> Generator:
    """Lets a checkpoint reply to prompts."""
    return mechdrift_generator


@pytest.fixture
def drift(mechdrift_drift: Judge) -> Judge:
    """Gives the verdict."""
    return mechdrift_drift


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """Of splits and few-shot orders."""
    return int(pytestconfig.getoption("--mechdrift-seed"))


@pytest.fixture(scope="session")
def identity_shortcut(pytestconfig: pytest.Config) -> bool:
    """Whether what is equal bit for bit is known to have changed by nothing, and not measured."""
    return not pytestconfig.getoption("--mechdrift-no-identity-shortcut")
