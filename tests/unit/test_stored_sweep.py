"""Sweeps through the store: in blocks, resumed, across models, and what is done where something does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine import stored_sweep
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_columns
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.engine.stored_sweep import blocks_of, record_clean, sweep_through
from mechdrift.engine.sweep import BUDGET_PER_TOKEN, Pairs, Sweep, sweep
from mechdrift.engine.sweep_naive import sweep_naive
from mechdrift.errors import InputError, Unmeasurable

NUMBER, BLOCK = 10, 3


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Of several lengths and widths."""
    draw = np.random.default_rng(0)
    corrupt = [[0, *draw.integers(2, 258, size=size).tolist()] for size in draw.integers(4, 10, size=NUMBER)]
    first = [int(draw.integers(1, len(prompt))) for prompt in corrupt]
    clean = [
        prompt[:start] + draw.integers(2, 258, size=len(prompt) - start).tolist()
        for prompt, start in zip(corrupt, first, strict=True)
    ]
    return Pairs(corrupt, clean, [(3, 4 + number) for number in range(NUMBER)], first)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_sweep, "BLOCK_PAIRS", BLOCK)


@pytest.fixture
def points(tiny_checkpoint: Callable[..., Path]) -> list[Checkpoint]:
    return [resolve(str(tiny_checkpoint(seed=seed))) for seed in (0, 1)]


def recorder(folder: Path, progress: Any = lambda _: None) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(folder), 96, progress)


def assert_same(found: Sweep, expected: Sweep) -> None:
    for name in ("patched", "clean", "corrupt"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5, equal_nan=True)


def test_blocks_hold_every_pair_once_and_stay_within_their_bytes(
    points: list[Checkpoint], pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes() -> list[int]:
        blocks = blocks_of(points[0], pairs)
        assert sorted(index for block in blocks for index in block) == list(range(NUMBER))
        return [len(block) for block in blocks]

    assert max(sizes()) == BLOCK
    one = 4 * points[0].layers * pairs.widest * points[0].width
    monkeypatch.setattr(stored_sweep, "BLOCK_BYTES", 2 * one + 1)
    assert max(sizes()) == 2
    monkeypatch.setattr(stored_sweep, "BLOCK_BYTES", 1)  # one pair is the least
    assert max(sizes()) == 1


def test_own_and_across_are_those_of_the_engine_and_read_a_second_time(
    points: list[Checkpoint], pairs: Pairs, tmp_path: Path
) -> None:
    requested = recorder(tmp_path)
    clean = record_clean(requested, points[0], pairs)
    found = [sweep_through(requested, points[1], pairs), sweep_through(requested, points[1], pairs, clean)]
    assert requested.pool.loads == 2
    base = requested.pool.model(points[0], [pairs.corrupt[0]])
    source = record_columns(base, pairs.clean, pairs.first)
    post = requested.pool.model(points[1], [pairs.corrupt[0]])
    expected = [sweep(post, pairs), sweep(post, pairs, source=source)]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert not torch.allclose(found[0].patched, found[1].patched, equal_nan=True)
    again = recorder(tmp_path)
    clean = record_clean(again, points[0], pairs)
    assert torch.equal(sweep_through(again, points[1], pairs, clean).patched.nan_to_num(), found[1].patched.nan_to_num())
    assert again.pool.loads == 0


def test_a_cut_sweep_resumes_after_its_last_block(points: list[Checkpoint], pairs: Pairs, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == NUMBER
        if done > BLOCK:
            raise Cut

    whole = recorder(tmp_path / "whole")
    expected = sweep_through(whole, points[0], pairs)
    with pytest.raises(Cut):
        sweep_through(recorder(tmp_path / "cut", lambda _: stop), points[0], pairs)
    second = recorder(tmp_path / "cut")
    found = sweep_through(second, points[0], pairs)
    assert second.recorded_prompts == NUMBER - BLOCK
    assert torch.equal(found.patched.nan_to_num(), expected.patched.nan_to_num())


def test_where_nothing_can_be_kept_activations_stay_in_memory(points: list[Checkpoint], pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    kept, lost = recorder(tmp_path / "store"), recorder(tmp_path / "file")
    found = []
    for requested in (kept, lost):
        found.append(sweep_through(requested, points[1], pairs, record_clean(requested, points[0], pairs)))
    assert lost.store.read_only
    assert lost.pool.loads == 2  # each model once: base is not loaded again while post is swept
    assert torch.equal(found[0].patched.nan_to_num(), found[1].patched.nan_to_num())


def test_a_model_that_the_fast_way_does_not_fit_is_run_whole_and_said(
    points: list[Checkpoint], pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_sweep, "check_sweep", lambda *_: float("inf"))
    monkeypatch.setattr(stored_sweep, "sweep", lambda *_: pytest.fail("the fast way was used"))
    requested = recorder(tmp_path)
    found = sweep_through(requested, points[0], pairs)
    assert [text for text in requested.warnings if "patched by whole forwards" in text]
    assert_same(found, sweep_naive(requested.pool.model(points[0], [pairs.corrupt[0]]), pairs))


def test_out_of_memory_halves_a_pass(
    points: list[Checkpoint], pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []

    def tight(model: Any, *result: Any) -> Sweep:
        budgets.append(result[1])
        if result[1] > 24 * BUDGET_PER_TOKEN["cpu"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return sweep(model, *result)

    monkeypatch.setattr(stored_sweep, "sweep", tight)
    requested = recorder(tmp_path)
    found = requested.at_one_batch(lambda: [sweep_through(requested, point, pairs) for point in points])
    assert requested.batch_tokens == 24
    assert budgets[:3] == [tokens * BUDGET_PER_TOKEN["cpu"] for tokens in (96, 48, 24)]
    assert_same(found[1], sweep(requested.pool.model(points[1], [pairs.corrupt[0]]), pairs))


def test_a_patched_logit_that_is_no_number_is_a_reason(
    points: list[Checkpoint], pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*result: Any) -> Sweep:
        found = sweep(*result)
        found.patched[0, 1, 0] = torch.nan
        return found

    monkeypatch.setattr(stored_sweep, "sweep", broken)
    with pytest.raises(Unmeasurable, match="sweep are not finite on"):
        sweep_through(recorder(tmp_path), points[0], pairs)


def test_other_widths_and_unknown_tokens_are_named(
    points: list[Checkpoint], pairs: Pairs, tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    requested = recorder(tmp_path)
    wide = resolve(str(tiny_checkpoint(hidden_size=64)))
    with pytest.raises(Unmeasurable, match=r"layers x width differ: .* 3 x 64, .* 3 x 32"):
        sweep_through(requested, points[0], pairs, record_clean(requested, wide, pairs))
    clean = [[*prompt[:-1], 300] for prompt in pairs.clean]
    with pytest.raises((InputError, Unmeasurable), match="300"):
        sweep_through(requested, points[0], Pairs(pairs.corrupt, clean, pairs.answers, pairs.first))
