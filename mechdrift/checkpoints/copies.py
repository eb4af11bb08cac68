"""Writes a checkpoint whose weights are another's, changed: all that goes with them is copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

from mechdrift.checkpoints.parts import copy_parts
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import INDEX, weight_files
from mechdrift.errors import InputError
from mechdrift.files import whole


def copied(point: Checkpoint, out: Path, write: Callable[[Path, Path], None], instead: str) -> Path:
    """Write a copy into a folder, whole or not at all, a file of weights at a time; one that is there is kept. Gives the folder.

    write: is given a file of weights and where the changed one goes; may raise OSError. instead: what to do where weights are
    not floats in safetensors. Raises InputError.
    """
    if out.is_dir():
        return out
    if point.adapter or point.gguf or point.quantised:
        kind = "an adapter" if point.adapter else "a GGUF file" if point.gguf else "rounded weights"
        raise InputError(f"{point.spec}: {kind}", "a folder of exact safetensors", instead)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as temporary:
            temporary.mkdir()
            for path in weight_files(point.spec, point.folder):
                write(path, temporary / path.name)
            copy_parts(point.folder, temporary)
            if (point.folder / INDEX).is_file():
                shutil.copyfile(point.folder / INDEX, temporary / INDEX)
    except OSError as error:
        if out.is_dir():  # another run wrote the same meanwhile
            return out
        raise InputError(f"{out}: {error.strerror or error}", "a place to write to", "make room, or name another") from error
    return out
