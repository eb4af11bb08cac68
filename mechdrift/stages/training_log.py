"""The log of one training stage: what was done to the weights, step by step, so that it can be done again.

A folder with `log.json` (loss, optimizer, digests of the weights at both ends), `steps-RANK.jsonl` (learning rate and digest of
each step's batches), `batches/STEP-RANK.safetensors`, and the optimizer's state at both ends.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError
from mechdrift.stages.embedding import SGD, AdamW, Optimizer

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
HEADER, BATCHES = "log.json", "batches"
BEGIN, END = "optimizer-begin.safetensors", "optimizer-end.safetensors"
ITEMS = "items"
KNOWN = ("AdamW", "SGD")
AGAIN = "record the stage again: docs/training.md"
TERMS = {"exp_avg": "mean", "exp_avg_sq": "square", "momentum_buffer": "momentum"}
"""What torch calls what our optimizers keep."""


@dataclass(frozen=True)
class Step:
    """One step of the optimizer."""

    number: int
    """As the optimizer counts them, from 1; a stage that went on with its optimizer's state counts on."""
    rate: float
    """Learning rate."""
    digests: tuple[str, ...]
    """sha256 of each process's file of batches."""


@dataclass(frozen=True)
class TrainingLog:
    """A stage that was recorded to its end."""

    folder: Path
    loss: str
    """Name of what was made small: one of mechdrift.stages.losses, or of the entry-point group mechdrift.losses."""
    loss_settings: dict[str, float]
    """Its own."""
    optimizer: Optimizer
    """With the weight decay of each parameter that was trained."""
    clip: float | None
    """To which norm gradients were scaled down."""
    steps: tuple[Step, ...]
    before: str
    """Digest of the weights when it began."""
    after: str
    """And when it ended."""
    resumed: bool
    """Whether the optimizer began with the state of an earlier stage."""

    @property
    def digest(self) -> str:
        """Of all that a replay goes by."""
        settings = [
            self.loss,
            self.loss_settings,
            repr(self.optimizer),
            self.clip,
            self.before,
            self.resumed,
            *map(repr, self.steps),
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that the optimizer moved."""
        decay = self.optimizer.weight_decay
        assert not isinstance(decay, float)
        return tuple(decay)

    def batches(self, step: Step) -> "list[tuple[dict[str, Tensor], float | None]]":
        """What the model was given in a step, forward by forward, each with the number of items its loss is a mean over, if told.

        Raises InputError where batches are missing, or others than were recorded.
        """
        found = []
        for rank, digest in enumerate(step.digests):
            path = self.folder / BATCHES / batch_name(step.number, rank)
            try:
                data = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}", f"the batches of step {step.number}", AGAIN) from error
            if hashlib.sha256(data).hexdigest() != digest:
                raise InputError(f"{path}: not what was recorded", f"batches with digest {digest[:12]}", "restore the file")
            found += _split(data)
        return found

    def state(self, file: str) -> "dict[str, dict[str, Tensor]]":
        """What the optimizer kept at an end (BEGIN or END), by term and parameter. Raises InputError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.folder / file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.folder / file}: {error}", "the optimizer's state", AGAIN) from error
        kept: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            term, _, parameter = name.partition("/")
            if term in TERMS:
                kept.setdefault(TERMS[term], {})[parameter] = tensor.float()
        return kept


def batch_name(number: int, rank: int) -> str:
    """Of a process's file of one step."""
    return f"{number:08}-{rank}.safetensors"


def _split(data: bytes) -> "list[tuple[dict[str, Tensor], float | None]]":
    """The forwards of a file: tensors are called PLACE/NAME."""
    from safetensors.torch import load

    forwards: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load(data).items():
        place, _, what = name.partition("/")
        forwards.setdefault(int(place), {})[what] = tensor
    parts = [forwards[place] for place in sorted(forwards)]
    return [(part, float(items) if (items := part.pop(ITEMS, None)) is not None else None) for part in parts]


def weights_digest(named: "Iterable[tuple[str, Tensor]]") -> str:
    """sha256 of weights, rounded to bfloat16: the same for a model in training and for what it saved in float32 or bfloat16."""
    import torch

    found = hashlib.sha256()
    for name, weight in sorted(named, key=lambda one: one[0]):
        rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
        found.update(f"{name}{tuple(weight.shape)}".encode())
        found.update(rounded.view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def read_log(folder: Path) -> TrainingLog:
    """Raises InputError where there is none, it has no end, steps are missing, or its optimizer is not known."""
    header = _json(folder / HEADER)
    try:
        return _read(folder, header)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{folder}: not the log of a stage: {error!r}", f"a log of version {VERSION}", AGAIN) from error


def _read(folder: Path, header: dict[str, Any]) -> TrainingLog:
    if header.get("version") != VERSION:
        raise InputError(f"{folder / HEADER}: version {header.get('version')}", f"{VERSION}", AGAIN)
    if header["end"] is None:
        raise InputError(f"{folder}: a stage without an end", "training that was recorded to its end", AGAIN)
    lines = [list(_lines(folder / f"steps-{rank}.jsonl")) for rank in range(header["processes"])]
    counts = {len(of_rank) for of_rank in lines}
    if counts != {header["end"]["steps"]}:
        raise InputError(f"{folder}: {min(counts)} steps", f"{header['end']['steps']}, as its {HEADER} says", AGAIN)
    steps = tuple(
        Step(at_once[0]["step"], at_once[0]["rate"], tuple(line["batches"] for line in at_once))
        for at_once in zip(*lines, strict=True)
    )
    optimizer = _optimizer(folder, header["optimizer"])
    begin = header["begin"]
    return TrainingLog(
        folder,
        header["loss"],
        header["loss_settings"],
        optimizer,
        header["clip"],
        steps,
        begin["weights"],
        header["end"]["weights"],
        begin["resumed"],
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "the folder of a recorded stage", AGAIN) from error
    except ValueError as error:
        raise InputError(f"{path}: no JSON: {error}", "the log of a stage", AGAIN) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: no JSON object", "the log of a stage", AGAIN)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "the steps of every process", AGAIN) from error
    except ValueError as error:
        raise InputError(f"{path}: a line that is no JSON: {error}", "a step a line", AGAIN) from error


def _optimizer(folder: Path, settings: dict[str, Any]) -> Optimizer:
    """Raises InputError for one whose step has no tangent here."""
    beyond = (
        [settings["name"]]
        if settings["name"] not in KNOWN
        else [f"{settings['name']} with {each}" for each in settings["beyond"]]
    )
    if beyond:
        raise InputError(
            f"{folder}: the optimizer is {', '.join(beyond)}",
            f"{' or '.join(KNOWN)}, plain",
            "use --mechdrift-lineage-by task-vector",
        )
    decay = {name: float(group["weight_decay"]) for group in settings["groups"] for name in group["parameters"]}
    if settings["name"] == "SGD":
        return SGD(momentum=settings["momentum"], weight_decay=decay)
    return AdamW(betas=(settings["betas"][0], settings["betas"][1]), eps=settings["eps"], weight_decay=decay)
