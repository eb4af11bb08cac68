"""Recordings in parts: the same to the bit as in one go, whenever a run was cut."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.batches import batches_by_length
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_blocks, record_logits
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import PART_BATCHES, Prompts, Recorder, Steering, parts_of, require_same_tokens
from mechdrift.errors import Unmeasurable

BATCH_TOKENS = 24
NUMBER = 40


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 80))
def test_a_part_by_itself_falls_into_the_batches_of_the_whole(lengths: list[int], batch_tokens: int) -> None:
    again = []
    for part in parts_of(Prompts([[n] * size for n, size in enumerate(lengths)], [0] * len(lengths), []), batch_tokens):
        batches = batches_by_length([lengths[index] for index in part], batch_tokens)
        assert len(batches) <= PART_BATCHES
        again += [[part[place] for place in batch] for batch in batches]
    assert again == batches_by_length(lengths, batch_tokens)


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    draw = np.random.default_rng(0)
    ids = [[0, *draw.integers(2, 258, size=size).tolist()] for size in draw.integers(2, 12, size=NUMBER)]
    return Prompts(ids, [len(row) - 2 for row in ids], [(3, 4 + n) for n in range(NUMBER)])


@pytest.fixture(scope="module")
def few_shot() -> Prompts:
    """Three beginnings of other lengths, with many ends each."""
    draw = np.random.default_rng(2)
    starts = [[0, *draw.integers(2, 258, size=size).tolist()] for size in (16, 18, 21)]
    ids = [starts[n % 3] + draw.integers(2, 258, size=size).tolist() for n, size in enumerate(draw.integers(2, 6, size=NUMBER))]
    return Prompts(ids, [len(row) - 1 for row in ids], [(3, 4 + n) for n in range(NUMBER)])


@pytest.fixture(scope="module")
def steerings(prompts: Prompts) -> list[Steering]:
    shifts = np.random.default_rng(1).normal(size=(2, NUMBER, 32)).astype(np.float32)
    return [Steering((0, 1), shift, [[place] for place in prompts.positions]) for shift in shifts]


class Cut(Exception):
    """What stops a run."""


def recorder(folder: Path, cut_after: int | None = None) -> Recorder:
    def stop(done: int, total: int) -> None:
        assert total == NUMBER
        if cut_after is not None and done >= cut_after:
            raise Cut

    return Recorder(Pool("cpu", "float32"), Store(folder), BATCH_TOKENS, lambda _: stop)


QUESTIONS: dict[str, Callable[[Recorder, Checkpoint, Prompts, list[Steering]], np.ndarray]] = {
    "blocks": lambda requested, point, prompts, _: requested.blocks(point, prompts),
    "logits": lambda requested, point, prompts, _: requested.logits(point, prompts),
    "steered": lambda requested, point, prompts, steerings: requested.steered_logits(point, prompts, steerings),
}


@pytest.mark.parametrize(
    ("what", "requested"), [*((what, "prompts") for what in sorted(QUESTIONS)), ("blocks", "few_shot"), ("logits", "few_shot")]
)
@pytest.mark.parametrize(
    "cut_after", [pytest.param(1, marks=pytest.mark.nightly), NUMBER // 2, pytest.param(NUMBER, marks=pytest.mark.nightly)]
)
def test_a_cut_run_resumes_and_says_the_same_to_the_bit(
    tmp_path: Path,
    tiny_checkpoint: Callable[..., Path],
    request: pytest.FixtureRequest,
    steerings: list[Steering],
    what: str,
    requested: str,
    cut_after: int,
) -> None:
    prompts: Prompts = request.getfixturevalue(requested)
    point = resolve(str(tiny_checkpoint()))
    whole = recorder(tmp_path / "whole")
    expected = QUESTIONS[what](whole, point, prompts, steerings)
    assert whole.recorded_prompts == NUMBER
    first = recorder(tmp_path / "cut", cut_after)
    with pytest.raises(Cut):
        QUESTIONS[what](first, point, prompts, steerings)
    second = recorder(tmp_path / "cut")
    assert QUESTIONS[what](second, point, prompts, steerings).tobytes() == expected.tobytes()
    assert second.recorded_prompts == NUMBER - whole_parts_before(prompts, cut_after)


def whole_parts_before(prompts: Prompts, cut_after: int) -> int:
    """Prompts of the parts that were kept when the run was cut."""
    kept = 0
    for part in parts_of(prompts, BATCH_TOKENS):
        if kept + len(part) >= cut_after:
            break
        kept += len(part)
    return kept


def test_parts_equal_one_recording_without_a_store(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], prompts: Prompts
) -> None:
    point = resolve(str(tiny_checkpoint()))
    requested = recorder(tmp_path)
    probes: Any = [prompts.ids[0], prompts.ids[1]]
    model = requested.pool.model(point, probes)
    assert len(parts_of(prompts, BATCH_TOKENS)) > 2
    blocks = record_blocks(model, prompts.ids, prompts.positions, BATCH_TOKENS)
    logits = record_logits(model, prompts.ids, prompts.answers, BATCH_TOKENS)
    assert torch.equal(torch.tensor(requested.blocks(point, prompts)), blocks)
    assert torch.equal(torch.tensor(requested.logits(point, prompts)), logits)


ALIKE = Prompts([[0, 5, 6], [0, 7, 8, 9], [0, 5]], [1, 2, 1], [(3, 4), (3, 5), (3, 4)])


@pytest.mark.parametrize(
    ("ids", "positions", "answers"),
    [
        ([[0, 5, 6], [0, 7, 8, 1], [0, 5]], ALIKE.positions, ALIKE.answers),
        ([[0, 5, 6], [0, 7, 8], [0, 5]], ALIKE.positions, ALIKE.answers),
        ([[0, 5, 6], [7, 8, 9], [0, 5]], ALIKE.positions, ALIKE.answers),
        ([*ALIKE.ids[:2], [0, 6]], ALIKE.positions, ALIKE.answers),
        (ALIKE.ids, [1, 1, 1], ALIKE.answers),
        (ALIKE.ids, [1, 2, 0], ALIKE.answers),
        (ALIKE.ids, ALIKE.positions, [(3, 4), (5, 3), (3, 4)]),
        (ALIKE.ids, ALIKE.positions, [(3, 4), (3, 5), (3, 5)]),
        (ALIKE.ids, ALIKE.positions, [(3, 4), (3,), (3, 4)]),
    ],
)
def test_a_prompt_an_answer_or_a_place_that_is_read_otherwise_is_not_compared(
    ids: list[list[int]], positions: list[int], answers: list[tuple[int, ...]]
) -> None:
    """One difference in one prompt is enough, whichever model has it."""
    require_same_tokens(ALIKE, deepcopy(ALIKE))
    other = Prompts(ids, positions, answers)
    for pair in ((ALIKE, other), (other, ALIKE)):
        with pytest.raises(Unmeasurable):
            require_same_tokens(*pair)


def test_answers_part_at_their_first_token_that_differs(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    """The tokenizer's tokens are bytes: `yes` and `yet` part at their third, and of `no` and `now` one goes on."""
    point, reads = resolve(str(tiny_checkpoint())), recorder(tmp_path)
    found = reads.answer_prompts(point, ["Is it?"], (" yes", " yet, maybe"))
    tokenizer = reads.pool.tokenizer(point)
    assert found.ids == [tokenizer("Is it? ye")["input_ids"]]
    assert found.answers == [tuple(tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "st")]
    for answers in ((" no", " now"), (" now", " no")):
        with pytest.raises(Unmeasurable, match=f"its tokenizer does not tell '{answers[0]}' from '{answers[1]}'"):
            reads.answer_prompts(point, ["Is it?"], answers)
