"""What trainers leave behind: folders that hold a checkpoint, but not as a model loads it."""

import re
import shlex
from pathlib import Path

from mechdrift.errors import InputError

STEP = re.compile(r"checkpoint-(\d+)")


def refuse_unmerged(spec: str, folder: Path) -> None:
    """Raise InputError with the command that merges them for weights that a trainer wrote in pieces, one a process.

    Both formats are read through pickles, which we do not open: the user merges what is their own.
    """
    distributed = sorted(path.parent for path in [*folder.glob("*.distcp"), *folder.glob("pytorch_model_fsdp_*/*.distcp")])
    if distributed:
        home = distributed[0].parent if distributed[0] != folder else folder.absolute().parent
        merge = shlex.join(["accelerate", "merge-weights", str(distributed[0]), str(home)])
        raise InputError(
            f"{spec}: FSDP shards, not merged", "model.safetensors", f"run: {merge} (then name {home}, with config and tokenizer)"
        )
    for home in (folder, folder.absolute().parent):
        script = home / "zero_to_fp32.py"
        if script.is_file() and (home != folder or any(folder.glob("global_step*"))):
            merge = shlex.join(["python", str(script), str(home), str(home), "--safe_serialization"])
            raise InputError(
                f"{spec}: DeepSpeed ZeRO shards, not merged",
                "model.safetensors",
                f"run: {merge} (then name {home}, with config and tokenizer)",
            )


def refuse_root(spec: str, folder: Path) -> None:
    """Raise InputError that names the latest checkpoint for the output folder of a trainer that holds no model itself."""
    steps = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := STEP.fullmatch(path.name))]
    if steps:
        latest = Path(spec) / max(steps)[1].name
        raise InputError(
            f"{spec}: a trainer's folder with {len(steps)} checkpoints and no model of its own",
            "one checkpoint",
            f"type {latest}, which is the latest",
        )
