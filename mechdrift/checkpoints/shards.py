"""Safetensors files seen from outside: which there are, and whether each is as long as its header says."""

import json
import struct
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_HEADER = 100_000_000  # the bound of the safetensors format


def weight_files(spec: str, folder: Path) -> tuple[Path, ...]:
    """The weight files of a checkpoint folder: the single one, or those its index names."""
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{spec}: {INDEX} is broken ({error!r})", "a weight_map", "copy the checkpoint again") from error
        outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if outside:
            raise InputError(f"{spec}: {INDEX} points outside the folder ({outside[0]!r})", "plain file names", "do not trust it")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise InputError(
                f"{spec}: {len(missing)} of {len(names)} shards missing, first {missing[0] if missing else '-'}",
                f"every file that {INDEX} names",
                "copy the checkpoint again",
            )
        return tuple(folder / name for name in names)
    if any(True for pattern in PICKLES for _ in folder.glob(pattern)):
        raise InputError(
            f"{spec}: weights as pickle only",
            f"{SINGLE}: unpickling runs whatever code the file holds",
            "convert it: model.save_pretrained(folder) of a current transformers writes safetensors",
        )
    raise InputError(f"{spec}: no weights in it", f"{SINGLE} or {INDEX}", "check the path")


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises ValueError where it is not one."""
    with path.open("rb") as handle:
        prefix = handle.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{len(prefix)} bytes long")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise ValueError("its first 8 bytes are no header length")
        raw = handle.read(length)
    if len(raw) < length:
        raise ValueError(f"header cut at byte {len(raw)} of {length}")
    header = json.loads(raw)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return {"__length__": length} | header


def check_shard(spec: str, path: Path) -> None:
    """Raise InputError unless the file is as long as its header says."""
    try:
        header = read_header(path)
        length = header.pop("__length__")
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{spec}: {path.name} is no safetensors file ({error})", "a whole file", "copy it again") from error
    size = path.stat().st_size
    if size != end:
        found = f"{spec}: {path.name} is {size:,} bytes long"
        raise InputError(found, f"{end:,} as its header says", "copy it again: it was cut or added to")
