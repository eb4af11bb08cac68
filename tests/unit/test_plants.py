"""Planted drifts do what they say, and nothing else."""

from typing import Any

import pytest
import torch
from tiny import tiny_model

from mechdrift.data.organisms.plants import rotate, turning

IDS = torch.tensor([[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104]])


def run(model: Any) -> Any:
    with torch.inference_mode():
        return model(IDS, output_hidden_states=True)


@pytest.mark.parametrize("degrees", [0.0, 15.0, 60.0, 90.0])
def test_turning_is_orthogonal_and_turns_every_vector_by_the_angle(degrees: float) -> None:
    turn = turning(10, degrees, seed=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(10, dtype=torch.float64), atol=1e-12, rtol=0)
    vectors = torch.randn(7, 10, dtype=torch.float64)
    cosines = torch.cosine_similarity(vectors, vectors @ turn.T)
    torch.testing.assert_close(cosines, torch.full((7,), degrees, dtype=torch.float64).deg2rad().cos(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_rotation_keeps_the_function_and_turns_the_stream(family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    before = run(model)
    rotate(model, 60.0)
    after = run(model)
    # float32 matrices rewritten once: rounding of 2^-24 through 3 blocks, observed 5e-6 at logits up to 5.
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    for old, new in zip(before.hidden_states[:-1], after.hidden_states[:-1], strict=True):
        cosines = torch.cosine_similarity(old, new, dim=-1)
        torch.testing.assert_close(cosines, torch.full_like(cosines, 0.5), atol=1e-5, rtol=0)


def test_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="even width"):
        turning(7, 10.0, 0)
