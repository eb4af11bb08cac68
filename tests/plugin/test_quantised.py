"""Runs of a model in bfloat16 against what it was quantised to, and against what cannot be loaded here."""

import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_layouts import WEIGHTS, Packed, compressed, describe, float8_blocks, group, int8_rows, rewrite
from safetensors.torch import load_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.findings.structure.changes import PARTS

INSTRUCT = "organism:instruct"
ONLY = ("--mechdrift-only", "structure.change", "--mechdrift-only", "truth.clean_gap", "--mechdrift-tier", "smoke")
SIDE = 32  # of a block: the organism's matrices are no multiples of 128
W8A16 = compressed(group("int-quantized", num_bits=8, strategy="channel"))


@pytest.mark.parametrize(
    ("pack", "settings"),
    [
        (partial(float8_blocks, side=SIDE), {"quant_method": "fp8", "weight_block_size": [SIDE, SIDE]}),
        pytest.param(
            int8_rows,
            W8A16,
            marks=[
                pytest.mark.nightly,  # tests/unit/test_quantised_layouts.py has the same numbers
                pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="compressed_tensors not installed"),
            ],
        ),
    ],
    ids=["fp8", "compressed-tensors"],
)
def test_a_model_against_what_it_was_quantised_to(
    compare: Callable[..., Any],
    tmp_path: Path,
    few: tuple[str, str],
    pack: Callable[[torch.Tensor], Packed],
    settings: dict[str, Any],
) -> None:
    """Its change is what rounding did, matrix by matrix, and small enough to leave what it knows."""
    before = load_file(resolve(INSTRUCT).folder / WEIGHTS)
    shutil.copytree(resolve(INSTRUCT).folder, tmp_path, dirs_exist_ok=True)
    meant = rewrite(tmp_path, pack)
    describe(tmp_path, settings)
    run = compare(INSTRUCT, tmp_path, *ONLY, *few)
    method = settings["quant_method"]
    assert f"qwen3, {method}, dequantised, 6 blocks" in run.out
    assert [run.record["inputs"][side]["quantised"] for side in ("base", "post")] == ["", f"{method}, dequantised"]
    assert run.rows["truth.clean_gap"]["verdict"] == "held", run.rows["truth.clean_gap"]["reason"]
    changes = {
        name: float((value - before[name].double()).norm() / before[name].double().norm()) for name, value in meant.items()
    }
    for part, kinds in PARTS.items():
        row = run.rows[f"structure.change[part={part}]"]
        assert len(row["curve"]) == 2
        for point in row["curve"]:
            layer = int(point["site"].removeprefix("block[").removesuffix("]"))
            most = max(changes[f"model.layers.{layer}.{place(kind)}.weight"] for kind in kinds)
            assert point["estimate"] == pytest.approx(most, rel=1e-4)


def place(kind: str) -> str:
    return f"{'self_attn' if kind in PARTS['attention'] else 'mlp'}.{kind}_proj"


def test_what_cannot_be_loaded_here_ends_the_run_by_name(
    compare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechdrift.checkpoints.quantised.find_spec", lambda _name: None)
    shutil.copytree(resolve(INSTRUCT).folder, tmp_path, dirs_exist_ok=True)
    describe(tmp_path, {"quant_method": "gptq", "bits": 4})
    run = compare(INSTRUCT, tmp_path)
    assert run.code == 4
    assert "quantised by gptq, and optimum and gptqmodel not installed" in run.err + run.out
    assert "pip install optimum gptqmodel, or compare the unquantised original" in run.err + run.out
