"""Which backend makes the replies of a run: one for both sides of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.falling_back import FallingBack
from mechdrift.engine.generate.generator import Generator
from mechdrift.engine.generate.vllm_architectures import architecture_of, is_registered
from mechdrift.engine.generate.vllm_generator import VllmGenerator, installed, require_able, require_free
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError

# Weights from which starting vLLM pays. A start costs about the same whatever the size, and what it saves grows with the size:
# on a CPU organism:instruct takes 18.0 s by vLLM, most of it the start, and 4.3 s by transformers (benchmarks/generate.py).
# Where on a GPU the two meet is an estimate, on the safe side: small models are left to transformers, which needs no start.
PAYS = 10**9
AUTO = "auto"


def generator_for(
    recorder: Recorder, requested: str, vllm_args: Mapping[str, Any], checkpoints: Sequence[Checkpoint]
) -> Generator:
    """The one Generator for all of these checkpoints.

    requested: `transformers`, `vllm` or `auto`, which goes back to transformers where vLLM's canaries fail. Raises InputError
    where vLLM is requested and is not there, or cannot take one of the checkpoints.
    """
    transformers = TransformersGenerator(recorder)
    if backend_for(requested, recorder.pool.device, vllm_args, checkpoints) == TransformersGenerator.name:
        return transformers
    vllm = VllmGenerator(recorder, vllm_args)
    return FallingBack(vllm, transformers, recorder.warnings) if requested == AUTO else vllm


def backend_for(requested: str, device: str, vllm_args: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> str:
    """Its name, before anything is loaded; with no checkpoints, what can be said before they are read.

    `auto` takes vLLM where it is installed, on one GPU, for checkpoints of PAYS weights or more in plain safetensors, of
    architectures that it lists. Over several GPUs vLLM has to be requested: it splits every layer, which not every number of
    GPUs can, and leaves none to the CPU.
    """
    require_free(vllm_args)
    if requested == TransformersGenerator.name and vllm_args:
        raise InputError("--mechdrift-vllm-args for transformers", "vllm or auto", "leave it out, or choose another generator")
    if requested == VllmGenerator.name:
        require_able(device, checkpoints)
    if requested != AUTO:
        return requested
    pays = _pays(device, checkpoints) and not _unlisted(checkpoints)
    return VllmGenerator.name if pays else TransformersGenerator.name


def note_on(requested: str, device: str, checkpoints: Sequence[Checkpoint]) -> str:
    """Why `auto` takes transformers where vLLM would pay; empty where it does not."""
    if requested != AUTO or not _pays(device, checkpoints) or not (unlisted := _unlisted(checkpoints)):
        return ""
    point = unlisted[0]
    return f"{point.spec}: vLLM has no {architecture_of(point)}: replies by transformers, slower"


def _pays(device: str, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether vLLM would be faster, whatever the architecture."""
    suited = all(point.parameters >= PAYS and not (point.adapter or point.gguf or point.quantised) for point in checkpoints)
    return installed() and device.startswith("cuda") and suited


def _unlisted(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those of an architecture that vLLM does not list."""
    return [point for point in checkpoints if not is_registered(architecture_of(point))]
