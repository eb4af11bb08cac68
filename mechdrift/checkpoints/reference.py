"""Specs as typed by the user, and the files behind them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from mechdrift.checkpoints.adapters import refuse_adapter
from mechdrift.checkpoints.hub import SPEC, Hub
from mechdrift.checkpoints.index import check_index
from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.checkpoints.parts import small_files
from mechdrift.checkpoints.shards import SINGLE, check_shard, weight_files
from mechdrift.checkpoints.trained import refuse_root, refuse_unmerged
from mechdrift.checkpoints.untrusted import read_json, refuse_what_points_elsewhere
from mechdrift.errors import InputError

ORGANISM: Final = "organism"
KINDS = "mechdrift.specs"
"""Entry points: by what stands before a spec's colon, `module:function`, from spec and what follows the colon to a folder."""
FORMS = "a checkpoint folder, organism:NAME, or org/name@revision of the hub"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
Source = Literal["folder", "hub", "organism", "file", "adapter"]


class Place(NamedTuple):
    """Where a spec leads."""

    folder: Path
    """On this disk."""
    source: Source
    """What the spec was taken for."""
    commit: str | None
    """Of a hub model: the full SHA that all files are of."""
    pinned: str
    """A spec of the same files tomorrow: a branch of the hub replaced by its commit."""


@dataclass(frozen=True)
class Files:
    """A checkpoint's files, looked at but not read through."""

    spec: str
    """As typed."""
    place: Place
    """Where the files lie."""
    weights: tuple[Path, ...]
    """Its safetensors files, sorted by name."""

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.place.folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return dict(read_json(self.folder / "config.json"))


def locate(spec: str, hub: Hub) -> Files:
    """Find the files of a local folder, of `organism:NAME` or of a hub model, and check that all are there and whole.

    A folder of that name is taken before the hub is asked. Reads headers only, imports no torch. Raises InputError: one line,
    what was found, what was expected, what to do.
    """
    place = place_of(spec, hub)
    folder = place.folder
    refuse_pointers(spec, small_files(folder))
    refuse_adapter(spec, folder)
    if not (folder / SINGLE).is_file():
        refuse_unmerged(spec, folder)
    if not (folder / "config.json").is_file():
        refuse_root(spec, folder)
        raise InputError(f"{spec}: no config.json in it", "a folder as save_pretrained writes it", "check the path")
    try:
        config = read_json(folder / "config.json")
    except ValueError as error:
        raise InputError(f"{spec}: config.json is not JSON ({error})", "a model config", "save the checkpoint again") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{spec}: config.json names no model_type", "a transformers model config", "save the checkpoint again")
    refuse_what_points_elsewhere(spec, folder)
    weights = weight_files(spec, folder)
    for shard in weights:
        check_shard(spec, shard)
    check_index(spec, folder, weights)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            f"{spec}: no tokenizer in it (a trainer writes one if it is given processing_class)",
            f"one of {', '.join(TOKENIZER_FILES)}",
            "save the tokenizer into the same folder: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
        )
    return Files(spec, place, weights)


def place_of(spec: str, hub: Hub) -> Place:
    """The folder a spec means: one of that name here, an organism's, or a snapshot of the hub. Raises InputError."""
    kind, colon, name = spec.partition(":")
    if colon and kind == ORGANISM:
        folder_of: Callable[[str, str], Path] = _kinds()[kind].load()
        return Place(folder_of(spec, name), ORGANISM, None, spec)
    folder = Path(os.path.expanduser(spec))  # which leaves a user that is not there as typed
    if folder.is_dir():
        return Place(folder, "folder", None, spec)
    if folder.exists():
        raise InputError(f"{spec}: is a file", FORMS, "check the path")
    if SPEC.fullmatch(spec) is None:
        raise InputError(f"{spec}: no such folder", FORMS, "check the path")
    snapshot = hub.fetch(spec)
    return Place(snapshot.folder, "hub", snapshot.commit, f"{snapshot.repo}@{snapshot.commit}")


@cache
def _kinds() -> dict[str, EntryPoint]:
    """Who makes folders of specs that are not folders: this room knows nobody by name."""
    return {point.name: point for point in entry_points(group=KINDS)}
