"""Specs as typed by the user, and the files behind them."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.adapters import refuse_adapter
from mechdrift.checkpoints.shards import check_shard, weight_files
from mechdrift.checkpoints.untrusted import refuse_what_points_elsewhere
from mechdrift.errors import InputError

ORGANISM = "organism:"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Files:
    """A checkpoint's files, looked at but not read through."""

    spec: str
    """As typed."""
    folder: Path
    """Where the files lie."""
    weights: tuple[Path, ...]
    """Its safetensors files, sorted by name."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))


def locate(spec: str) -> Files:
    """Find the files of a local folder or of `organism:NAME` and check that all are there and whole.

    Reads headers only, imports no torch. Raises InputError: one line, what was found, what was expected, what to do.
    """
    folder = folder_of(spec)
    refuse_adapter(spec, folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{spec}: no config.json in it", "a folder as save_pretrained writes it", "check the path")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{spec}: config.json is not JSON ({error})", "a model config", "save the checkpoint again") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{spec}: config.json names no model_type", "a transformers model config", "save the checkpoint again")
    refuse_what_points_elsewhere(spec, folder)
    weights = weight_files(spec, folder)
    for shard in weights:
        check_shard(spec, shard)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            f"{spec}: no tokenizer in it", f"one of {', '.join(TOKENIZER_FILES)}", "save the tokenizer into the same folder"
        )
    return Files(spec, folder, weights)


def folder_of(spec: str) -> Path:
    """The folder a spec means."""
    if spec.startswith(ORGANISM):
        from mechdrift.data.organisms.derive import organism_folder

        return organism_folder(spec, spec.removeprefix(ORGANISM))
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{spec}: {found}", "a local checkpoint folder or organism:NAME", "check the path")
    return folder
