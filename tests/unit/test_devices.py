"""Where models are put: what transformers is asked for, and models in several places against models in one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_blocks, record_logits
from mechdrift.engine.selfcheck import check_adding, self_check
from mechdrift.errors import InputError
from mechdrift.models.devices import check_device, input_device, pick_dtype
from mechdrift.models.load import load_model, placement

PROMPTS = [[0, 5, 9, 200, 31], [0, 7], [0, 100, 101, 102]]
POSITIONS, TOKENS = [4, 1, 3], [(3, 4)] * 3


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", {"device_map": {"": "cpu"}}), ("cuda:1", {"device_map": {"": "cuda:1"}}), ("map", {"device_map": "auto"})],
)
def test_what_transformers_is_asked_for(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, device: str, expected: dict[str, Any]
) -> None:
    seen: dict[str, Any] = {}

    def requested(folder: Path, **arguments: Any) -> None:
        seen.update(arguments)
        raise ValueError("asked")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", requested)
    with pytest.raises(InputError, match="asked"):
        load_model(resolve(str(tiny_checkpoint())), torch.bfloat16, device)
    assert seen.items() >= expected.items()
    assert seen["dtype"] == torch.bfloat16
    assert seen["trust_remote_code"] is False


def test_tensor_parallel_takes_the_models_own_plan() -> None:
    assert placement("tp")["distributed_config"].tp_plan == "auto"


def test_tensor_parallel_outside_of_torchrun_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match="type torchrun --nproc-per-node N -m pytest"):
        check_device("tp")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_device("tp")


def test_a_map_is_read_as_one_device_is(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = resolve(str(tiny_checkpoint()))
    one, spread = (load_model(checkpoint, torch.float32, device) for device in ("cpu", "map"))
    torch.testing.assert_close(
        record_blocks(spread, PROMPTS, POSITIONS, 64), record_blocks(one, PROMPTS, POSITIONS, 64), rtol=1e-5, atol=1e-5
    )


def test_blocks_that_accelerate_holds_elsewhere_are_read_the_same(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Embedding and middle block on disk, fetched for each forward: the first weight lies on `meta`, where nothing can run."""
    checkpoint = resolve(str(tiny_checkpoint()))
    one, spread = (load_model(checkpoint, torch.float32, "cpu") for _ in range(2))
    places = {"model.embed_tokens": "disk", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "cpu"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread = dispatch_model(spread, places, main_device="cpu", offload_dir=tmp_path)
    assert spread.device == torch.device("meta")
    assert input_device(spread) == torch.device("cpu")
    self_check(spread, PROMPTS)
    assert torch.equal(record_blocks(spread, PROMPTS, POSITIONS, 64), record_blocks(one, PROMPTS, POSITIONS, 64))
    assert torch.equal(record_logits(spread, PROMPTS, TOKENS, 64), record_logits(one, PROMPTS, TOKENS, 64))
    check_adding(spread, PROMPTS[0], [0, 1], torch.randn(32), [2, 3])


def test_what_a_device_is_called_in_the_cache_key(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["NVIDIA A", "NVIDIA B"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda at: names[int(str(at).rpartition(":")[2])])
    kinds = [Pool(device, "bfloat16").device_kind() for device in ("cpu", "cuda:1", "map", "tp")]
    assert kinds == [
        f"cpu {torch.backends.cpu.get_cpu_capability()}",
        "NVIDIA B",
        "map ['NVIDIA A', 'NVIDIA B']",
        "tp ['NVIDIA A', 'NVIDIA B']",
    ]


@pytest.mark.parametrize(("gpus", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_dtype_of_a_map(monkeypatch: pytest.MonkeyPatch, gpus: bool, expected: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus)
    assert pick_dtype("auto", "map") == expected
    assert pick_dtype("auto", "cpu") == "float32"
