"""Out of memory: readings that are compared are taken again at one smaller batch, and a model that is dropped is gone."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.errors import InputError, Unmeasurable, is_out_of_memory
from mechdrift.models.memory import BatchTooLarge

IDS = [[0, *range(2, 2 + length)] for length in (3, 4, 5, 6, 7, 8, 9, 11)]
PROMPTS = Prompts(IDS, [len(ids) - 1 for ids in IDS], [()] * len(IDS))


@pytest.fixture
def pair(tiny_checkpoint: Callable[..., Path]) -> list[Checkpoint]:
    return [resolve(str(tiny_checkpoint(seed=seed))) for seed in (0, 1)]


def recorder(folder: Path, batch_tokens: int = 96) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(folder), batch_tokens)


class Small(Pool):
    """A device on which forwards of more than so many tokens fail."""

    room: dict[str, int]
    seen: list[tuple[str, int]]
    checking = False
    """Checks are not what is tried here."""

    def _require_stream(self, checkpoint: Checkpoint, probes: Any) -> None:
        self.checking = True
        super()._require_stream(checkpoint, probes)
        self.checking = False

    def _loaded(self, checkpoint: Checkpoint, probes: Any) -> Any:
        model = super()._loaded(checkpoint, probes)

        def forward(_module: Any, arguments: Any) -> None:
            tokens = arguments[0].numel()
            if self.checking:
                return
            self.seen.append((checkpoint.spec, tokens))
            if tokens > self.room[checkpoint.spec]:
                self.failed = weakref.ref(model)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        model.get_input_embeddings().register_forward_pre_hook(forward)
        return model


def small(folder: Path, pair: list[Checkpoint], *room: int) -> tuple[Recorder, Small]:
    pool = Small("cpu", "float32")
    pool.room, pool.seen = dict(zip([point.spec for point in pair], room, strict=True)), []
    return Recorder(pool, Store(folder), 96), pool


def test_both_models_are_read_again_at_the_batch_that_fits_both(pair: list[Checkpoint], tmp_path: Path) -> None:
    """Base fits at 96 and is read there first; post fits at 24, so base is read at 24 too."""
    tested, pool = small(tmp_path / "a", pair, 10**6, 30)
    found = tested.at_one_batch(lambda: [tested.blocks(point, PROMPTS) for point in pair])
    assert tested.batch_tokens == 24
    expected = [recorder(tmp_path / "b", 24).blocks(point, PROMPTS) for point in pair]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert max(tokens for spec, tokens in pool.seen[-5:] if spec == pair[0].spec) <= 24
    assert [note.partition(": ")[2] for note in tested.warnings] == [
        "out of memory on a batch of 96 tokens: read again at 48, both models",
        "out of memory on a batch of 48 tokens: read again at 24, both models",
    ]
    assert tested.recorded_prompts == 4 * len(IDS), "base at 96, 48 and 24, post at 24"


def test_one_prompt_that_does_not_fit_is_named(pair: list[Checkpoint], tmp_path: Path) -> None:
    tested, _ = small(tmp_path, pair, 5, 5)
    with pytest.raises(BatchTooLarge, match="out of memory on one prompt of at most 12 tokens; expected memory for one"):
        tested.at_one_batch(lambda: tested.blocks(pair[0], PROMPTS))


def test_outside_of_such_a_reading_the_error_says_what_to_type(pair: list[Checkpoint], tmp_path: Path) -> None:
    tested, _ = small(tmp_path, pair, 30, 30)
    with pytest.raises(
        InputError, match="out of memory on a batch of 96 tokens; expected a batch that fits; use --mechdrift-batch 48"
    ):
        tested.blocks(pair[0], PROMPTS)


def test_other_errors_are_not_taken_for_it(pair: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = recorder(tmp_path)
    monkeypatch.setattr(
        "mechdrift.engine.stored_recordings.record_blocks", lambda *_: (_ for _ in ()).throw(RuntimeError("size"))
    )
    with pytest.raises(RuntimeError, match="size"):
        tested.at_one_batch(lambda: tested.blocks(pair[0], PROMPTS))


def test_what_a_cpu_really_raises_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def test_a_model_that_does_not_fit_is_named(pair: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        torch.empty(10**15)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(InputError, match=r"weights in float32 do not fit on cpu; .*; use --mechdrift-dtype bfloat16, or"):
        recorder(tmp_path).blocks(pair[0], PROMPTS)


def test_one_model_at_a_time_and_what_is_dropped_is_gone(pair: list[Checkpoint]) -> None:
    pool = Pool("cpu", "float32")
    first = weakref.ref(pool.model(pair[0], IDS[:2]))
    assert first() is not None
    second = weakref.ref(pool.model(pair[1], IDS[:2]))
    assert first() is None
    pool.free()
    assert second() is None
    assert pool.loads == 2


def test_a_model_whose_reading_failed_is_gone_though_the_error_is_kept(pair: list[Checkpoint], tmp_path: Path) -> None:
    """As pytest keeps it, with the frames of its traceback, when a fixture raises."""
    tested, pool = small(tmp_path, pair, 30, 30)
    with pytest.raises(BatchTooLarge) as caught:
        tested.blocks(pair[0], PROMPTS)
    failed = pool.failed
    pool.free()
    assert failed() is None
    assert caught.value


def test_a_model_that_fails_its_self_check_is_gone_though_the_error_is_kept(
    pair: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []

    def check(model: Any, _probes: Any) -> None:
        models.append(weakref.ref(model))
        raise Unmeasurable("self-check: no")

    monkeypatch.setattr("mechdrift.engine.pool.check_logits", check)
    with pytest.raises(Unmeasurable) as caught:
        Pool("cpu", "float32").model(pair[0], IDS[:2])
    gc.collect()
    assert models[0]() is None
    assert caught.value
