"""Which backend makes the replies of a run: one for both sides of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Generator
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.vllm_generator import VllmGenerator, installed, require_able, require_free
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError
from mechdrift.models.families import FAMILIES

# Weights from which starting vLLM pays. A start costs about the same whatever the size, and what it saves grows with the size:
# on a CPU organism:instruct takes 18.0 s by vLLM, most of it the start, and 4.3 s by transformers (benchmarks/generate.py).
# Where on a GPU the two meet is an estimate, on the safe side: small models are left to transformers, which needs no start.
PAYS = 10**9


def generator_for(
    recorder: Recorder, requested: str, vllm_args: Mapping[str, Any], checkpoints: Sequence[Checkpoint]
) -> Generator:
    """The one Generator for all of these checkpoints.

    requested: `transformers`, `vllm` or `auto`. Raises InputError where vLLM is requested and is not there, or cannot
    take one of the checkpoints.
    """
    if backend_for(requested, recorder.pool.device, vllm_args, checkpoints) == VllmGenerator.name:
        return VllmGenerator(recorder, vllm_args)
    return TransformersGenerator(recorder)


def backend_for(requested: str, device: str, vllm_args: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> str:
    """Its name, before anything is loaded; with no checkpoints, what can be said before they are read.

    `auto` takes vLLM where it is installed, on one GPU, for checkpoints of PAYS weights or more in plain safetensors. Over
    several GPUs vLLM has to be requested: it splits every layer, which not every number of GPUs can, and leaves none to the CPU.
    """
    require_free(vllm_args)
    if requested == TransformersGenerator.name and vllm_args:
        raise InputError("--mechdrift-vllm-args for transformers", "vllm or auto", "leave it out, or choose another generator")
    if requested == VllmGenerator.name:
        require_able(device, checkpoints)
    if requested != "auto":
        return requested
    suited = all(
        point.parameters >= PAYS and point.model_type in FAMILIES and not (point.adapter or point.gguf or point.quantised)
        for point in checkpoints
    )
    return VllmGenerator.name if installed() and device.startswith("cuda") and suited else TransformersGenerator.name
