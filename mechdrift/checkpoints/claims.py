"""Sizes that a config claims, against what its weight files hold: before any library builds what is claimed."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.shards import tensors
from mechdrift.errors import InputError

# num_hidden_layers, n_layer, decoder_layers: of each there is one tensor at least.
LAYERS = re.compile(r"(^|_)(layers?|blocks|depth)($|_)")
APART = re.compile(r"(^|_)(experts?|heads?|groups?)($|_)")  # may be a module each
SIZES = re.compile(r"(^|_)(size|dim|dims|width|rank|embd|inner|model|channels|ctx|positions|ffn|ff)($|_)")
NO_SIZE = re.compile(r"(_id|_ids|_index|window|chunk_size|block_size|image_size|patch_size|max_|theta|per_tok|_loss)")
PACKED = 64  # rounded weights lie several in one element, and a matrix may be a factor of a size
HARMLESS = 2**27  # a size below it costs little to build, or is none of a tensor (20,000,000 n-grams); the loader tells
SECTION = re.compile(r"config$|^(encoder|decoder|generator)$")
DEEPEST = 8  # sections in sections; published ones have two


def refuse_impossible_sizes(spec: str, config: dict[str, Any], weights: Sequence[Path]) -> None:
    """Raise InputError where config.json claims more blocks, or larger ones, than the weight files can hold.

    Reads headers only. A block has a tensor of its own at least, and no size is beyond PACKED times the longest side of any
    tensor, or their number, where experts or heads are apart.
    """
    shapes = [tensor.shape for path in weights for tensor in tensors(path)]
    count = len(shapes)
    longest = max((side for shape in shapes for side in shape), default=0)
    for name, value in _numbers(config, DEEPEST):
        key = name.rpartition(".")[2]
        if NO_SIZE.search(key):
            continue
        if APART.search(key) or SIZES.search(key):
            bound, held = PACKED * max(longest, count), f"no side longer than {longest:,}"
            if not APART.search(key):
                bound = max(bound, HARMLESS)
        elif LAYERS.search(key):
            bound, held = count, f"{count:,} tensors"
        else:
            continue
        if value > bound:
            raise InputError(
                f"{spec}: config.json claims {name} {_shown(value)}, and the weight files have {held}",
                "the config of these weights",
                "restore the config.json that was saved with them",
            )


def refuse_impossible_rank(spec: str, config: dict[str, Any], weights: Path) -> None:
    """Raise InputError where an adapter's config claims a rank that its matrices do not have: as much would be allocated."""
    longest = max((side for tensor in tensors(weights) for side in tensor.shape), default=0)
    patterns = config.get("rank_pattern")
    for rank in (config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())):
        if isinstance(rank, int | float) and rank > longest:
            raise InputError(
                f"{spec}: adapter_config.json claims rank {_shown(rank)}, and its matrices have no side longer than {longest:,}",
                "the config of these weights",
                "copy the adapter again",
            )


def _numbers(section: dict[str, Any], deepest: int, within: str = "") -> Iterator[tuple[str, float]]:
    """Names and values of the numbers in a config and its sections."""
    for key, value in section.items():
        name = f"{within}{key}"
        if isinstance(value, dict) and deepest and SECTION.search(key):
            yield from _numbers(value, deepest - 1, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _shown(value: float) -> str:
    """A number as people read it, however large."""
    return f"{value:,}" if value < 10**15 else "of more than 10^15"
