"""Writes the log of a training stage while it trains: any loop's, and transformers' Trainer's by mechdrift.integrations."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError
from mechdrift.files import write_whole
from mechdrift.stages.losses import CAUSAL_LM
from mechdrift.stages.training_log import BATCHES, BEGIN, END, HEADER, ITEMS, TERMS, VERSION, batch_name, weights_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BEYOND = ("amsgrad", "dampening", "maximize", "nesterov")  # of which no tangent is known here


class LogWriter:
    """One stage, from its first step to its last.

    `forward(inputs)` for each forward of a step, `step()` before the optimizer steps, `end()` when all is done. Where several
    processes train together, each has one, and each its rank.
    """

    def __init__(
        self,
        folder: str | Path,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        loss: str = CAUSAL_LM,
        loss_settings: Mapping[str, float] | None = None,
        clip: float | None = None,
        rank: int = 0,
        processes: int = 1,
        done: int = 0,
    ) -> None:
        """Write what is known when training begins.

        loss: its name and settings, as in mechdrift.stages.losses; clip: the gradients' norm. done: of a stage that was cut off
        and goes on, the steps that its checkpoint has; the log goes on after them. Raises InputError where there is a log
        already, or none that goes on; OSError.
        """
        self.folder = Path(folder)
        self._model, self._optimizer, self._rank = model, optimizer, rank
        self._forwards: list[dict[str, Tensor]] = []
        self._lines = self.folder / f"steps-{rank}.jsonl"
        if done:
            self._go_on(done)
            return
        if self._lines.exists():
            raise InputError(f"{self.folder}: there is a log already", "a folder without one", "name another, or remove it")
        (self.folder / BATCHES).mkdir(parents=True, exist_ok=True)
        kept = self._state()
        self._before = self._number = max((int(value) for name, value in kept.items() if name.startswith("step/")), default=0)
        self._lines.touch()
        if rank == 0:
            if kept:
                self._save(kept, BEGIN)
            self._header: dict[str, Any] = {
                "version": VERSION,
                "loss": loss,
                "loss_settings": dict(loss_settings or {}),
                "clip": clip,
                "processes": processes,
                "optimizer": self._to_dict(),
                "begin": {"weights": weights_digest(model.named_parameters()), "resumed": bool(kept)},
                "end": None,
            }
            self._write_header()

    def _go_on(self, done: int) -> None:
        """After so many steps: later ones, of after the checkpoint, will be taken again."""
        try:
            lines = self._lines.read_text(encoding="utf-8").splitlines(keepends=True)
            self._header = json.loads((self.folder / HEADER).read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise InputError(
                f"{self.folder}: no log of the {done} steps so far", "the log that goes on", "leave it out"
            ) from error
        if self._header["end"] is not None or len(lines) < done:
            found = "a log that has ended" if self._header["end"] is not None else f"a log of {len(lines)} steps"
            raise InputError(f"{self.folder}: {found}", f"one of the {done} steps so far", "name another folder")
        self._lines.write_text("".join(lines[:done]), encoding="utf-8")
        self._number = int(json.loads(lines[done - 1])["step"])
        self._before = self._number - done

    def forward(self, inputs: "Mapping[str, Any]", items: float | None = None) -> None:
        """Keep the tensors that the model is given. items: over how many the loss of the whole step is a mean."""
        import torch

        kept = {name: value.detach().cpu().contiguous() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        if items is not None:
            kept[ITEMS] = torch.tensor(float(items), dtype=torch.float64)
        self._forwards.append(kept)

    def step(self) -> None:
        """Write the forwards since the last step, and the learning rate with which the optimizer is about to step. OSError."""
        self._number += 1
        path = self.folder / BATCHES / batch_name(self._number, self._rank)
        tensors = {f"{place}/{name}": value for place, one in enumerate(self._forwards) for name, value in one.items()}
        self._save(tensors, path.relative_to(self.folder))
        self._forwards.clear()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        line = {"step": self._number, "rate": float(self._optimizer.param_groups[0]["lr"]), "batches": digest}
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")

    def end(self) -> None:
        """Write what is known when training has ended. OSError."""
        if self._rank == 0:
            self._save(self._state(), END)
            steps = self._number - self._before
            self._header["end"] = {"weights": weights_digest(self._model.named_parameters()), "steps": steps}
            self._header["optimizer"] = self._to_dict() | {
                "beyond": sorted({*self._to_dict()["beyond"], *self._header["optimizer"]["beyond"]})
            }
            self._write_header()

    def _names(self) -> "dict[int, str]":
        """Of parameters, by identity."""
        return {id(weight): name for name, weight in self._model.named_parameters()}

    def _to_dict(self) -> dict[str, Any]:
        """The optimizer as data; `beyond`: what it does that a plain one does not."""
        names, groups = self._names(), self._optimizer.param_groups
        settings = [{key: group[key] for key in ("lr", "betas", "eps", "momentum") if key in group} for group in groups]
        beyond = [key for key in BEYOND if any(group.get(key) for group in groups)]
        if any(each != settings[0] for each in settings[1:]):
            beyond.append("groups that differ in more than weight decay")
        return {
            "name": type(self._optimizer).__name__,
            **{key: value for key, value in settings[0].items() if key != "lr"},
            "beyond": beyond,
            "groups": [
                {
                    "weight_decay": float(group.get("weight_decay", 0.0)),
                    "parameters": [names[id(weight)] for weight in group["params"] if id(weight) in names],
                }
                for group in groups
            ],
        }

    def _state(self) -> "dict[str, Tensor]":
        """What the optimizer keeps: `TERM/PARAMETER`, of the terms that a replay knows, and the number of steps."""
        import torch

        names = self._names()
        return {
            f"{term}/{names[id(weight)]}": torch.as_tensor(value).detach().cpu().contiguous()
            for weight, terms in self._optimizer.state.items()
            if id(weight) in names
            for term, value in terms.items()
            if value is not None and term in (*TERMS, "step")
        }

    def _save(self, tensors: "Mapping[str, Tensor]", name: str | Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file({key: value.clone() for key, value in tensors.items()}, self.folder / name)
        except SafetensorError as error:
            raise OSError(0, str(error), str(self.folder / name)) from error

    def _write_header(self) -> None:
        write_whole(self.folder / HEADER, (json.dumps(self._header, indent=1) + "\n").encode())
