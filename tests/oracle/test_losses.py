"""Losses of every token against transformers' own logits, in every family: caps, windows, experts and tied heads among them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import VARIANTS, tiny_model

from mechdrift.engine import recording
from mechdrift.engine.recording import record_losses

PROMPTS = [[(7 * k + 13 * n) % 250 + 2 for n in range(40)] for k in range(5)]


@pytest.mark.parametrize("family", VARIANTS)
def test_losses_are_those_of_the_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "HEAD_TOKENS", 16)  # 39 tokens: three parts, the last one short
    model = tiny_model(family).eval()
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([ids])).logits[:, :-1] for ids in PROMPTS])
    expected = torch.nn.functional.cross_entropy(logits.mT, torch.tensor(PROMPTS)[:, 1:], reduction="none")
    found = record_losses(model, PROMPTS, batch_tokens=80)
    assert found.shape == (5, 39)
    # Batches of two against one by one: float32 of losses of a few nats.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_as_it_was_afterwards() -> None:
    model = tiny_model().eval()
    ids = torch.tensor(PROMPTS)
    before = model(ids).logits
    record_losses(model, PROMPTS, batch_tokens=80)
    assert torch.equal(model(ids).logits, before)
    assert "forward" not in model.get_decoder().__dict__


def test_a_shrunk_window_shows_from_the_first_token_beyond_it(tiny_checkpoint: Callable[..., Path]) -> None:
    """Block by block, 3 of them: token 8 is the first that a window of 8 keeps from token 0."""
    wide, narrow = (tiny_model("mistral", sliding_window=window).eval() for window in (None, 8))
    moved = (record_losses(narrow, PROMPTS, 400) - record_losses(wide, PROMPTS, 400)).abs().amax(0)
    assert moved[:8].max() < 1e-5
    assert moved[8:].min() > 1e-5
