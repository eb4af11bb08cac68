"""`mechdrift inspect`: what is found on a checkpoint, and what is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.commands.cli import main

LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}


def inspected(capsys: pytest.CaptureFixture[str], spec: object) -> tuple[int, dict[str, str]]:
    """The exit code, and what is said of each part in one line."""
    code = main(["inspect", str(spec)])
    printed = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in printed)
    parts: dict[str, str] = {}
    for line in printed[1:]:
        name, words = line[:21].strip(), line[21:]
        parts[name or [*parts][-1]] = words if name else f"{parts[[*parts][-1]]} {words}"
    return code, parts


def test_a_listed_family_has_everything(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]) -> None:
    code, parts = inspected(capsys, tiny_checkpoint())
    assert code == 0
    assert parts["stream"].startswith("3 blocks of width 32, then LlamaRMSNorm; written by self_attn, mlp (truth, knowledge")
    assert parts["self-check"].startswith("passed, off by")
    assert parts["whole state"].startswith("nothing but the stream passes from block to block (knowledge: maps)")
    assert parts["shared beginnings"] == parts["sweep"] == "fast"
    assert parts["last MLP"].startswith("48 neurons")
    assert parts["matrices"].startswith("q, k, v, o, gate, up, down (structure)")
    assert parts["replies"].startswith("end with <eos>")


@pytest.mark.filterwarnings("ignore")  # of kernels that are not installed
def test_what_a_found_family_lacks_is_said_and_no_gate_needs_it(
    capsys: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]
) -> None:
    sizes: dict[str, Any] = LINEAR | {"head_dim": 8, "num_hidden_layers": 4}
    code, parts = inspected(capsys, tiny_checkpoint("qwen3_5_text", **sizes))
    assert code == 0
    assert "written by linear_attn, mlp in 0..2; self_attn, mlp in 3" in parts["stream"]
    assert parts["shared beginnings"].startswith("by whole forwards: the fast way cannot be run")
    assert parts["last MLP"].startswith("48 neurons")
    assert parts["sweep"].startswith("the fast sweep moves what it computes by")
    assert parts["sweep"].endswith("patched by forwards from the patched block on, slower")
    assert parts["matrices"].startswith("k, v, o, gate, up, down; no q: ")


def test_a_model_without_a_stream_lacks_what_gates_need(
    capsys: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]
) -> None:
    code, parts = inspected(capsys, tiny_checkpoint("bert", is_decoder=True))
    assert code == 7
    assert parts["stream"].startswith("NO: no final norm: nothing takes the last block's output")
    assert parts["steering"].startswith("NO: ")
    assert parts["replies"].startswith("end with <eos>")


def test_what_cannot_be_loaded_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nowhere"]) == 4
    assert capsys.readouterr().err.startswith("mechdrift: nowhere: no such folder; expected ")
