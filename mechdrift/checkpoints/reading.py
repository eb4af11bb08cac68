"""Weight files read through once: digested, counted and held to be finite in the same pass."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from mechdrift.checkpoints.shards import Tensor, tensors
from mechdrift.errors import InputError

BLOCK = 1 << 24  # bytes in memory at a time; a multiple of every element size, so no element is cut in two
FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


@dataclass(frozen=True)
class Content:
    """What one pass over a weight file gives."""

    sha256: str
    """Of all its bytes, as sha256sum prints it."""
    parameters: int
    """Number of stored elements."""


def read_through(spec: str, path: Path, advance: Callable[[int], None]) -> Content:
    """Read a safetensors file once, in blocks. advance gets the number of bytes of each block.

    Raises InputError at the first tensor with a value that is not finite.
    """
    placed = tensors(path)
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    with path.open("rb", buffering=0) as handle:
        data_starts = placed[0].begin if placed else path.stat().st_size
        for block in _blocks(handle, data_starts, buffer):
            digest.update(block)
        for tensor in placed:
            bad = 0
            for block in _blocks(handle, tensor.end - tensor.begin, buffer):
                digest.update(block)
                bad += _not_finite(block, tensor)
                advance(len(block))
            if bad:
                raise InputError(
                    f"{spec}: {bad:,} of {tensor.elements:,} weights of {tensor.name} are NaN or infinite",
                    "finite weights",
                    "go back to the last sound checkpoint of the run",
                )
    return Content(digest.hexdigest(), sum(tensor.elements for tensor in placed))


def digest_whole(_spec: str, path: Path, advance: Callable[[int], None], parameters: int) -> Content:
    """Read a file of another format once, only to digest it. advance gets the number of bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as handle:
        for block in _blocks(handle, path.stat().st_size, bytearray(BLOCK)):
            digest.update(block)
            advance(len(block))
    return Content(digest.hexdigest(), parameters)


def _blocks(handle: FileIO, length: int, buffer: bytearray) -> Iterator[memoryview]:
    """The next bytes of a file, block by block, each in the same buffer."""
    while length:
        block = memoryview(buffer)[: min(length, len(buffer))]
        filled = 0
        while filled < len(block):
            got = handle.readinto(block[filled:])  # unbuffered: it may give less than is requested
            if not got:
                raise EOFError(f"{handle.name!r} ended {length - filled} bytes early")
            filled += got
        yield block
        length -= len(block)


def _not_finite(block: memoryview, tensor: Tensor) -> int:
    """How many of a block's values are NaN or infinite; none of a dtype that can hold neither."""
    if tensor.dtype not in FLOATS:
        return 0
    import torch

    values = torch.frombuffer(block, dtype=getattr(torch, FLOATS[tensor.dtype]))
    if values.dtype.itemsize == 1:
        values = values.float()  # 8-bit floats have no arithmetic of their own
    # The extremes take NaN and infinity along, at twenty times the speed of asking every value.
    low, high = torch.aminmax(values)
    if bool(low.isfinite()) and bool(high.isfinite()):
        return 0
    return int((~values.isfinite()).sum())
