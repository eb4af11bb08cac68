"""pytest-xdist: what the controller tells workers, and what they tell it. Imported only when xdist is there."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints import tokenizer_check
from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.phases import Phase
from mechdrift.run_start import read_prompts

if TYPE_CHECKING:
    from mechdrift.run import ComparingRun

KEY = "mechdrift"


class Workers:
    """xdist's hooks, on controller and worker."""

    def __init__(self, run: "ComparingRun") -> None:
        """Serve one run."""
        self.run = run

    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give every worker its GPU, or one CPU thread, before it starts; what the user set with --tx ...//env:NAME stays."""
        from mechdrift.engine.pool import pick_device

        gpus = visible_gpus() if self.run.settings.device in ("auto", "cuda") else []
        on_cpu = pick_device(self.run.settings.device) == "cpu"
        for number, spec in enumerate(specs):
            spec.env = worker_environment(number, gpus, on_cpu, os.environ) | spec.env
        if 0 < len(gpus) < len(specs):
            named = ", ".join(gpus)
            self.run.warnings.append(f"{len(specs)} workers share GPU {named} in turn; -n {len(gpus)} gives each its own")

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what the controller has read and checked, so that it is done once."""
        points = {name: asdict(point) | {"folder": str(point.folder)} for name, point in self.run.points.items()}
        classifier = self.run.reply_classifier
        node.workerinput[KEY] = {
            "checkpoints": points,
            "absent": self.run.absent,
            "store": str(self.run.store_folder),
            "tokenizers": tokenizer_check.passed(),
            "classifier": classifier and asdict(classifier) | {"folder": str(classifier.folder)},
        }

    def pytest_testnodedown(self, node: Any) -> None:
        """Add up what a worker did; a worker that died says nothing, and its test is reported as crashed."""
        data = getattr(node, "workeroutput", {}).get(KEY, {"work": {}, "phases": {}, "warnings": []})
        for name, amount in data["work"].items():
            self.run.work[name] = self.run.work.get(name, 0) + amount
        for name, phase in data["phases"].items():
            self.run.phases[name] = self.run.phases.get(name, Phase()) + Phase.of(phase)
        self.run.warnings += data["warnings"]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def worker_environment(number: int, gpus: Sequence[str], on_cpu: bool, environment: Mapping[str, str]) -> dict[str, str]:
    """What worker gwN is started with: one GPU, shared in turn where there are fewer; on a CPU one OpenMP thread.

    Threads of several workers would fight over the cores; who has set OMP_NUM_THREADS knows better.
    """
    if on_cpu:
        return {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": "1"}
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def hand_over(run: "ComparingRun") -> None:
    """On a worker: tell the controller what was done."""
    phases = {name: phase.to_dict() for name, phase in run.phases.items()}
    data = {"work": run.work, "phases": phases, "warnings": run.warnings}
    run.config.workeroutput[KEY] = data  # type: ignore[attr-defined]


def take_over(run: "ComparingRun") -> None:
    """On a worker: take the checkpoints and the store from the controller."""
    data = run.config.workerinput[KEY]  # type: ignore[attr-defined]
    run.points = {name: Checkpoint(**point | {"folder": Path(point["folder"])}) for name, point in data["checkpoints"].items()}
    run.absent = data["absent"]
    tokenizer_check.trust(data["tokenizers"])
    run.store_folder = Path(data["store"])
    if classifier := data["classifier"]:
        run.reply_classifier = ReplyClassifier(**classifier | {"folder": Path(classifier["folder"])})
    read_prompts(run)
