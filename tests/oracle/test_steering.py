"""Steered forwards against the same arithmetic done by hand on the model's own layers."""

from typing import Any

import pytest
import torch
from tiny import VARIANTS, tiny_model

from mechdrift.engine.steer import ablating, ablating_everywhere, adding, shifting
from mechdrift.models.sites import blocks, final_norm

IDS = torch.tensor([[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104]])


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def run(model: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What enters each block and the final norm, and the logits.

    Seen by hooks of the test's own: transformers takes its hidden_states before a module's hooks have changed them.
    """
    entered: list[torch.Tensor] = []
    places = [*blocks(model), final_norm(model)]
    handles = [place.register_forward_pre_hook(lambda _m, args: entered.append(args[0].clone())) for place in places]
    with torch.inference_mode():
        logits = model(IDS).logits
    for handle in handles:
        handle.remove()
    return entered, logits


def test_addition_moves_exactly_the_named_places(model: Any) -> None:
    vector = torch.randn(32)
    before, logits = run(model)
    with adding(model, [1], torch.stack([vector, -2 * vector]), [[2, 4], [3]]):
        after, steered = run(model)
    assert torch.equal(after[1], before[1])  # what enters block 1 has not moved
    moved = after[2] - before[2]
    expected = torch.zeros_like(moved)
    expected[0, [2, 4]], expected[1, 3] = vector, -2 * vector
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    # Under a causal mask tokens before the first edited one cannot move, and the last token must.
    assert torch.equal(steered[0, :2], logits[0, :2])
    assert torch.equal(steered[1, :3], logits[1, :3])
    assert (steered[:, -1] - logits[:, -1]).abs().max() > 0.1


def test_a_steered_forward_equals_running_the_blocks_from_there(model: Any) -> None:
    """The blocks above, run by transformers on an input edited by hand, give the same output."""
    vector = torch.randn(32)
    edited = run(model)[0][2].clone()
    edited[0, 2] += 3 * vector
    edited[1, 2] += 3 * vector
    handle = blocks(model)[1].register_forward_hook(lambda _m, _i, _o: edited)
    expected = run(model)[1]
    handle.remove()
    with adding(model, [1], 3 * vector.expand(2, -1), [[2], [2]]):
        torch.testing.assert_close(run(model)[1], expected, rtol=1e-5, atol=1e-5)


def test_ablation_leaves_nothing_along_the_direction(model: Any) -> None:
    direction = 5 * torch.randn(32)
    before, logits = run(model)
    with ablating(model, direction, [0, 1, 2]):
        after, steered = run(model)
    unit = direction / direction.norm()
    for place in (1, 2, 3):
        assert (before[place] @ unit).abs().max() > 0.1
        assert (after[place] @ unit).abs().max() < 1e-4  # float32 at values of about 10
    assert (steered - logits).abs().max() > 0.1


def test_a_shift_moves_every_token_of_the_named_block_by_itself(model: Any) -> None:
    vector = torch.randn(32)
    before, _ = run(model)
    with shifting(model, vector, [1]):
        after, _ = run(model)
    assert torch.equal(after[1], before[1])
    torch.testing.assert_close(after[2] - before[2], vector.expand_as(before[2]), rtol=0, atol=1e-5)


def test_ablation_everywhere_leaves_nothing_from_the_embedding_on(model: Any) -> None:
    """The first block reads the embeddings without what lies along it, by hand; nothing later has any of it either."""
    direction = 5 * torch.randn(32)
    unit = direction / direction.norm()
    before, _ = run(model)
    with ablating_everywhere(model, direction):
        after, _ = run(model)
    torch.testing.assert_close(after[0], before[0] - (before[0] @ unit)[..., None] * unit, rtol=0, atol=1e-5)
    for place in (1, 2, 3):
        assert (before[place] @ unit).abs().max() > 0.1
        assert (after[place] @ unit).abs().max() < 1e-4


def test_hooks_come_off_even_after_an_error(model: Any) -> None:
    with pytest.raises(RuntimeError, match="inside"), adding(model, [0], torch.ones(2, 32), [[0], [0]]):
        raise RuntimeError("inside")
    with pytest.raises(RuntimeError, match="inside"), ablating(model, torch.ones(32), [0]):
        raise RuntimeError("inside")
    with pytest.raises(RuntimeError, match="inside"), ablating_everywhere(model, torch.ones(32)):
        raise RuntimeError("inside")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
