"""The command that an FSDP checkpoint's refusal names does merge it: tried with accelerate and torch's own sharded writer."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed.checkpoint as distributed
from safetensors.torch import load_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process is what is meant
def test_the_named_command_makes_a_checkpoint_of_fsdp_shards(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    whole = tiny_checkpoint()
    folder = Path(shutil.copytree(whole, tmp_path / "checkpoint-500"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    distributed.save({"model": weights}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    with pytest.raises(InputError) as caught:
        resolve(str(folder))
    command = shlex.split(str(caught.value).partition("run: ")[2].partition(" (then")[0])
    assert command[:2] == ["accelerate", "merge-weights"]
    subprocess.run([str(Path(sys.executable).with_name("accelerate")), *command[1:]], check=True, capture_output=True)
    merged = load_file(folder / "model.safetensors")
    assert merged.keys() == weights.keys()
    assert all(merged[name].equal(weights[name]) for name in weights)
    assert resolve(str(folder)).parameters == resolve(str(whole)).parameters
