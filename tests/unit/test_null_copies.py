"""Jittered copies: as far from a checkpoint as a copy in bfloat16, whatever it is stored in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.commands.null_copies import SHARE, jittered, moved_by_steps
from mechdrift.errors import InputError


def drawn(count: int = 200_000) -> torch.Tensor:
    """Numbers of many sizes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, generator=generator) * torch.exp(3 * torch.randn(count, generator=generator))


def moved(weights: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return moved_by_steps(weights, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_twelfth_moves_by_a_step_of_bfloat16_up_or_down(dtype: torch.dtype) -> None:
    before = drawn().to(dtype)
    after = moved(before)
    assert after.dtype == dtype
    by = (after.double() - before.double())[after != before]
    steps = by / 2.0 ** (torch.log2(before.double().abs()).floor()[after != before] - 7)
    # Just above a power of two a step down lands between two numbers of bfloat16, and goes to the even one.
    assert (steps.abs().round(decimals=2) == 1).double().mean() > 0.99
    assert after.ne(before).double().mean() == pytest.approx(SHARE, rel=0.03)
    assert (steps > 0).double().mean() == pytest.approx(0.5, abs=0.02)


def test_it_moves_as_far_as_a_rounding_to_bfloat16() -> None:
    before = drawn().double()
    rounding = (before.to(torch.bfloat16).double() - before) / before
    jitter = (moved(before) - before) / before
    assert jitter.square().mean().sqrt() == pytest.approx(float(rounding.square().mean().sqrt()), rel=0.03)


def test_zeros_stay_and_a_seed_is_a_copy() -> None:
    weights = drawn()
    weights[::2] = 0
    assert torch.equal(moved(weights)[::2], torch.zeros(len(weights) // 2))
    assert torch.equal(moved(weights), moved(weights))
    assert not torch.equal(moved(weights), moved(weights, 1))


def test_a_copy_is_a_checkpoint_that_differs_in_its_weights_alone(tmp_path: Path) -> None:
    point = resolve("organism:instruct")
    folder = jittered(point, tmp_path, 0)
    copy = resolve(str(folder))
    assert {name: copy.digests[name] == point.digests[name] for name in point.digests} == {
        "weights": False,
        "config": True,
        "generation": True,
        "template": True,
        "tokenizer": True,
    }
    before, after = (load_file(each.folder / "model.safetensors") for each in (point, copy))
    assert {name: (each.dtype, each.shape) for name, each in before.items()} == {
        name: (each.dtype, each.shape) for name, each in after.items()
    }
    assert all(not torch.equal(before[name], after[name]) for name in before if before[name].numel() > 100)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert jittered(point, tmp_path, 0) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # nothing temporary is left


def test_shards_are_written_as_they_are(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = tiny_checkpoint()
    source = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(source, max_shard_size="20KB")
    AutoTokenizer.from_pretrained(whole).save_pretrained(source)
    assert len(list(source.glob("*.safetensors"))) > 1
    copy = jittered(resolve(str(source)), tmp_path / "copies", 3)
    names = sorted(path.name for path in source.glob("*.safetensors*"))
    assert sorted(path.name for path in copy.glob("*.safetensors*")) == names
    AutoModelForCausalLM.from_pretrained(copy)


def test_weights_that_are_no_floats_of_their_own_are_refused(tmp_path: Path) -> None:
    point = resolve("organism:instruct")
    for other in (replace(point, adapter="x"), replace(point, gguf="x"), replace(point, quantised="gptq")):
        with pytest.raises(InputError, match="expected a folder of exact safetensors"):
            jittered(other, tmp_path, 0)
    assert not list(tmp_path.iterdir())
