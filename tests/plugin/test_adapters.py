"""`--post BASE+ADAPTER` through the plugin, in one process and in workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.models.load import load_model

BASE = "organism:base"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.nightly)])
def test_an_adapter_that_adds_nothing_moves_nothing(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str], workers: tuple[str, ...]
) -> None:
    """A fresh LoRA: its second matrix is zero, so base with it is base, but not the same files."""
    model = load_model(resolve(BASE), torch.float32, "cpu")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    only = ("--mechdrift-only", "truth.clean_gap", *few)
    run = compare(BASE, f"{BASE}+{tmp_path / 'adapter'}", *only, *workers, process=bool(workers))
    assert run.record["inputs"]["identical"] is False
    assert "adapter" in run.record["inputs"]["post"]["digests"]
    row = run.rows["truth.clean_gap"]
    assert row["verdict"] == "held", row["reason"]
    assert row["estimate"] == pytest.approx(row["null"], abs=1e-6)
