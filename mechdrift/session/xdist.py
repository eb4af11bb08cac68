"""pytest-xdist: what the controller tells workers, and what they tell it. Registered only where xdist is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mechdrift.checkpoints import tokenizer_check
from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.template_choice import TemplateChoice
from mechdrift.engine.generate.judged import JudgeEndpoint
from mechdrift.engine.generate.reply_judge import Agreement
from mechdrift.models.devices import pick_device
from mechdrift.session.inputs import RunInputs
from mechdrift.session.phases import Phase
from mechdrift.session.start import read_prompts
from mechdrift.session.state import State

KEY = "mechdrift"


class Workers:
    """xdist's hooks, on controller and worker."""

    def __init__(self, state: State) -> None:
        """Serve one run."""
        self.state = state

    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give every worker its GPU, or one CPU thread, before it starts; what the user set with --tx ...//env:NAME stays."""
        gpus = visible_gpus() if self.state.settings.device in ("auto", "cuda") else []
        on_cpu = pick_device(self.state.settings.device) == "cpu"
        for number, spec in enumerate(specs):
            spec.env = worker_environment(number, gpus, on_cpu, os.environ) | spec.env
        if 0 < len(gpus) < len(specs):
            named = ", ".join(gpus)
            self.state.warnings.append(f"{len(specs)} workers share GPU {named} in turn; -n {len(gpus)} gives each its own")

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what the controller has read and checked, so that it is done once."""
        points = {name: asdict(point) | {"folder": str(point.folder)} for name, point in self.state.inputs.points.items()}
        classifier, judge = self.state.inputs.reply_classifier, self.state.inputs.judge
        node.workerinput[KEY] = {
            "checkpoints": points,
            "absent": dict(self.state.inputs.absent),
            "store": str(self.state.inputs.store_folder),
            "tokenizers": tokenizer_check.passed(),
            "classifier": classifier and asdict(classifier) | {"folder": str(classifier.folder)},
            "judge": judge and asdict(judge),
            "templates": asdict(self.state.inputs.templates),
        }

    def pytest_testnodedown(self, node: Any) -> None:
        """Add up what a worker did; a worker that died says nothing, and its test is reported as crashed."""
        data = getattr(node, "workeroutput", {}).get(
            KEY, {"work": {}, "phases": {}, "warnings": [], "streams": {}, "agreements": {}}
        )
        for name, amount in data["work"].items():
            self.state.work[name] = self.state.work.get(name, 0) + amount
        for name, phase in data["phases"].items():
            self.state.phases[name] = self.state.phases.get(name, Phase()) + Phase.of(phase)
        self.state.warnings += data["warnings"]
        self.state.streams |= data["streams"]
        self.state.agreements |= {of: Agreement(**one) for of, one in data["agreements"].items()}


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


def hand_over(state: State) -> None:
    """On a worker: tell the controller what was done."""
    phases = {name: phase.to_dict() for name, phase in state.phases.items()}
    data = {"work": state.work, "phases": phases, "warnings": state.warnings, "streams": state.streams}
    data["agreements"] = {of: asdict(one) for of, one in state.agreements.items()}
    state.config.workeroutput[KEY] = data  # type: ignore[attr-defined]


def take_over(state: State) -> RunInputs:
    """On a worker: take the checkpoints and the store from the controller."""
    data = state.config.workerinput[KEY]  # type: ignore[attr-defined]
    tokenizer_check.trust(data["tokenizers"])
    classifier = data["classifier"]
    return RunInputs(
        points={name: Checkpoint(**point | {"folder": Path(point["folder"])}) for name, point in data["checkpoints"].items()},
        prompts=read_prompts(state.request),
        store_folder=Path(data["store"]),
        reply_classifier=classifier and ReplyClassifier(**classifier | {"folder": Path(classifier["folder"])}),
        judge=data["judge"] and JudgeEndpoint(**data["judge"]),
        templates=TemplateChoice(**data["templates"]),
        absent=data["absent"],
        # The controller has them, and writes the record.
        config_changes={},
        lineage_notes=(),
        warnings=(),
    )
