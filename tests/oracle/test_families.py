"""Every family's self-check: it passes in every precision, and it catches sites that are wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VARIANTS, tiny_model, wrong_writes

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine import recording, routing, selfcheck
from mechdrift.engine.batches import Forward, batches_by_length
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_blocks, record_under_whole
from mechdrift.engine.selfcheck import prefix_gap, self_check, sharing_gap, tolerance_of
from mechdrift.engine.steer import adding
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Prompts, Recorder, Steering
from mechdrift.errors import Unmeasurable
from mechdrift.models.families import FAMILIES, Family
from mechdrift.models.sites import blocks, final_norm

PROMPTS = [[0, 5, 9, 200, 31], [0, 7], [0, 100, 101, 102, 103, 104, 105, 106], [0, 44, 45]]
ANSWERS: list[tuple[int, ...]] = [(3, 4)] * len(PROMPTS)
LATE = [3, 1, 5, 1]  # the first token of each prompt that is not shared
FEW_SHOT = [[*range(2, 2 + shared), *end] for shared in (16, 19) for end in ([100, 7], [101])]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def plain(_model: Any, _batch: Sequence[int], _before: Sequence[int]) -> AbstractContextManager[None]:
    """No intervention."""
    return nullcontext()


def planted(monkeypatch: pytest.MonkeyPatch, model: Any, **wrong: Any) -> Family:
    """The family's row of the table with something wrong in it, before anything is known of the model; what it was."""
    right = FAMILIES[model.config.model_type]
    monkeypatch.setitem(FAMILIES, model.config.model_type, replace(right, **wrong))
    return right


def listed_blocks(model: Any) -> Any:
    """By the table, and not remembered."""
    return getattr(model.get_decoder(), FAMILIES[model.config.model_type].blocks)


@pytest.mark.parametrize("dtype", DTYPES)
def test_self_check_passes_and_so_does_the_shared_prefix(model: Any, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    self_check(model, PROMPTS)
    if not FAMILIES[model.config.model_type].experts:  # rounding may choose other experts: then prompts are run whole
        assert prefix_gap(model, PROMPTS, ANSWERS, [plain], LATE) <= tolerance_of(model)
        assert sharing_gap(model, FEW_SHOT) <= tolerance_of(model)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_place_to_look_at_is_caught(monkeypatch: pytest.MonkeyPatch, model: Any, which: int, dtype: torch.dtype) -> None:
    planted(monkeypatch, model, writes=wrong_writes(model.config.model_type, which))
    with pytest.raises(Unmeasurable, match=r"block 0 is not its input plus what .* write"):
        self_check(model.to(dtype), PROMPTS)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([1, 2, 0], "what enters block 0 is not what transformers has there"),
        ([0, 2, 1], "what enters block 1 is not what transformers has there"),
        ([1, 2], "2 blocks found where transformers has 3"),
    ],
)
def test_blocks_off_by_one_are_caught(monkeypatch: pytest.MonkeyPatch, model: Any, order: list[int], message: str) -> None:
    model.get_decoder().mistaken = [listed_blocks(model)[layer] for layer in order]
    planted(monkeypatch, model, blocks="mistaken")
    with pytest.raises(Unmeasurable, match=message):
        self_check(model, PROMPTS)


def test_another_norm_than_the_final_one_is_caught(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    norm = getattr(model.get_decoder(), FAMILIES[model.config.model_type].norm)
    model.get_decoder().mistaken = next(part for part in listed_blocks(model)[2].modules() if type(part) is type(norm))
    planted(monkeypatch, model, norm="mistaken")
    with pytest.raises(Unmeasurable, match="the final norm is not where block 2 ends"):
        self_check(model, PROMPTS)


def test_the_wrong_padding_side_is_caught(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    """Padded on the left, with positions that count from the right side's start."""

    def left(_model: Any, prompts: list[list[int]], _first: Any, batch_tokens: int, *_more: Any) -> Iterator[Any]:
        with torch.inference_mode():
            for batch in batches_by_length([len(prompt) for prompt in prompts], batch_tokens):
                width = max(len(prompts[index]) for index in batch)
                gaps = [width - len(prompts[index]) for index in batch]
                ids = torch.tensor([[0] * gap + prompts[index] for gap, index in zip(gaps, batch, strict=True)])
                mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
                yield Forward(batch, [0] * len(batch), {"input_ids": ids, "attention_mask": mask, "use_cache": False})

    monkeypatch.setattr(recording, "forwards", left)
    with pytest.raises(Unmeasurable, match="block 0 differs between a padded batch and one prompt"):
        self_check(model, PROMPTS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prefix_that_is_not_what_the_model_read_is_caught(model: Any, dtype: torch.dtype) -> None:
    """Keys and values that are lost between prefix and the rest."""

    def forget(_module: Any, _args: Any, result: dict[str, Any]) -> None:
        for layer in getattr(result.get("past_key_values"), "layers", []):
            layer.keys.zero_()
            layer.values.zero_()

    model.to(dtype).get_decoder().register_forward_pre_hook(forget, with_kwargs=True)
    assert prefix_gap(model, PROMPTS, ANSWERS, [plain], LATE) > tolerance_of(model)
    assert sharing_gap(model, FEW_SHOT) > tolerance_of(model)


def test_positions_that_count_the_padding_are_caught_where_they_are_learned() -> None:
    """Rotary families see distances only, to which padding on the left is nothing; gpt2 sees the place itself."""

    def uncount(_module: Any, args: Any, result: dict[str, Any]) -> Any:
        return args, result | {"position_ids": None}

    for family, harmless in (("llama", True), ("gpt2", False)):
        model = tiny_model(family)
        model.get_decoder().register_forward_pre_hook(uncount, with_kwargs=True)
        assert (prefix_gap(model, PROMPTS, ANSWERS, [plain], LATE) <= tolerance_of(model)) is harmless


def test_rounding_that_chooses_other_experts_is_not_taken_for_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experts are weighted almost alike, so in bfloat16 rounding decides which of them a token gets."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, 258, (length,), generator=generator).tolist() for length in range(10, 40, 2)]
    models = [tiny_model("mixtral", seed).to(torch.bfloat16) for seed in range(3)]
    for model in models:
        for block in blocks(model):
            requested = block.mlp.gate.weight.data
            requested[1] = requested[0] * (1 + torch.randn(32, generator=generator) / 256)
        self_check(model, prompts)
    monkeypatch.setattr(routing, "routers", lambda _model: [])
    for model in models:
        with pytest.raises(Unmeasurable, match="differs between a padded batch and one prompt"):
            self_check(model, prompts)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_blocks_that_return_tuples(family: str) -> None:
    """As these two do in transformers 5.0, whose decoders take them apart."""
    expected = record_blocks(tiny_model(family), PROMPTS, LATE, 16)
    model = tiny_model(family)
    whole = record_under_whole(model, PROMPTS, ANSWERS, [shifted], 16)
    for block in blocks(model):
        block.forward = in_tuple(block.forward)
    for module in (*blocks(model)[1:], final_norm(model)):
        module.register_forward_pre_hook(lambda _m, args: (args[0][0], *args[1:]))
    torch.testing.assert_close(record_blocks(model, PROMPTS, LATE, 16), expected, rtol=0, atol=0)
    torch.testing.assert_close(record_under_whole(model, PROMPTS, ANSWERS, [shifted], 16), whole, rtol=0, atol=0)


def in_tuple(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **result: (forward(*args, **result), None)


def shifted(model: Any, batch: Sequence[int], before: Sequence[int]) -> AbstractContextManager[None]:
    places = [[LATE[index] - left] for index, left in zip(batch, before, strict=True)]
    return adding(model, [1], torch.ones(len(batch), 32), places)


@pytest.mark.parametrize("sound", [True, False])
def test_steering_goes_by_whole_forwards_where_a_prefix_cannot_be_shared(
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sound: bool,
) -> None:
    checkpoint = resolve(str(tiny_checkpoint("qwen3")))
    recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 64)
    prompts = Prompts(PROMPTS, [len(prompt) - 1 for prompt in PROMPTS], ANSWERS)
    steering = Steering((1,), np.ones((len(PROMPTS), 32), dtype=np.float32), [[place] for place in LATE])
    expected = record_under_whole(tiny_model("qwen3"), PROMPTS, ANSWERS, [shifted], 64)
    if not sound:
        monkeypatch.setattr(selfcheck, "record_under", lambda *_args, **_more: expected[:, :3] * 2)
    found = recorder.steered_logits(checkpoint, prompts, [steering])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert any("steered by whole forwards" in warning for warning in recorder.warnings) is not sound
