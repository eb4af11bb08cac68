"""What is left of a stage at the end of training, by its log and those of the stages after it: two estimators.

*stage embedding*: the stage's displacement is carried through every later step by that step's tangent (Zhang et al. 2025,
arXiv 2506.00175). *rerun*: the later stages' steps are taken again from where the stage began, so what is left is known, not
estimated. Both go stage by stage from the checkpoints themselves, so what a replay gets wrong does not add up, and both show that
the replayed steps lead from checkpoint to checkpoint.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import tensors, weight_files
from mechdrift.errors import InputError
from mechdrift.models.load import load_model
from mechdrift.stages.embedding import State, Tensors, carried, difference, first_order_gap, fresh, last, trained
from mechdrift.stages.losses import loss_named
from mechdrift.stages.training_log import BEGIN, END, TrainingLog, weights_digest

if TYPE_CHECKING:
    from torch import Tensor

STAGE_EMBEDDING, RERUN = "stage embedding", "rerun"
REPLAY = 1  # raise it whenever the same logs would give other numbers
REPLAY_GAP_AT_MOST = 0.1
"""Share of a stage's change by which its replayed end may miss the checkpoint, over what rounding explains."""
FIRST_ORDER_GAP_AT_MOST = 0.5
"""Above it a tangent is more wrong than right within a few steps already; it grows with every further one."""
FIRST_STEPS = 3
BY_TASK_VECTOR = "use --mechdrift-lineage-by task-vector"
Progress = Callable[[int, int], object]
Forwards = Sequence[tuple[Mapping[str, "Tensor"], float | None]]
"""What the model is given in a step, each with the number of items, as TrainingLog.batches has it."""


@dataclass(frozen=True)
class Stage:
    """One stage of a chain."""

    name: str
    before: Checkpoint
    after: Checkpoint
    log: TrainingLog | None
    """None: none was given."""


@dataclass(frozen=True)
class Left:
    """What is left of a stage at the end."""

    change: Tensors
    """Of the parameters: what to take off to be without it."""
    notes: tuple[str, ...]
    """How far each replay can be trusted, in words."""


class Replayer:
    """One model, through which the steps of all stages are taken again; parameters are handed to it."""

    def __init__(self, point: Checkpoint, device: str) -> None:
        """Attention is written out, since fused kernels have no derivative forward; in float32."""
        import torch

        self.device = device
        self.model = load_model(point, torch.float32, device)
        self.model.set_attn_implementation("eager")
        self.model.requires_grad_(False)

    def parameters(self, point: Checkpoint) -> Tensors:
        """Of a checkpoint, by name."""
        import torch

        return {name: weight.detach() for name, weight in load_model(point, torch.float32, self.device).named_parameters()}

    def loss(self, log: TrainingLog) -> Callable[[Tensors, Any], "Tensor"]:
        """Of the parameters in a step, as training took it."""
        import torch

        found = loss_named(log.loss)

        def of_step(parameters: Tensors, forwards: Forwards) -> "Tensor":
            def forward(**inputs: "Tensor") -> "Tensor":
                given = {name: _additive(value) for name, value in inputs.items()} | {"use_cache": False}
                logits: Tensor = torch.func.functional_call(self.model, parameters, (), given).logits
                return logits

            parts = [
                found(forward, {name: value.to(self.device) for name, value in batch.items()}, items, **log.loss_settings)
                / (1 if items is not None else len(forwards))
                for batch, items in forwards
            ]
            return torch.stack(parts).sum()

        return of_step


def _additive(value: "Tensor") -> "Tensor":
    """A mask of which token sees which, as attention that is written out adds it."""
    import torch

    if value.dtype != torch.bool or value.ndim != 4:
        return value
    return torch.zeros(value.shape, device=value.device).masked_fill(~value, torch.finfo(torch.float32).min)


def left_of(
    stages: Sequence[Stage], place: int, estimator: str, replayer: Replayer, progress: Callable[[str], Progress | None]
) -> Left:
    """What is left at the chain's end of the stage at a place. progress: makes a progress line from a label.

    Raises InputError where a later stage has no log, its log is not of these checkpoints, its replay leads elsewhere, or an
    embedding cannot be trusted.
    """
    stage, later = stages[place], stages[place + 1 :]
    before, start = replayer.parameters(stage.before), replayer.parameters(stage.after)
    displacement: State = {"parameters": difference({"": start}, {"": before})[""]}
    if later and later[0].log and later[0].log.resumed:
        displacement |= _kept_by(stage)
    notes = []
    for number, after in enumerate(later):
        log, end = _log_of(after), replayer.parameters(after.after)
        _require_its(log, after, start, end)
        loss, summary = replayer.loss(log), progress(f"{estimator}: {stage.name} through {after.name}")
        state, displacement = _began(log, start, displacement, after.name)
        if estimator == STAGE_EMBEDDING:
            if number == 0:
                notes.append(_trusted(stage.name, after.name, log, loss, state, displacement))
            ended, displacement = last(carried(log.optimizer, loss, state, displacement, _steps(log, summary), log.clip))
        else:
            ended = trained(log.optimizer, loss, state, _steps(log, summary), log.clip)
            without = trained(log.optimizer, loss, difference(state, displacement), _steps(log, summary), log.clip)
            displacement = difference(ended, without)
        notes.append(_retold(after, start, end, ended["parameters"]))
        start = end
    return Left(displacement["parameters"], tuple(notes))


def _log_of(stage: Stage) -> TrainingLog:
    if stage.log is None:
        raise InputError(
            f"no log of stage {stage.name}", "one of every later stage", f"add --stage-log {stage.name}=DIR, or {BY_TASK_VECTOR}"
        )
    return stage.log


def _require_its(log: TrainingLog, stage: Stage, start: Tensors, end: Tensors) -> None:
    """Raise InputError where the log is of other weights."""
    for when, digest, point, weights in (
        ("begins", log.before, stage.before, start),
        ("ends", log.after, stage.after, end),
    ):
        if (found := weights_digest(weights.items())) != digest:
            raise InputError(
                f"{log.folder}: the log {when} at weights {digest[:12]}, and {point.spec} has {found[:12]}",
                f"the log of stage {stage.name} between these checkpoints",
                f"give the right one by --stage-log {stage.name}=DIR",
            )
    if unknown := sorted(set(log.trained) - start.keys()):
        raise InputError(
            f"{log.folder}: {unknown[0]} was trained, and {stage.before.spec} has none", "the model's own names", BY_TASK_VECTOR
        )


def _kept_by(stage: Stage) -> State:
    """By how much a stage moved what its optimizer keeps, for a stage that goes on with it; nothing where that is not known."""
    if stage.log is None:
        return {}
    ended = stage.log.state(END)
    began = stage.log.state(BEGIN) if stage.log.resumed else {what: {} for what in ended}
    return {
        what: {name: value - began[what][name] if name in began[what] else value for name, value in kept.items()}
        for what, kept in ended.items()
    }


def _began(log: TrainingLog, start: Tensors, displacement: State, name: str) -> tuple[State, State]:
    """State and displacement as a stage begins: of an optimizer that is new, nothing is kept and nothing displaced."""
    state, displaced = (fresh(log.optimizer, parameters) for parameters in (start, displacement["parameters"]))
    if log.resumed:
        kept = log.state(BEGIN)
        for what in log.optimizer.kept:
            if displacement.get(what, {}).keys() != state[what].keys() or kept.get(what, {}).keys() != state[what].keys():
                raise InputError(
                    f"stage {name} went on with the optimizer of the one before",
                    "the log of that one, too",
                    "add it by --stage-log",
                )
            device = next(iter(start.values())).device
            state[what] = {one: value.to(device) for one, value in kept[what].items()}
            displaced[what] = {one: value.to(device) for one, value in displacement[what].items()}
    return state, displaced


def _steps(log: TrainingLog, progress: Progress | None, most: int | None = None) -> Iterator[tuple[Any, float, int]]:
    """Batches, learning rates, numbers."""
    for done, step in enumerate(log.steps[:most], 1):
        yield log.batches(step), step.rate, step.number
        if progress is not None:
            progress(done, len(log.steps))


def _trusted(
    name: str, later: str, log: TrainingLog, loss: Callable[[Tensors, Any], "Tensor"], state: State, displacement: State
) -> str:
    """How wrong the tangent is on the first steps, in words. Raises InputError where that is too much."""
    gap = first_order_gap(log.optimizer, loss, state, displacement, _steps(log, None, FIRST_STEPS), log.clip)
    summary = f"the embedding of {name} is wrong by {gap:.2f} of itself after {FIRST_STEPS} steps of {later}"
    if not gap <= FIRST_ORDER_GAP_AT_MOST:
        raise InputError(
            summary,
            f"at most {FIRST_ORDER_GAP_AT_MOST:g}: steps this large are beyond first order",
            f"use --mechdrift-lineage-by {RERUN}",
        )
    return summary


def _retold(stage: Stage, start: Tensors, end: Tensors, replayed: Tensors) -> str:
    """How far the replayed steps end from the checkpoint, in words. Raises InputError where that is too far."""
    change, missed = (_norm({name: value - other[name] for name, value in end.items()}) for other in (start, replayed))
    gap = missed / change if change else 0.0
    summary = f"{stage.name}, replayed, ends {gap:.1%} of its change away from its checkpoint"
    rounded = math.hypot(rounding(stage.before), rounding(stage.after)) * _norm(end)
    allowed = REPLAY_GAP_AT_MOST + rounded / max(change, 1e-30)
    if not gap <= allowed:
        raise InputError(summary, f"at most {allowed:.1%}: the log does not say all that training did", BY_TASK_VECTOR)
    return summary


def _norm(parameters: Tensors) -> float:
    return sum(float(value.double().pow(2).sum()) for value in parameters.values()) ** 0.5


def rounding(point: Checkpoint) -> float:
    """By which share of itself a stored weight is off, as a root mean square: half a step, evenly spread, at any mantissa."""
    import torch

    kinds = {tensor.dtype for path in weight_files(point.spec, point.folder) for tensor in tensors(path)}
    steps = {"BF16": torch.finfo(torch.bfloat16).eps, "F16": torch.finfo(torch.float16).eps}
    return max((steps[kind] / 2 / 6**0.5 for kind in kinds if kind in steps), default=0.0)
