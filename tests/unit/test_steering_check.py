"""The checks that interventions moved what they should."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mechdrift.engine import selfcheck
from mechdrift.engine.selfcheck import check_adding
from mechdrift.errors import InterventionFailed

PROMPT = [0, 5, 9, 200, 31, 77]
SHIFT = torch.ones(32)


@pytest.mark.parametrize("layers", [[0], [1], [0, 1]])
def test_a_sound_steering_passes(layers: list[int]) -> None:
    check_adding(tiny_model("qwen3"), PROMPT, layers, SHIFT, [2, 4])


def broken(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """adding, but with its arguments changed."""

    @contextmanager
    def adding(model: Any, layers: list[int], shifts: torch.Tensor, positions: list[list[int]]) -> Iterator[None]:
        from mechdrift.engine import steer

        result = change({"layers": layers, "shifts": shifts, "positions": positions})
        with steer.adding(model, **result):
            yield

    return adding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda result: result | {"shifts": result["shifts"] * 0}, "did not move its output as it says"),
        (lambda result: result | {"shifts": result["shifts"] * 1.1}, "did not move its output as it says"),
        (lambda result: result | {"positions": [[3, 4]]}, r"moved tokens other than \[2, 4\]"),
        (lambda result: result | {"positions": [[2]]}, "did not move its output as it says"),
        (lambda result: result | {"layers": [0]}, "moved what enters block 1"),
        (lambda result: result | {"layers": [2]}, "did not move its output as it says"),
    ],
)
def test_a_steering_that_does_something_else_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], message: str
) -> None:
    monkeypatch.setattr(selfcheck, "adding", broken(change))
    with pytest.raises(InterventionFailed, match=message):
        check_adding(tiny_model("llama"), PROMPT, [1], SHIFT, [2, 4])


def test_a_move_that_nothing_reads_is_a_fault() -> None:
    """The last block's output at an earlier token reaches no logit that is read."""
    with pytest.raises(InterventionFailed, match="did not move the logits"):
        check_adding(tiny_model("llama"), PROMPT, [2], SHIFT, [2, 4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_no_op_is_seen_beside_values_a_thousand_times_larger(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Real models carry such values at their first token, and in a few dimensions of every token."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[PROMPT[0]] *= 5000
    model = model.to(dtype)
    check_adding(model, PROMPT, [1], SHIFT, [2, 4])
    monkeypatch.setattr(selfcheck, "adding", broken(lambda result: result | {"shifts": result["shifts"] * 0}))
    with pytest.raises(InterventionFailed, match="did not move its output as it says"):
        check_adding(model, PROMPT, [1], SHIFT, [2, 4])
