"""Which backend makes replies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate import vllm_generator
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.choose import PAYS, backend_for, generator_for
from mechdrift.engine.generate.vllm_generator import VllmGenerator
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError


@pytest.fixture
def large(tiny_checkpoint: Callable[..., Path]) -> Checkpoint:
    """A checkpoint that says it is large."""
    return replace(resolve(str(tiny_checkpoint())), parameters=PAYS)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says that vLLM is there, or not."""
    return lambda there: monkeypatch.setattr(vllm_generator, "find_spec", lambda _name: object() if there else None)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_auto_takes_vllm_for_two_large_models_on_a_gpu(large: Checkpoint, vllm: Any, device: str) -> None:
    vllm(True)
    assert backend_for("auto", device, {}, [large, large]) == "vllm"
    vllm(False)
    assert backend_for("auto", device, {}, [large, large]) == "transformers"


@pytest.mark.parametrize("device", ["cpu", "map", "tp"])
def test_auto_takes_transformers_elsewhere(large: Checkpoint, vllm: Any, device: str) -> None:
    vllm(True)
    assert backend_for("auto", device, {}, [large, large]) == "transformers"


@pytest.mark.parametrize("odd", [{"parameters": PAYS - 1}, {"adapter": "x"}, {"gguf": "x"}, {"quantised": "gptq"}])
def test_one_checkpoint_that_does_not_suit_decides_for_both(large: Checkpoint, vllm: Any, odd: dict[str, Any]) -> None:
    vllm(True)
    for pair in ([large, replace(large, **odd)], [replace(large, **odd), large]):
        assert backend_for("auto", "cuda", {}, pair) == "transformers"


def test_what_is_asked_for_is_taken(large: Checkpoint, vllm: Any, tmp_path: Path) -> None:
    vllm(True)
    small, recorder = replace(large, parameters=1), Recorder(Pool("cpu", "float32"), Store(tmp_path), 64)
    made = generator_for(recorder, "vllm", {"max_num_seqs": 8}, [small, small])
    assert made == VllmGenerator(recorder, {"max_num_seqs": 8})
    assert generator_for(recorder, "transformers", {}, [large, large]) == TransformersGenerator(recorder)
    assert made.name == "vllm"


@pytest.mark.parametrize(
    ("there", "device", "odd", "message"),
    [
        (False, "cpu", {}, r"vllm is not installed; expected the extra vllm; type pip install 'mechdrift\[vllm\]', or use"),
        (True, "cpu", {"adapter": "x"}, "an adapter, for vLLM; expected a folder of safetensors; merge it first, or use --mech"),
        (True, "cpu", {"gguf": "x"}, "a GGUF file, for vLLM"),
        (True, "tp", {}, "--mechdrift-device tp, for vLLM"),
    ],
)
def test_vllm_asked_for_and_not_to_be_had(
    large: Checkpoint, vllm: Any, there: bool, device: str, odd: dict[str, Any], message: str
) -> None:
    vllm(there)
    with pytest.raises(InputError, match=message):
        backend_for("vllm", device, {}, [large, replace(large, **odd)])


@pytest.mark.parametrize("requested", ["auto", "vllm", "transformers"])
def test_arguments_that_are_not_the_users_are_refused_whatever_is_chosen(vllm: Any, requested: str) -> None:
    vllm(True)
    with pytest.raises(InputError, match="--mechdrift-vllm-args: enforce_eager, model; expected options that mechdrift does not"):
        backend_for(requested, "cpu", {"model": "x", "enforce_eager": True}, [])


def test_arguments_for_an_engine_that_is_not_asked_for_are_refused() -> None:
    with pytest.raises(InputError, match="--mechdrift-vllm-args for transformers; expected vllm or auto"):
        backend_for("transformers", "cpu", {"max_num_seqs": 8}, [])
