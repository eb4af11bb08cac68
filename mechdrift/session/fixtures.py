"""What suites are given. Everything is session-scoped and lazy: a fixture that no test asks for costs nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mechdrift.checkpoints.chain import BASE_TO_POST
from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.pair import Pair
from mechdrift.engine.generate.choose import generator_for
from mechdrift.engine.generate.classified import ClassifierJudge
from mechdrift.engine.generate.generator import Generator
from mechdrift.engine.generate.judged import EndpointJudge
from mechdrift.engine.generate.reply_judge import ReplyJudge
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.files import write_whole
from mechdrift.findings.hand_set import HandSet
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.tiers import Tier
from mechdrift.models.devices import pick_device, pick_dtype
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.prompts.written_pairs import WrittenPair
from mechdrift.session.judge import Judge
from mechdrift.session.progress import progress_line
from mechdrift.session.state import STATE, State
from mechdrift.session.work import JUDGE, RECORDER

Beside = Callable[[str, bytes], None]


def _state(config: pytest.Config) -> State:
    return config.stash[STATE]


@pytest.fixture(scope="session")
def mechdrift_pair(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Pair:
    """Base and post, resolved and checked; in a run of several posts or of a chain, one pair after the other."""
    state = _state(pytestconfig)
    return state.inputs.pair(getattr(request, "param", state.request.betweens[0]))


@pytest.fixture(scope="session")
def mechdrift_statements(pytestconfig: pytest.Config) -> tuple[Statement, ...]:
    """The statements of the run: shipped, or the user's."""
    return _state(pytestconfig).inputs.prompts.statements


@pytest.fixture(scope="session")
def mechdrift_pairs(pytestconfig: pytest.Config) -> tuple[WrittenPair, ...]:
    """The user's pairs of prompts; none where the shipped tables' are asked."""
    return _state(pytestconfig).inputs.prompts.pairs


@pytest.fixture(scope="session")
def mechdrift_instructions(pytestconfig: pytest.Config) -> Instructions:
    """The harmful and harmless instructions of the run: shipped, or the user's."""
    return _state(pytestconfig).inputs.prompts.instructions


@pytest.fixture(scope="session")
def mechdrift_reply_classifier(pytestconfig: pytest.Config) -> ReplyClassifier | None:
    """The user's own classifier of refusals; None where there is none."""
    return _state(pytestconfig).inputs.reply_classifier


@pytest.fixture(scope="session")
def mechdrift_reply_judge(pytestconfig: pytest.Config, mechdrift_recordings: Recorder) -> ReplyJudge | None:
    """Who decides which replies refuse, that classifier or an endpoint; None where the shipped classifier tells."""
    inputs = _state(pytestconfig).inputs
    judge: ClassifierJudge | EndpointJudge | None = None
    if inputs.judge:
        judge = EndpointJudge(inputs.judge, mechdrift_recordings)
    elif inputs.reply_classifier:
        judge = ClassifierJudge(inputs.reply_classifier, mechdrift_recordings)
    if judge is not None:
        pytestconfig.stash[JUDGE] = judge
    return judge


@pytest.fixture(scope="session")
def mechdrift_texts(pytestconfig: pytest.Config) -> tuple[Text, ...]:
    """The texts of the run on which the next token is looked at: of the project's prompts, or the user's."""
    return _state(pytestconfig).inputs.prompts.texts.all


@pytest.fixture(scope="session")
def mechdrift_hand_set(pytestconfig: pytest.Config) -> HandSet:
    """Choices that the user made by hand."""
    return _state(pytestconfig).request.hand_set


@pytest.fixture(scope="session")
def mechdrift_tier(pytestconfig: pytest.Config) -> Tier:
    """How many items are used."""
    return _state(pytestconfig).request.tier_of_selected


@pytest.fixture(scope="session")
def mechdrift_both_post_trained(pytestconfig: pytest.Config) -> bool:
    """Whether the profile compares two models that were post-trained, of which the earlier has what post-training brings."""
    return _state(pytestconfig).profile.both_post_trained


@pytest.fixture(scope="session")
def mechdrift_recordings(pytestconfig: pytest.Config) -> Recorder:
    """Reads checkpoints, through the store, on the run's device."""
    state = _state(pytestconfig)
    device = pick_device(state.settings.device)
    pool = Pool(device, pick_dtype(state.settings.dtype, device), state.inputs.templates)
    store = Store(state.inputs.store_folder)
    recorder = Recorder(pool, store, state.settings.batch, lambda label: progress_line(pytestconfig, label))
    pytestconfig.stash[RECORDER] = recorder
    return recorder


@pytest.fixture(scope="session")
def mechdrift_generator(pytestconfig: pytest.Config, mechdrift_recordings: Recorder, mechdrift_pair: Pair) -> Generator:
    """Lets base and post reply to prompts, both through the same backend."""
    settings = _state(pytestconfig).settings
    return generator_for(mechdrift_recordings, settings.generator, settings.vllm_args, mechdrift_pair.points)


@pytest.fixture(scope="session")
def mechdrift_inputs(
    pytestconfig: pytest.Config,
    mechdrift_pair: Pair,
    mechdrift_recordings: Recorder,
    mechdrift_generator: Generator,
    mechdrift_reply_judge: ReplyJudge | None,
) -> Inputs:
    """All of that for one pair: what a family's readings are taken from."""
    state = _state(pytestconfig)
    return inputs_of(state, mechdrift_pair, mechdrift_recordings, mechdrift_generator, mechdrift_reply_judge)


@pytest.fixture(scope="session")
def mechdrift_beside(pytestconfig: pytest.Config, mechdrift_pair: Pair) -> Beside | None:
    """Writes a file beside the record, under its name with another suffix; None where the run has no record.

    Any two checkpoints but base and post have their names in the suffix.
    """
    record, between = _state(pytestconfig).settings.record, mechdrift_pair.between
    which = "" if between == BASE_TO_POST else f".{between.file}"
    return None if record is None else lambda suffix, data: write_whole(Path(record).with_suffix(which + suffix), data)


@pytest.fixture(scope="session")
def mechdrift_keeps_replies(pytestconfig: pytest.Config) -> bool:
    """Whether the user requested the text of replies."""
    return _state(pytestconfig).settings.keep_replies


@pytest.fixture
def mechdrift_drift(request: pytest.FixtureRequest, mechdrift_pair: Pair) -> Judge:
    """Gives the verdict of this test's finding."""
    return Judge(request, mechdrift_pair)


def inputs_of(
    state: State, pair: Pair, recordings: Recorder, generator: Generator, reply_judge: ReplyJudge | None = None
) -> Inputs:
    """What one pair of a run is measured on."""
    prompts, request, settings = state.inputs.prompts, state.request, state.settings
    return Inputs(
        pair,
        recordings,
        generator,
        request.tier_of_selected,
        prompts.statements,
        prompts.pairs,
        prompts.instructions,
        prompts.texts.all,
        request.hand_set,
        settings.seed,
        "base" if state.profile.both_post_trained else "post",
        settings.identity_shortcut,
        Budget(settings.reply_tokens, settings.thinking_tokens),
        reply_judge,
        settings.keep_replies,
    )
