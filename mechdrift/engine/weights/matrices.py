"""The matrices of a checkpoint, one at a time out of its files: which tensor is which, in every family."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mechdrift.checkpoints.config import load_config, of_block
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import tensors, weight_files
from mechdrift.engine.weights.adapted import Adapted
from mechdrift.engine.weights.rounded import Rounded
from mechdrift.errors import Unmeasurable
from mechdrift.models.families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig


# How families name the weights of a block; of a model that reads more than text those of the decoder inside.
_DECODERS = (
    "model.language_model.",
    "language_model.model.",
    "model.decoder.",
    "model.",
    "transformer.",
    "gpt_neox.",
    "backbone.",
)
BLOCK = re.compile(rf"(?:{'|'.join(map(re.escape, _DECODERS))})?(?:layers|h)\.(\d+)\.")


class Heads(NamedTuple):
    """How attention is cut into heads."""

    queries: int
    keys: int
    """Also of values: fewer than queries where those are grouped."""
    size: int
    """Rows of one head."""

    def inner(self, kind: str) -> int | None:
        """Rows, or columns, that a kind's matrix has for its heads; None for an MLP's."""
        counts = {"q": self.queries, "k": self.keys, "v": self.keys, "o": self.queries}
        return counts[kind] * self.size if kind in counts else None


Split = Callable[["Tensor", Heads], "Tensor"]


class Place(NamedTuple):
    """Where a matrix lies in a block."""

    module: str
    """As transformers calls it."""
    split: Split
    """Makes [out, in] of the module's weight."""


def _whole(weight: "Tensor", _heads: Heads) -> "Tensor":
    return weight


def _transposed(weight: "Tensor", _heads: Heads) -> "Tensor":
    return weight.mT  # a Conv1D is [in, out]


def _third(weight: "Tensor", _heads: Heads, number: int) -> "Tensor":
    """Queries, keys and values, one after another in a Conv1D."""
    return weight.mT.chunk(3)[number]


def _half(weight: "Tensor", _heads: Heads, number: int) -> "Tensor":
    """The gate, then up."""
    return weight.chunk(2)[number]


def _stacked(weight: "Tensor", heads: Heads, number: int) -> "Tensor":
    """The heads of queries, then those of keys, then those of values."""
    counts = (heads.queries, heads.keys, heads.keys)
    return weight.split([count * heads.size for count in counts])[number]


def _interleaved(weight: "Tensor", heads: Heads, number: int) -> "Tensor":
    """Head by head its query, its key and its value."""
    return weight.reshape(heads.queries, 3, heads.size, -1)[:, number].flatten(0, 1)


QKV = ("q", "k", "v")
ATTENTION = {kind: Place(f"self_attn.{kind}_proj", _whole) for kind in (*QKV, "o")}
MLP = {kind: Place(f"mlp.{kind}_proj", _whole) for kind in ("gate", "up", "down")}
LLAMA = ATTENTION | MLP
LAYOUTS: dict[str, dict[str, Place]] = dict.fromkeys(FAMILIES, LLAMA) | {
    "gpt2": {kind: Place("attn.c_attn", partial(_third, number=number)) for number, kind in enumerate(QKV)}
    | {
        "o": Place("attn.c_proj", _transposed),
        "up": Place("mlp.c_fc", _transposed),
        "down": Place("mlp.c_proj", _transposed),
    },
    "gpt_neox": {
        kind: Place("attention.query_key_value", partial(_interleaved, number=number)) for number, kind in enumerate(QKV)
    }
    | {
        "o": Place("attention.dense", _whole),
        "up": Place("mlp.dense_h_to_4h", _whole),
        "down": Place("mlp.dense_4h_to_h", _whole),
    },
    "phi3": LLAMA
    | {kind: Place("self_attn.qkv_proj", partial(_stacked, number=number)) for number, kind in enumerate(QKV)}
    | {kind: Place("mlp.gate_up_proj", partial(_half, number=number)) for number, kind in enumerate(("gate", "up"))},
}
"""By model_type and kind of matrix. Of other families those matrices that have these names, and the shapes that go with them."""


# Of other families, by what the public layouts call them; `_require_shape` then looks whether that is what they are.
_IN_ATTENTION, _IN_MLP = r"(self_attn|self_attention|attention|attn|attn\.attention)\.", r"((mlp|ffn|feed_forward)\.)?"
PATTERNS = {kind: rf"{_IN_ATTENTION}{kind}_proj" for kind in QKV} | {
    "o": rf"{_IN_ATTENTION}(o_proj|out_proj|dense)",
    "gate": rf"{_IN_MLP}gate_proj",
    "up": rf"{_IN_MLP}(up_proj|fc1|c_fc|fc_in|dense_h_to_4h)",
    "down": rf"{_IN_MLP}(down_proj|fc2|c_proj|fc_out|dense_4h_to_h)",
}


def _by_name(tensors: set[str]) -> dict[str, Place]:
    """The kinds of which blocks have a matrix of one of the usual names."""
    modules = sorted(name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))
    found = {kind: [name for name in modules if re.fullmatch(pattern, name)] for kind, pattern in PATTERNS.items()}
    return {kind: Place(names[0], _whole) for kind, names in found.items() if len(names) == 1}


@dataclass(frozen=True)
class Matrix:
    """One matrix as a checkpoint has it."""

    weight: "Tensor"
    """[out, in], in the precision of its file; float32 where an adapter is merged into it, or where it was dequantised."""
    name: str
    """Spec, file and tensor, for messages."""


def _heads(config: "PreTrainedConfig", block: int, width: int) -> Heads:
    """Of one block; state-space models have none."""
    queries = int(of_block(config, "num_attention_heads", block) or 1)
    keys = int(of_block(config, "num_key_value_heads", block) or queries)
    return Heads(queries, keys, int(of_block(config, "head_dim", block) or width // queries))


def _read(path: Path, tensor: str) -> "Tensor":
    """One tensor of a file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(tensor)


class Matrices:
    """The matrices of one checkpoint, read when they are requested; nothing is kept."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Look at the headers of the files. Raises Unmeasurable where they cannot be read, and for a family that is not known."""
        spec, family = checkpoint.spec, checkpoint.model_type
        if checkpoint.gguf:
            raise Unmeasurable(f"{spec} is a GGUF file: weights are read from safetensors; compare its original")
        self._rounded = Rounded(checkpoint) if checkpoint.quantised else None
        config = load_config(checkpoint).get_text_config(decoder=True)
        family = str(config.model_type) if family not in LAYOUTS else family
        self._spec, self._family, self._width = spec, family, checkpoint.width
        self._heads = [_heads(config, block, checkpoint.width) for block in range(checkpoint.layers)]
        self._files: dict[tuple[int, str], tuple[Path, str]] = {}
        for path in weight_files(spec, checkpoint.folder):
            for tensor in tensors(path):
                if block := BLOCK.match(tensor.name):
                    self._files[int(block[1]), tensor.name[block.end() :]] = path, tensor.name
        named = {name.removesuffix("_packed") for _, name in self._files}
        self._layout = LAYOUTS.get(family) or _by_name(named)
        if self._rounded is not None and family == "gpt2":  # some methods turn its matrices as they round them, and some do not
            raise Unmeasurable(
                f"{spec}: rounded matrices of a gpt2 are not read: their inputs may come first; compare its original"
            )
        if not self._layout:
            raise Unmeasurable(f"{spec}: family {family!r}: no matrix of its blocks has a name that is known, as mlp.up_proj")
        self._adapted = Adapted(checkpoint) if checkpoint.adapter else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of matrices that the family has."""
        return tuple(self._layout)

    def side(self, kind: str) -> int:
        """The smaller side of a kind's matrices by the config; of an MLP's, whose inner width is larger, the model's width."""
        inner = max((heads.inner(kind) or self._width for heads in self._heads), default=self._width)
        return min(self._width, inner)

    def read(self, layer: int, kind: str) -> Matrix:
        """A matrix. Raises Unmeasurable, naming file and tensor, where there is none or it has no direction."""
        if (place := self._layout.get(kind)) is None:
            raise Unmeasurable(f"{self._spec}: family {self._family!r} has no {kind} matrix")
        weights = [f"{place.module}.weight", f"{place.module}.weight_packed"]
        stored = next((self._files[layer, name] for name in weights if (layer, name) in self._files), None)
        if stored is None:
            if self._family in FAMILIES and FAMILIES[self._family].experts:
                raise Unmeasurable(
                    f"{self._spec}: block {layer} is a mixture of experts: of one {kind} matrix there is no definition"
                )
            raise Unmeasurable(f"{self._spec}: block {layer} has no {place.module}.weight in its files")
        path, tensor = stored
        if self._rounded is None:
            weight = _read(path, tensor)
        else:
            weight = self._rounded.weight(tensor.rpartition(".")[0], self._parts(layer, place.module))
        if self._adapted is not None:
            weight = self._adapted.merged(layer, place.module, weight)
        name = f"{self._spec}, {path.name}, {tensor}" + (f" ({kind})" if place.split is not _whole else "")
        weight = place.split(weight, self._heads[layer])
        if self._family not in LAYOUTS:
            self._require_shape(name, kind, self._heads[layer].inner(kind), tuple(weight.shape))
        if not weight.isfinite().all():  # the files' weights are, but an adapter's change may not be
            raise Unmeasurable(f"{name}: NaN or infinite")
        if not weight.any():
            raise Unmeasurable(f"{name}: all zeros")
        return Matrix(weight, name)

    def _parts(self, layer: int, module: str) -> dict[str, "Tensor"]:
        """All tensors of a module, by their names within it, whichever shard each is in."""
        start = f"{module}."
        found = {
            name.removeprefix(start): at for (block, name), at in self._files.items() if block == layer and name.startswith(start)
        }
        return {name: _read(*at) for name, at in found.items()}

    def _require_shape(self, name: str, kind: str, inner: int | None, shape: tuple[int, ...]) -> None:
        """Raise Unmeasurable where a matrix of a family that is not listed holds something else, or more, under a usual name."""
        turned = kind in ("o", "down")  # from the inside to the stream
        expected = (self._width, inner) if turned else (inner, self._width)
        if len(shape) != 2 or any(side not in (None, got) for side, got in zip(expected, shape, strict=True)):
            words = " x ".join("any" if side is None else str(side) for side in expected)
            raise Unmeasurable(f"{name}: {' x '.join(map(str, shape))}, not the {words} of a {kind} matrix alone")
