"""Structure rows end to end: files alone, planted changes, and what cannot be measured."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import tiny_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.findings.registry import registered
from mechdrift.models.load import load_model

STRUCTURE = ("--mechdrift-only", "structure")
INSTRUCT = "organism:instruct"


def estimates(run: Any, name: str) -> dict[str, float]:
    return {label: row["estimate"] for label, row in run.rows.items() if label.startswith(f"structure.{name}")}


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """organism:instruct with its matrices changed."""

    def make(edit: Callable[[Any], None]) -> Path:
        checkpoint = resolve(INSTRUCT)
        model = load_model(checkpoint, torch.float32, "cpu")
        with torch.no_grad():
            for block in model.get_decoder().layers:
                edit(block)
        model.save_pretrained(tmp_path)
        load_tokenizer(checkpoint).save_pretrained(tmp_path)
        return tmp_path

    return make


def test_base_to_instruct_has_every_row_and_loads_no_model(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    run = compare("organism:base", INSTRUCT, *STRUCTURE)
    assert run.code == 5, run.out
    requested = Counter(row["finding"] for row in run.rows.values())
    assert requested == {name: finding.rows for name, finding in registered().items() if finding.family == "structure"}
    for row in run.rows.values():
        assert (row["status"], row["role"], row["n"]) == ("ok", "report", 0)
        assert row["low"] <= row["estimate"] <= row["high"]
        assert len(row["curve"]) == 6
    assert run.record["run"]["work"]["model_loads"] == 0
    assert "of random changes" in run.rows["structure.gap_ratio[kind=q]"]["note"]
    with safe_open(pytester.path / "record.structure.safetensors", framework="np") as file:
        scale = file.get_tensor("scale")[:, file.metadata()["kinds"].split(",").index("o")]
    curve = [point["estimate"] for point in run.rows["structure.scale[kind=o]"]["curve"]]
    assert curve == pytest.approx(scale.tolist(), abs=1e-6)
    again = compare("organism:base", INSTRUCT, *STRUCTURE)
    assert again.record["run"]["work"]["cache_hits"] == 1
    assert again.record["rows"] == run.record["rows"]


@pytest.mark.parametrize("more", [(), ("--mechdrift-no-identity-shortcut",)])
def test_a_checkpoint_is_what_it_is(compare: Callable[..., Any], more: tuple[str, ...]) -> None:
    run = compare(INSTRUCT, INSTRUCT, *STRUCTURE, *more)
    assert run.code == 5, run.out
    for row in run.rows.values():
        if row["finding"] == "structure.gap_ratio":
            assert (row["verdict"], "what they were" in row["reason"]) == ("unmeasurable", True)
        else:
            assert row["estimate"] == pytest.approx(row["null"], abs=1e-6 if more else 0)


def test_scrambled_spectra_are_caught_where_they_are(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    (pytester.path / "own.toml").write_text('[rows."structure.uniformity"]\nrole = "gate"\nat_most = 0.1\n')
    own = "--mechdrift-profile", "own.toml"
    run = compare(INSTRUCT, "organism:drift-spectrum-scrambled", *STRUCTURE, *own)
    assert run.code == 1
    verdicts = {part: run.rows[f"structure.uniformity[part={part}]"]["verdict"] for part in ("attention", "mlp")}
    assert verdicts == {"attention": "held", "mlp": "drifted"}
    for kind, scale in estimates(run, "scale").items():
        assert scale > 1.5 if kind in ("structure.scale[kind=up]", "structure.scale[kind=down]") else scale == 1


@pytest.mark.nightly
def test_noise_is_its_own_null_and_moves_what_it_was_put_into(compare: Callable[..., Any]) -> None:
    run = compare(INSTRUCT, "organism:drift-benign-noise", *STRUCTURE)
    for label, row in run.rows.items():
        if row["finding"] == "structure.gap_ratio":
            noisy = label in ("structure.gap_ratio[kind=o]", "structure.gap_ratio[kind=down]")
            assert (row["verdict"] == "reported") == noisy
            assert not noisy or row["estimate"] == pytest.approx(1, abs=0.05)
    assert all(change > 0.01 for change in estimates(run, "change").values())


@pytest.mark.parametrize("drift", ["confidence-scaled", "entropy-neurons-swapped"])
def test_drifts_of_the_head_leave_attention_and_all_scales(compare: Callable[..., Any], drift: str) -> None:
    run = compare(INSTRUCT, f"organism:drift-{drift}", *STRUCTURE)
    assert run.rows["structure.change[part=attention]"]["estimate"] == 0
    assert set(estimates(run, "scale").values()) == {1}
    assert run.rows["structure.output_anomaly"]["estimate"] == 0


def test_a_planted_output_anomaly_is_told_to_the_last_digit(compare: Callable[..., Any], changed: Callable[..., Path]) -> None:
    run = compare(INSTRUCT, changed(lambda block: block.self_attn.o_proj.weight.mul_(1.3)), *STRUCTURE)
    row = run.rows["structure.output_anomaly"]
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((0.3, 0.3, 0.3), abs=1e-6)
    assert row["note"].startswith("as published")
    assert run.rows["structure.gap_ratio[kind=o]"]["estimate"] == pytest.approx(0, abs=1e-4)
    assert run.rows["structure.uniformity[part=attention]"]["estimate"] == pytest.approx(0, abs=1e-6)


def test_zeros_are_named_and_spare_other_rows(compare: Callable[..., Any], changed: Callable[..., Path]) -> None:
    run = compare(INSTRUCT, changed(lambda block: block.mlp.up_proj.weight.zero_()), *STRUCTURE)
    assert run.code == 5
    row = run.rows["structure.scale[kind=up]"]
    assert row["verdict"] == "unmeasurable"
    assert "model.safetensors, model.layers.0.mlp.up_proj.weight: all zeros" in row["reason"]
    assert run.rows["structure.scale[kind=down]"]["estimate"] == 1


def test_another_shape_and_depth_are_reasons(compare: Callable[..., Any], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resolve(INSTRUCT))
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run = compare(tmp_path, INSTRUCT, *STRUCTURE)
    assert run.code == 5
    assert {row["reason"] for row in run.rows.values()} == {"blocks differ: base 3, post 6"}
