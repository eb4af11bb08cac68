"""Short stages of training of tiny checkpoints, by a plain loop that may be recorded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.models.load import load_model
from mechdrift.stages.log_writer import LogWriter

STEPS, RATE = 5, 1e-3


def groups(model: Any) -> list[dict[str, Any]]:
    """Matrices decay, gains do not; the embedding is not trained."""
    named = {name: weight for name, weight in model.named_parameters() if "embed" not in name}
    return [
        {"params": [weight for weight in named.values() if weight.ndim == 2], "weight_decay": 0.1},
        {"params": [weight for weight in named.values() if weight.ndim != 2], "weight_decay": 0.0},
    ]


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda model: torch.optim.AdamW(groups(model), lr=RATE, betas=(0.9, 0.95)),
    "sgd": lambda model: torch.optim.SGD(groups(model), lr=RATE, momentum=0.9),
}


def rows(seed: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Random rows of which the first three tokens are not asked."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 258, (count, 12), generator=drawn)
    labels = ids.clone()
    labels[:, :3] = -100
    return [{"input_ids": one, "labels": other} for one, other in zip(ids, labels, strict=True)]


def by_hand(
    start: Path, out: Path, seed: int, log: Path | None = None, optimizer: str = "adamw", state: Any = None, rate: float = RATE
) -> Any:
    """Train a checkpoint by a plain loop, two forwards a step; gives the optimizer's state."""
    model = load_model(resolve(str(start)), torch.float32, "cpu")
    stepper = OPTIMIZERS[optimizer](model)
    if state is not None:
        stepper.load_state_dict(state)
    writer = LogWriter(log, model, stepper, clip=0.5) if log else None
    data = rows(seed, 8 * STEPS)
    for step in range(STEPS):
        for group in stepper.param_groups:
            group["lr"] = rate * (1 - step / 10)
        for half in range(2):
            chosen = data[8 * step + 4 * half :][:4]
            batch = {name: torch.stack([row[name] for row in chosen]) for name in chosen[0]}
            if writer:
                writer.forward(batch)
            (model(**batch).loss / 2).backward()
        torch.nn.utils.clip_grad_norm_([one for group in stepper.param_groups for one in group["params"]], 0.5)
        if writer:
            writer.step()
        stepper.step()
        model.zero_grad()
    if writer:
        writer.end()
    saved(model, start, out)
    return stepper.state_dict()


def saved(model: Any, start: Path, out: Path) -> None:
    """With what lies beside the weights."""
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(start / name, out / name)
