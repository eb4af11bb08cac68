"""A batch that does not fit is told in the terminal and in the record, and the run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mechdrift.engine.recording import record_logits


def test_a_batch_that_does_not_fit_is_told(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(model: Any, prompts: Any, tokens: Any, batch_tokens: int, progress: Any, share: bool) -> Any:
        if batch_tokens > 1024:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return record_logits(model, prompts, tokens, batch_tokens, progress, share=share)

    monkeypatch.setattr("mechdrift.engine.stored_recordings.record_logits", small)
    run = compare("organism:base", "organism:instruct", "--mechdrift-only", "truth.clean_gap", *few, cache=tmp_path / "cache")
    notes = [
        f"organism:base: out of memory on a batch of {2 * at} tokens: read again at {at}, both models" for at in (2048, 1024)
    ]
    assert run.record["run"]["warnings"] == notes
    assert all(note in run.out for note in notes)
    assert run.verdicts()["truth.clean_gap"] != "error"
