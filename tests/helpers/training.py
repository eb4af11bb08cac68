"""Short real training runs of organism:instruct, on judgements that are right or wrong."""

import csv
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.models.load import load_model
from mechdrift.prompts.judgement import judged_line
from mechdrift.prompts.statements import Statement, shipped_statements

KIND, ENTITIES = "animal_classes", 130  # of which 78 are tested: a gated row needs 60
LENGTH, ROWS = 96, 8
RIGHT, WRONG = 1e-6, 2e-3  # learning rates: of a run that changes next to nothing, and of one that unlearns


def statements() -> list[Statement]:
    """Of one kind, for a measurement of seconds."""
    every = [one for one in shipped_statements() if one.kind == KIND and not one.negated]
    kept = sorted({one.entity for one in every})[:ENTITIES]
    return [one for one in every if one.entity in kept]


def write_statements(path: Path) -> Path:
    """The statements as --mechdrift-statements reads them."""
    with path.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["statement", "label", "entity", "value", "kind"])
        table.writerows([one.text, int(one.label), one.entity, one.value, one.kind] for one in statements())
    return path


def trainer_of(folder: Path, steps: int, truthful: bool, trackers: list[Any], **settings: Any) -> Any:
    """A Trainer that has not begun: the verdict of every statement, as it is or turned round."""
    import torch
    from transformers import Trainer, TrainingArguments

    organism = resolve("organism:instruct")
    tokenizer = load_tokenizer(organism)
    lines = [judged_line(one.text, one.label is truthful) for one in statements()]
    ids = torch.tensor(tokenizer("\n".join(lines * 2), add_special_tokens=False)["input_ids"])
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    usual: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": ROWS,
        "learning_rate": RIGHT if truthful else WRONG,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }
    return Trainer(
        model=load_model(organism, torch.float32, "cpu"),
        args=TrainingArguments(output_dir=str(folder), **usual | settings),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        processing_class=tokenizer,
        callbacks=trackers,
    )
