"""What readings are said to take, against tokens counted in the model itself."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine import stored_recordings
from mechdrift.engine.generate.arms import Ablated, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.generate.scored import work_of
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Prompts, Recorder, Steering
from mechdrift.engine.stored_sweep import block_runs
from mechdrift.engine.sweep import Pairs, sweep
from mechdrift.engine.work import NOTHING, Work
from mechdrift.models.sites import blocks

LENGTH, COUNT = 7, 5  # of one length, as padding is not counted
IDS = [[0, *(2 + (3 * row + column) % 200 for column in range(LENGTH - 1))] for row in range(COUNT)]
PROMPTS = Prompts(IDS, [LENGTH - 1] * COUNT, [(5, 6)] * COUNT)

SHARED = 21
BEGUN_ALIKE = Prompts([[0, *range(2, 1 + SHARED), *ids[1:]] for ids in IDS], [SHARED + LENGTH - 2] * COUNT, [(5, 6)] * COUNT)


class Read:
    """A recorder with its model loaded, so that the checks of loading are over."""

    def __init__(self, folder: Path, point: Any) -> None:
        self.recorder = Recorder(Pool("cpu", "float32"), Store(folder), 4096)
        self.point = point
        self.model = self.recorder.pool.model(point, IDS)

    @contextmanager
    def seen(self) -> Iterator[list[int]]:
        """How many tokens go through the first block inside."""
        counts: list[int] = []
        handle = blocks(self.model)[0].register_forward_pre_hook(lambda _, args: counts.append(args[0][..., 0].numel()))
        try:
            yield counts
        finally:
            handle.remove()


@pytest.fixture
def read(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Read:
    return Read(tmp_path, resolve(str(tiny_checkpoint())))


def test_a_reading_is_its_tokens_and_nothing_the_second_time(read: Read) -> None:
    with read.seen() as counts:
        read.recorder.blocks(read.point, PROMPTS)
        read.recorder.logits(read.point, PROMPTS)
    work = read.recorder.store.work
    assert (work.prompts, work.tokens) == (2 * COUNT, sum(counts)) == (10, 2 * COUNT * LENGTH)
    kept = COUNT * read.point.layers * read.point.width + COUNT * 3
    assert work.bytes == 4 * kept
    read.recorder.logits(read.point, PROMPTS)
    assert read.recorder.store.work == work


def test_arms_of_a_first_token_are_counted_each(read: Read) -> None:
    direction = np.eye(1, read.point.width, dtype=np.float32)[0]
    arms = [Arm("plain"), Arm("one", Ablated(direction)), Arm("two", Ablated(-direction))]
    with read.seen() as counts:
        first_token_under(read.recorder, read.point, IDS, [5], arms)
    assert read.recorder.store.work.tokens == sum(counts) == 3 * COUNT * LENGTH


def test_moves_share_the_tokens_before_them(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_recordings, "check_adding", lambda *_: None)
    monkeypatch.setattr(stored_recordings, "prefix_gap", lambda *_: 0.0)
    move = Steering((0,), np.ones((COUNT, read.point.width), dtype=np.float32), [[LENGTH - 3]] * COUNT)
    with read.seen() as counts:
        read.recorder.steered_logits(read.point, PROMPTS, [move, move])
    assert read.recorder.store.work.tokens == sum(counts) == COUNT * (LENGTH - 3 + 2 * 3)


def test_a_shared_beginning_is_counted_once(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_recordings, "sharing_gap", lambda *_: 0.0)
    with read.seen() as counts:
        read.recorder.blocks(read.point, BEGUN_ALIKE)
    assert read.recorder.store.work.tokens == sum(counts) == SHARED + COUNT * (LENGTH - 1)


@pytest.mark.parametrize(("gap", "tolerated"), [(1.0, True), (math.nextafter(1.0, 2.0), False)])
def test_a_gap_is_tolerated_up_to_the_tolerance(read: Read, monkeypatch: pytest.MonkeyPatch, gap: float, tolerated: bool) -> None:
    monkeypatch.setattr("mechdrift.engine.selfcheck.tolerance_of", lambda _model: 1.0)
    for name, value in (("check_adding", None), ("sharing_gap", gap), ("prefix_gap", gap)):
        monkeypatch.setattr(stored_recordings, name, lambda *_, value=value: value)
    assert read.recorder.may_share(read.point, read.model, BEGUN_ALIKE) is tolerated
    assert len(read.recorder.warnings) == (not tolerated)
    move = Steering((0,), np.ones((COUNT, read.point.width), dtype=np.float32), [[LENGTH - 3]] * COUNT)
    read.recorder.steered_logits(read.point, PROMPTS, [move])
    assert len(read.recorder.warnings) == 2 * (not tolerated)


@pytest.mark.parametrize("own", [True, False])
def test_a_sweep_is_counted_by_its_blocks(read: Read, own: bool) -> None:
    """The sweep itself counts how often it runs a block on a token."""
    clean = [[*ids[: 2 + row % 3], 201, *ids[3 + row % 3 :]] for row, ids in enumerate(IDS)]
    pairs = Pairs(IDS, clean, [(5, 6)] * COUNT, [2] * COUNT)
    source = None if own else read.recorder.columns(read.point, clean, [2] * COUNT)
    import torch

    found = sweep(read.model, pairs, source=None if source is None else torch.from_numpy(source))
    assert found.tokens == block_runs(pairs, read.point.layers, own)


def test_replies_take_their_prompts_and_at_most_their_tokens(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no token that ends one, all are as long as they may be; the last token is not run."""
    monkeypatch.setattr("mechdrift.engine.generate.batched.end_tokens", lambda _: [read.model.config.vocab_size - 1])
    with read.seen() as counts:
        TransformersGenerator(read.recorder).replies(read.point, IDS, [Arm("plain")], 4)
    work = work_of(IDS, Arm("plain"), [False] * COUNT, Budget(4), read.recorder)
    assert (work.replies, work.reply_tokens, work.reply_steps) == (COUNT, 4 * COUNT, 4)
    assert work.tokens + work.reply_tokens == sum(counts) + COUNT
    assert len(counts) == work.reply_steps


def test_amounts_add_up_and_come_apart() -> None:
    one, two = Work(prompts=2, tokens=3, bytes=5), Work(tokens=7, replies=1)
    assert one + two == Work(prompts=2, tokens=10, replies=1, bytes=5)
    assert one + two - one == two
    assert one + NOTHING == one
