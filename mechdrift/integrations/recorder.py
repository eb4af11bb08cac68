"""Records a training stage as transformers' Trainer, or TRL's, trains it, so that its part in a drift can be told later."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from mechdrift.errors import InputError
from mechdrift.stages.log_writer import LogWriter
from mechdrift.stages.losses import CAUSAL_LM, loss_named

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger("mechdrift")
OF_MODEL = ("Trainer", "SFTTrainer")  # whose loss is the model's own


class StageRecorder(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Writes what every step was given, the learning rates, and the optimizer's state at both ends.

    `trainer.add_callback(StageRecorder(trainer, "runs/sft/log"))`; see docs/training.md.
    """

    def __init__(self, trainer: "Trainer", folder: str | Path, loss: str | None = None) -> None:
        """folder: of the log, one without a log yet. loss: its name in mechdrift.losses; None: the next token's cross entropy.

        Raises InputError for a loss that cannot be replayed.
        """
        own = next(kind.__name__ for kind in type(trainer).__mro__ if "compute_loss" in vars(kind))
        plain = trainer.label_smoother is None and trainer.compute_loss_func is None
        if loss is None and not (own in OF_MODEL and plain):
            raise InputError(
                f"{type(trainer).__name__} has a loss of its own",
                "loss=NAME, of the entry-point group mechdrift.losses",
                "see docs/training.md",
            )
        loss_named(loss or CAUSAL_LM)
        self._trainer, self._folder, self._loss = trainer, Path(folder), loss or CAUSAL_LM
        self._compute_loss: Callable[..., Any] = trainer.compute_loss
        self._writer: LogWriter | None = None

    def on_train_begin(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Begin the log. Raises InputError where the folder has one, and where weights are spread over processes."""
        kind = self._trainer.accelerator.distributed_type.value
        if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
            raise InputError(f"training spread over processes by {kind}", "whole weights in each", "leave StageRecorder out")
        optimizer = given["optimizer"]
        while hasattr(optimizer, "optimizer"):  # as accelerate wraps it
            optimizer = optimizer.optimizer
        self._writer = self._kept(
            lambda: LogWriter(
                self._folder,
                self._trainer.accelerator.unwrap_model(given["model"]),
                optimizer,
                loss=self._loss,
                clip=args.max_grad_norm or None,
                rank=args.process_index,
                processes=args.world_size,
            )
        )
        self._trainer.compute_loss = self._recorded

    def _recorded(self, model: Any, inputs: dict[str, Any], *more: Any, **given: Any) -> Any:
        """What the trainer's own gives; evaluation is not recorded."""
        if self._writer is not None and model.training:
            items = given.get("num_items_in_batch") if self._trainer.model_accepts_loss_kwargs else None
            self._writer.forward(inputs, None if items is None else float(items))
        return self._compute_loss(model, inputs, *more, **given)

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
        if self._writer is not None:
            self._writer = self._kept(partial(_after, write, self._writer))

    def _kept(self, write: Callable[[], LogWriter]) -> LogWriter | None:
        """The writer that it gives; None, and a warning, where the disk does not take it: training goes on without a log."""
        try:
            return write()
        except OSError as error:
            log.warning("mechdrift: %s: %s; the rest of this stage is not recorded", self._folder, error.strerror or error)
            return None


def _after(write: Callable[[LogWriter], None], writer: LogWriter) -> LogWriter:
    """The writer, when it has written."""
    write(writer)
    return writer
