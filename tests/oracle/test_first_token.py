"""The first token under arms, against transformers' own forwards one prompt at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.models.sites import blocks, stream, with_stream

TOKENS = (7, 30, 200)
LAYER, COEFFICIENT = 1, 3.0


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [[0, *draw.integers(2, 258, size=size).tolist()] for size in (3, 9, 4, 12, 3, 7)]


@pytest.fixture(scope="module")
def direction() -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=32)
    return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)


def log_probs(model: Any, prompt: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(model(torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1).numpy())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_log_odds_and_divergence_are_those_of_whole_forwards(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], prompts: list[list[int]], direction: np.ndarray, family: str
) -> None:
    point = resolve(str(tiny_checkpoint(family)))
    recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 24)
    arms = [Arm("plain"), Arm("added", Added(direction, LAYER, COEFFICIENT)), Arm("ablated", Ablated(direction))]
    found = first_token_under(recorder, point, prompts, TOKENS, arms)
    assert found.shape == (3, len(prompts), 2)
    model = recorder.pool.model(point, prompts[:1])
    moved = COEFFICIENT * torch.tensor(direction)
    for row, prompt in enumerate(prompts):
        plain = log_probs(model, prompt)
        handle = blocks(model)[LAYER].register_forward_hook(lambda _m, _i, out: with_stream(out, stream(out) + moved))
        added = log_probs(model, prompt)
        handle.remove()
        for number, seen in ((0, plain), (1, added)):
            mass = np.exp(seen[list(TOKENS)]).sum()
            assert found[number, row, 0] == pytest.approx(np.log(mass / (1 - mass)), abs=1e-4)
            assert found[number, row, 1] == pytest.approx((np.exp(plain) * (plain - seen)).sum(), abs=1e-4)
    assert (found[0, :, 1] == 0).all()
    assert (found[1:, :, 1] > 1e-4).all()  # else there was nothing to compare
    again = Recorder(Pool("cpu", "float32"), Store(tmp_path), 24)
    renamed = [Arm(f"another name {number}", arm.does) for number, arm in enumerate(arms)]
    assert (first_token_under(again, point, prompts, TOKENS, renamed) == found).all()
    assert again.pool.loads == 0


@pytest.mark.parametrize("nats", [1.0, 20.7, 60.0, 300.0])
def test_log_odds_do_not_saturate(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], prompts: list[list[int]], nats: float
) -> None:
    """Post-trained models are sure of how they begin: at 20.7 nats p is 1 - 1e-9, which in float32 is 1.

    A bias of the head makes it so; the truth is that of the same logits in float64.
    """
    point = resolve(str(tiny_checkpoint("llama")))
    recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 24)
    model = recorder.pool.model(point, prompts[:1])
    bias = torch.zeros(model.config.vocab_size)
    bias[list(TOKENS)] = nats + 10.0
    model.lm_head.bias = torch.nn.Parameter(bias)
    found = first_token_under(recorder, point, prompts, TOKENS, [Arm("plain")])[0, :, 0]
    for row, prompt in enumerate(prompts):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt])).logits[0, -1].double()
        others = np.delete(logits.numpy(), TOKENS)
        truth = np.logaddexp.reduce(logits.numpy()[list(TOKENS)]) - np.logaddexp.reduce(others)
        assert truth > nats
        assert found[row] == pytest.approx(truth, abs=1e-4)
