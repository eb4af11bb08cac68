"""An index and its shards agree: each tensor in one file, in the file that the index names, and no file beside them."""

import re
from collections.abc import Sequence
from pathlib import Path

from mechdrift.checkpoints.shards import INDEX, SINGLE, read_index, tensors
from mechdrift.errors import InputError

SHARD = re.compile(r"(?P<stem>.+)-\d+-of-\d+\.safetensors")
STEM = SINGLE.removesuffix(".safetensors")


def check_index(spec: str, folder: Path, weights: Sequence[Path]) -> None:
    """Raise InputError where a folder's weight files are not one set. Reads headers only.

    weights: those that are loaded. Another library may load others: of a single file beside shards the one takes the file,
    the other the shards.
    """
    _refuse_strays(spec, folder, weights)
    places: dict[str, str] = {}
    for path in weights:
        for tensor in tensors(path):
            if tensor.name in places:
                raise InputError(
                    f"{spec}: tensor {tensor.name} is in {places[tensor.name]} and in {path.name}",
                    "every tensor in one file",
                    "save the checkpoint again, into an empty folder",
                )
            places[tensor.name] = path.name
    if (folder / INDEX).is_file():
        _compare(spec, read_index(spec, folder), places)


def _refuse_strays(spec: str, folder: Path, weights: Sequence[Path]) -> None:
    """Raise InputError for shards that are not loaded, and for an index of shards beside a single file."""
    names = {path.name for path in weights}
    if (folder / INDEX).is_file() and names != (indexed := set(read_index(spec, folder).values())):
        first = min(indexed - names)
        raise InputError(
            f"{spec}: both {SINGLE} and {INDEX} (of {len(indexed)} files, first {first})",
            "one of the two: libraries differ in which they load",
            "move the stale one away",
        )
    stems = {match["stem"] for name in names if (match := SHARD.fullmatch(name))} | {STEM}
    strays = sorted(
        path.name
        for path in folder.glob("*.safetensors")
        if path.name not in names and (match := SHARD.fullmatch(path.name)) and match["stem"] in stems
    )
    if strays:
        named_by = INDEX if (folder / INDEX).is_file() else f"the checkpoint, which is {SINGLE}"
        raise InputError(
            f"{spec}: {len(strays)} shards that are not of {named_by}, first {strays[0]}",
            "the files of one save",
            "move those of another save away, or restore the index",
        )


def _compare(spec: str, index: dict[str, str], places: dict[str, str]) -> None:
    """Raise InputError at the first tensor that index and shards place differently."""
    wrong = sorted(name for name in index.keys() | places.keys() if index.get(name) != places.get(name))
    if not wrong:
        return
    first = wrong[0]
    if first not in places:
        found = f"{first} is not in {index[first]}"
    elif first not in index:
        found = f"{first} of {places[first]} is not in the index"
    else:
        found = f"{first} is in {places[first]}, not in {index[first]}"
    raise InputError(
        f"{spec}: {INDEX} and shards disagree on {len(wrong)} tensors: {found}",
        "the index that was saved with these shards",
        "copy the checkpoint again",
    )
