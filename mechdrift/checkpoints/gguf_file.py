"""GGUF files: what a file's header says, and whether the file is whole. transformers loads it, dequantised."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUFFIX = ".gguf"
MAGIC = b"GGUF"
EXACT = {"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"}  # types that hold weights as they are


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file by its header."""

    path: Path
    """Where it lies."""
    architecture: str
    """As llama.cpp names it."""
    layers: int
    """Number of blocks."""
    width: int
    """d_model."""
    parameters: int
    """Number of weights."""
    quantised: str
    """Types of the tensors that were rounded into blocks, for example `Q4_K, Q6_K`; empty where none was."""


def is_gguf(spec: str) -> bool:
    """Whether the spec means a GGUF file."""
    return spec.lower().endswith(SUFFIX) and not os.path.isdir(os.path.expanduser(spec))


def read_gguf(spec: str) -> GgufFile:
    """Read the header of a GGUF file and check that all its tensors are there. Raises InputError."""
    path = Path(os.path.expanduser(spec))
    if not path.is_file():
        raise InputError(f"{spec}: no such file", "a GGUF file", "check the path")
    refuse_pointers(spec, [path])
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic != MAGIC:
        raise InputError(f"{spec}: begins with {magic!r}", "a GGUF file, which begins with GGUF", "copy it again")
    if find_spec("gguf") is None:
        raise InputError(f"{spec}: a GGUF file, and gguf is not installed", "gguf", "pip install 'mechdrift[gguf]'")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:  # it trusts every number that the file holds
        raise InputError(
            f"{spec}: {path.stat().st_size:,} bytes long and cut or broken ({' '.join(str(error).split())[:200]})",
            "a whole GGUF file",
            "copy it again",
        ) from error

    def value(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    if (parts := value("split.count") or 1) > 1:
        raise InputError(f"{spec}: one of {parts} parts", "a GGUF file in one piece", "join it: llama-gguf-split --merge")
    architecture = value("general.architecture")
    layers, width = value(f"{architecture}.block_count"), value(f"{architecture}.embedding_length")
    if not layers or not width:
        raise InputError(
            f"{spec}: a GGUF file of architecture {architecture} without sizes", "a language model", "check the file"
        )
    if layers > len(reader.tensors):
        raise InputError(
            f"{spec}: claims {layers:,} blocks, and has {len(reader.tensors):,} tensors", "a whole GGUF file", "copy it again"
        )
    rounded = {tensor.tensor_type.name for tensor in reader.tensors} - EXACT
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    return GgufFile(path, str(architecture), int(layers), int(width), parameters, ", ".join(sorted(rounded)))


def dropped(path: Path, model: "PreTrainedModel") -> set[str]:
    """Names of a file's tensors that transformers left out without a word: its older reader skips what it cannot map.

    Some families rename as they read, so a name counts only where the file holds just that many weights more than the model.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

    sizes = {tensor.name: int(tensor.n_elements) for tensor in GGUFReader(path).tensors}
    try:
        known = get_gguf_hf_weights_map(model, TensorProcessor())
    except NotImplementedError:  # a family of the newer reader, which reports them itself
        return set()
    unknown = sizes.keys() - known.keys()
    held = {weight.data_ptr(): weight.numel() for weight in model.state_dict().values()}
    surplus = sum(sizes.values()) - sum(held.values())
    return unknown if surplus and surplus == sum(sizes[name] for name in unknown) else set()
