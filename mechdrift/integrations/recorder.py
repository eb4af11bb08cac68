"""Records a training stage as transformers' Trainer, or TRL's, trains it, so that its part in a drift can be attributed later."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from mechdrift.errors import InputError
from mechdrift.stages.log_writer import LogWriter
from mechdrift.stages.losses import CAUSAL_LM, DPO, completion_logps, loss_named

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger("mechdrift")
OF_MODEL = ("Trainer", "SFTTrainer")  # whose loss is the model's own
OF_PAIRS = "DPOTrainer"


class StageRecorder(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Writes what every step was given, the learning rates, and the optimizer's state at both ends.

    `trainer.add_callback(StageRecorder(trainer, "runs/sft/log"))`; see docs/training.md.
    """

    def __init__(self, trainer: "Trainer", folder: str | Path, loss: str | None = None) -> None:
        """folder: of the log, one without a log yet. loss: its name in mechdrift.losses; None: the next token's cross entropy.

        Raises InputError for a loss that cannot be replayed.
        """
        if loss is not None:
            loss_named(loss)
        self._loss, self._loss_settings = (loss, {}) if loss is not None else _loss_of(trainer)
        self._trainer, self._folder = trainer, Path(folder)
        self._compute_loss: Callable[..., Any] = trainer.compute_loss
        self._writer: LogWriter | None = None

    def on_train_begin(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Begin the log, or go on with it where training does. Raises InputError, also for weights spread over processes."""
        kind = self._trainer.accelerator.distributed_type.value
        if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
            raise InputError(f"training spread over processes by {kind}", "whole weights in each", "leave StageRecorder out")
        optimizer = given["optimizer"]
        while hasattr(optimizer, "optimizer"):  # as accelerate wraps it
            optimizer = optimizer.optimizer
        try:
            self._writer = LogWriter(
                self._folder,
                self._trainer.accelerator.unwrap_model(given["model"]),
                optimizer,
                loss=self._loss,
                loss_settings=self._loss_settings,
                clip=args.max_grad_norm or None,
                rank=args.process_index,
                processes=args.world_size,
                done=state.global_step,
            )
        except OSError as error:
            self._give_up(error)
        self._trainer.compute_loss = self._recorded

    def _recorded(self, model: Any, inputs: dict[str, Any], *more: Any, **given: Any) -> Any:
        """What the trainer's own gives; evaluation is not recorded."""
        if self._writer is not None and model.training:
            items = given.get("num_items_in_batch") if self._trainer.model_accepts_loss_kwargs else None
            more_inputs = self._reference(inputs) if self._loss == DPO else {}
            self._writer.forward({**inputs, **more_inputs}, None if items is None else float(items))
        return self._compute_loss(model, inputs, *more, **given)

    def _reference(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What the reference gives to the completions, where the data do not have it."""
        import torch

        if "ref_chosen_logps" in inputs:
            return {}
        with torch.no_grad():
            logits = self._trainer.ref_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits
            each, _ = completion_logps(logits, inputs["input_ids"], inputs["completion_mask"])
        return dict(zip(("ref_chosen_logps", "ref_rejected_logps"), each.sum(1).chunk(2), strict=True))

    def on_pre_optimizer_step(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any
    ) -> None:
        """Write a step."""
        self._keep(LogWriter.step)

    def on_train_end(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """End the log."""
        self._trainer.compute_loss = self._compute_loss
        self._keep(LogWriter.end)
        self._writer = None

    def _keep(self, write: Callable[[LogWriter], None]) -> None:
        """Where the disk does not take it, training goes on without a log."""
        if self._writer is not None:
            try:
                write(self._writer)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("mechdrift: %s: %s; the rest of this stage is not recorded", self._folder, error.strerror or error)
        self._writer = None


def _loss_of(trainer: Any) -> tuple[str, dict[str, float]]:
    """Name and settings of a trainer's loss. Raises InputError for one that no replay knows."""
    own = next(kind.__name__ for kind in type(trainer).__mro__ if "compute_loss" in vars(kind))
    if own in OF_MODEL and trainer.label_smoother is None and trainer.compute_loss_func is None:
        return CAUSAL_LM, {}
    if own == OF_PAIRS:
        beyond = {
            "f_divergence_type": trainer.f_divergence_type != "reverse_kl",
            "ld_alpha": trainer.ld_alpha is not None,
            "use_weighting": trainer.use_weighting,
            "no reference model": trainer.ref_model is None and not trainer.precompute_ref_logps,
        } | {f"loss_type {kind}": kind not in ("sigmoid", "sft") for kind in trainer.loss_types}
        if not any(beyond.values()):
            weights = dict.fromkeys(("sigmoid", "sft"), 0.0) | dict(zip(trainer.loss_types, trainer.loss_weights, strict=True))
            return DPO, {"beta": float(trainer.beta), **weights}
        own += f" with {', '.join(name for name, given in beyond.items() if given)}"
    raise InputError(
        f"{own} has a loss of its own", "loss=NAME, of the entry-point group mechdrift.losses", "see docs/training.md"
    )
