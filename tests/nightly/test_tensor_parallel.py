"""Tensor parallel for real, though small: two processes on one CPU read what one process reads."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

SCRIPT = """
import os, sys, torch
from safetensors.torch import save_file
from mechdrift.models.load import load_model
from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.recording import record_blocks, record_logits
from mechdrift.engine.selfcheck import self_check
folder, out, device = sys.argv[1:]
prompts = [[0, 5, 9, 20, 31], [0, 7], [0, 100, 101, 102]]
model = load_model(resolve(folder), torch.float32, device)
self_check(model, prompts)
read = {"blocks": record_blocks(model, prompts, [4, 1, 3], 64), "logits": record_logits(model, prompts, [(3, 4)] * 3, 64)}
rows = model.model.layers[0].mlp.up_proj.weight
read["part"] = torch.tensor((rows.to_local() if hasattr(rows, "to_local") else rows).shape[0])
if os.environ.get("RANK", "0") == "0":
    save_file(read, out)
"""


def test_two_processes_read_what_one_reads(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A sum over two halves rounds otherwise: 1e-5 at values up to about 10."""
    script, folder = tmp_path / "read.py", str(tiny_checkpoint())
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for name, start, device in (("one", [sys.executable], "cpu"), ("two", torchrun, "tp")):
        subprocess.run([*start, str(script), folder, str(tmp_path / name), device], check=True, timeout=600)
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert two["part"] * 2 == one["part"], "each process holds half of it"
    for what in ("blocks", "logits"):
        assert (one[what] - two[what]).abs().max() < 1e-5 * max(1, one[what].abs().max())
