"""Safetensors files seen from outside: which there are, and whether each is as long as its header says."""

import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.checkpoints.untrusted import parse_json, read_json
from mechdrift.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_HEADER = 100_000_000  # the bound of the safetensors format


# Bits of an element, of every dtype of the format.
BITS = (
    {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("U16", "I16", "F16", "BF16"), 16)
    | dict.fromkeys(("U32", "I32", "F32"), 32)
    | dict.fromkeys(("U64", "I64", "F64", "C64"), 64)
)


def weight_files(spec: str, folder: Path) -> tuple[Path, ...]:
    """The weight files of a checkpoint folder: the single one, or those its index names."""
    names = weight_names(spec, folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing == [SINGLE]:
        if any(True for pattern in PICKLES for _ in folder.glob(pattern)):
            raise InputError(
                f"{spec}: weights as pickle only",
                f"{SINGLE}: unpickling runs whatever code the file holds",
                "convert it: model.save_pretrained(folder) of a current transformers writes safetensors",
            )
        if shards := sorted(folder.glob("*-of-*.safetensors")):
            raise InputError(
                f"{spec}: {len(shards)} shards and no {INDEX}, first {shards[0].name}", "their index", "copy the checkpoint again"
            )
        raise InputError(f"{spec}: no weights in it", f"{SINGLE} or {INDEX}", "check the path")
    if missing:
        raise InputError(
            f"{spec}: {len(missing)} of {len(names)} shards missing, first {missing[0]}",
            f"every file that {INDEX} names",
            "copy the checkpoint again",
        )
    return tuple(folder / name for name in names)


def weight_names(spec: str, folder: Path) -> list[str]:
    """Names of the files that hold the weights, there or not. Raises InputError for an index that cannot be followed."""
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        return [SINGLE]
    names = sorted(set(read_index(spec, folder).values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{spec}: {INDEX} points outside the folder ({outside[0]!r})", "plain file names", "do not trust it")
    if not names:
        raise InputError(f"{spec}: {INDEX} names no file", "a weight_map", "copy the checkpoint again")
    return names


def read_index(spec: str, folder: Path) -> dict[str, str]:
    """The file of each tensor, as the index names it. Raises InputError for an index that is none."""
    refuse_pointers(spec, [folder / INDEX])
    try:
        placed = read_json(folder / INDEX)["weight_map"]
        if not all(isinstance(name, str) for name in placed.values()):
            raise TypeError("a file name that is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{spec}: {INDEX} is broken ({type(error).__name__}: {error})", "a weight_map", "copy the checkpoint again"
        ) from error
    return dict(placed)


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
    header = parse_json(raw)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return {"__length__": length} | header


class Tensor(NamedTuple):
    """A tensor as the header of its file describes it."""

    name: str
    dtype: str
    """As safetensors writes it, for example `BF16`."""
    shape: tuple[int, ...]
    begin: int
    """First byte of its data in the file."""
    end: int
    """The byte after its last."""

    @property
    def elements(self) -> int:
        """Their number."""
        return prod(self.shape)


def tensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, in the order in which they lie in it. Raises ValueError where it is not one."""
    header = read_header(path)
    start = 8 + header.pop("__length__")
    header.pop("__metadata__", None)
    try:
        placed = [
            Tensor(name, str(entry["dtype"]), tuple(entry["shape"]), *(start + offset for offset in entry["data_offsets"]))
            for name, entry in header.items()
        ]
        odd = [tensor for tensor in placed if tensor.elements * BITS[tensor.dtype] != 8 * (tensor.end - tensor.begin)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its header is broken: {error!r}") from error
    if odd:
        found = f"{odd[0].elements} elements of {odd[0].dtype} in {odd[0].end - odd[0].begin} bytes"
        raise ValueError(f"tensor {odd[0].name}: {found}")
    placed.sort(key=lambda tensor: (tensor.begin, tensor.end))
    for tensor, before in zip(placed, [start, *(tensor.end for tensor in placed)], strict=False):
        if tensor.begin != before or tensor.end < before:
            raise ValueError(f"tensor {tensor.name} begins at byte {tensor.begin}, not at {before}")
    return placed


def check_shard(spec: str, path: Path) -> None:
    """Raise InputError unless the file is as long as its header says and its tensors lie end to end."""
    refuse_pointers(spec, [path])
    try:
        end = max((tensor.end for tensor in tensors(path)), default=path.stat().st_size)
    except ValueError as error:
        raise InputError(f"{spec}: {path.name} is no safetensors file ({error})", "a whole file", "copy it again") from error
    size = path.stat().st_size
    if size != end:
        found = f"{spec}: {path.name} is {size:,} bytes long"
        raise InputError(found, f"{end:,} as its header says", "copy it again: it was cut or added to")
