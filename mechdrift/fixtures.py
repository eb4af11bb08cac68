"""What suites are given. Everything is session-scoped and lazy: a fixture that no test asks for costs nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mechdrift.chains import BASE_TO_POST, Between
from mechdrift.engine.work import NOTHING
from mechdrift.files import write_whole
from mechdrift.report import terminal, text

if TYPE_CHECKING:
    from mechdrift.checkpoints.classifier import ReplyClassifier
    from mechdrift.checkpoints.resolve import Checkpoint
    from mechdrift.engine.batches import Progress
    from mechdrift.engine.generate.arms import Generator
    from mechdrift.engine.stored_recordings import Recorder
    from mechdrift.engine.work import Work
    from mechdrift.hand_set import HandSet
    from mechdrift.measures.drift import Drift
    from mechdrift.prompts.instructions import Instructions
    from mechdrift.prompts.statements import Statement
    from mechdrift.prompts.texts import Text
    from mechdrift.prompts.written_pairs import WrittenPair
    from mechdrift.run import ComparingRun
    from mechdrift.tiers import Tier

Beside = Callable[[str, bytes], None]
RECORDER = pytest.StashKey["Recorder"]()


@dataclass(frozen=True)
class Pair:
    """The two checkpoints that a test looks at."""

    base: "Checkpoint"
    """Before post-training, or before a step of it."""
    post: "Checkpoint"
    """After it."""
    between: Between = field(default=BASE_TO_POST, kw_only=True)
    """Which two of the run these are."""

    @property
    def points(self) -> "tuple[Checkpoint, Checkpoint]":
        """Both."""
        return self.base, self.post

    @property
    def identical(self) -> bool:
        """Whether both have the same content."""
        return self.base.digests == self.post.digests


def _run(config: pytest.Config) -> "ComparingRun":
    from mechdrift.run import RUN

    return config.stash[RUN]


@pytest.fixture(scope="session")
def mechdrift_pair(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Pair:
    """Base and post, resolved and checked; in a run of several posts or of a chain, one pair after the other."""
    run = _run(pytestconfig)
    return run.pair(getattr(request, "param", run.betweens[0]))


@pytest.fixture(scope="session")
def mechdrift_statements(pytestconfig: pytest.Config) -> "tuple[Statement, ...]":
    """The statements of the run: shipped, or the user's."""
    return _run(pytestconfig).statements


@pytest.fixture(scope="session")
def mechdrift_pairs(pytestconfig: pytest.Config) -> "tuple[WrittenPair, ...]":
    """The user's pairs of prompts; none where the shipped tables' are asked."""
    return _run(pytestconfig).pairs


@pytest.fixture(scope="session")
def mechdrift_instructions(pytestconfig: pytest.Config) -> "Instructions":
    """The harmful and harmless instructions of the run: shipped, or the user's."""
    instructions = _run(pytestconfig).instructions
    assert instructions
    return instructions


@pytest.fixture(scope="session")
def mechdrift_reply_classifier(pytestconfig: pytest.Config) -> "ReplyClassifier | None":
    """The user's own judge of refusals; None where the phrase that a reply opens with tells."""
    return _run(pytestconfig).reply_classifier


@pytest.fixture(scope="session")
def mechdrift_texts(pytestconfig: pytest.Config) -> "tuple[Text, ...]":
    """The texts of the run on which the next token is looked at: of the project's prompts, or the user's."""
    texts = _run(pytestconfig).texts
    assert texts
    return texts.all


@pytest.fixture(scope="session")
def mechdrift_hand_set(pytestconfig: pytest.Config) -> "HandSet":
    """Choices that the user made by hand."""
    return _run(pytestconfig).hand_set


@pytest.fixture(scope="session")
def mechdrift_tier(pytestconfig: pytest.Config) -> "Tier":
    """How many items are used."""
    return _run(pytestconfig).asking


@pytest.fixture(scope="session")
def mechdrift_both_post_trained(pytestconfig: pytest.Config) -> bool:
    """Whether the profile compares two models that were post-trained, of which the earlier has what post-training brings."""
    return _run(pytestconfig).profile.both_post_trained


@pytest.fixture(scope="session")
def mechdrift_recordings(pytestconfig: pytest.Config) -> "Recorder":
    """Reads checkpoints, through the store, on the run's device."""
    from mechdrift.engine.pool import Pool, pick_device, pick_dtype
    from mechdrift.engine.store import Store
    from mechdrift.engine.stored_recordings import Recorder

    run = _run(pytestconfig)
    assert run.store_folder
    device = pick_device(run.settings.device)
    pool = Pool(device, pick_dtype(run.settings.dtype, device))
    recorder = Recorder(pool, Store(run.store_folder), run.settings.batch, lambda label: progress_line(pytestconfig, label))
    pytestconfig.stash[RECORDER] = recorder
    return recorder


@pytest.fixture(scope="session")
def mechdrift_generator(pytestconfig: pytest.Config, mechdrift_recordings: "Recorder", mechdrift_pair: Pair) -> "Generator":
    """Lets base and post reply to prompts, both through the same backend."""
    from mechdrift.engine.generate.choose import generator_for

    settings = _run(pytestconfig).settings
    return generator_for(mechdrift_recordings, settings.generator, settings.vllm_args, mechdrift_pair.points)


@pytest.fixture(scope="session")
def mechdrift_beside(pytestconfig: pytest.Config, mechdrift_pair: Pair) -> Beside | None:
    """Writes a file beside the record, under its name with another suffix; None where the run has no record.

    Any two checkpoints but base and post have their names in the suffix.
    """
    record, between = _run(pytestconfig).settings.record, mechdrift_pair.between
    which = "" if between == BASE_TO_POST else f".{between.file}"
    return None if record is None else lambda suffix, data: write_whole(Path(record).with_suffix(which + suffix), data)


@pytest.fixture(scope="session")
def mechdrift_keeps_replies(pytestconfig: pytest.Config) -> bool:
    """Whether the user requested the text of replies."""
    return _run(pytestconfig).settings.keep_replies


@pytest.fixture
def mechdrift_drift(request: pytest.FixtureRequest, mechdrift_pair: Pair) -> "Judge":
    """Gives the verdict of this test's finding."""
    return Judge(request, mechdrift_pair)


class Judge:
    """Turns a Drift into a row and fails the test when the row is a gate that did not hold."""

    def __init__(self, request: pytest.FixtureRequest, pair: Pair) -> None:
        """Judge for one test, of one pair."""
        self._request = request
        self._pair = pair

    def judge(self, drift: "Drift") -> None:
        """Judge by the run's profile; pytest.fail with the row in words where it makes the run fail.

        A gate that is worse than its baseline fails too. One that does not hold and yet lets the run pass, by a waiver or by
        --mechdrift-fail-on, is an expected failure.
        """
        from mechdrift.marks import requested_by
        from mechdrift.rows import judged_row
        from mechdrift.run import ROW
        from mechdrift.verdict.failing import fails, holds

        run = _run(self._request.config)
        requested = requested_by(self._request.node, run.profile)
        if requested is None or requested.finding.name != drift.measure:
            raise ValueError(f"the test is not marked finding({drift.measure!r}), which it judges")
        if self._pair.identical and run.settings.identity_shortcut:
            drift = drift.of_identical()
        row = run.against_baseline(requested, judged_row(requested, drift, run.profile))
        self._request.node.stash[ROW] = row
        if fails(row, run.settings.fail_on):
            pytest.fail(text.failure(row, run.again(requested)), pytrace=False)
        if row.role == "gate" and not holds(row):
            pytest.xfail(text.let_pass(row))


def work_done(config: pytest.Config) -> dict[str, int]:
    """What this process did: models loaded, prompts recorded, cache hits and misses."""
    recorder = config.stash.get(RECORDER, None)
    if recorder is None:
        return {"model_loads": 0, "recorded_prompts": 0, "cache_hits": 0, "cache_misses": 0}
    return {
        "model_loads": recorder.pool.loads,
        "recorded_prompts": recorder.recorded_prompts,
        "cache_hits": recorder.store.hits,
        "cache_misses": recorder.store.misses,
    }


def work_so_far(config: pytest.Config) -> "tuple[int, Work]":
    """Models loaded, and work done, by this process."""
    recorder = config.stash.get(RECORDER, None)
    return (recorder.pool.loads, recorder.store.work) if recorder else (0, NOTHING)


def warnings_given(config: pytest.Config) -> list[str]:
    """What a reader of the numbers should know of how this process took them, and what went wrong with the store."""
    recorder = config.stash.get(RECORDER, None)
    return [*recorder.warnings, *recorder.store.warnings] if recorder else []


def progress_line(config: pytest.Config, label: str) -> "Progress":
    """One line on work that takes longer than two seconds; silent in workers and where there is no terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")

    def write(line: str) -> None:
        if reporter is not None and capture is not None and reporter.isatty:
            with capture.global_and_fixture_disabled():
                reporter.write(line, flush=True)

    return terminal.progress_line(label, write)
