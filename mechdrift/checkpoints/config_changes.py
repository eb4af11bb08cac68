"""What differs between the configs of two checkpoints: all of it by name, and apart what decides how far a model can see."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.untrusted import read_json

Part = Literal["window", "rope", "soft_cap"]
PARTS: tuple[Part, ...] = ("window", "rope", "soft_cap")
# Who wrote the file and how it is to be run, not what the model computes.
NO_MATTER = re.compile(r"transformers_version|_name_or_path|architectures|auto_map|use_cache|output_\w+|return_dict|_attn_.*")
WINDOW = re.compile(r"window|layer_types|chunk_size|attention_types|global_attn|local_attention")
# What transformers makes layer_types of, and no more to do with attention than that; or with attention at all.
MADE_INTO_TYPES = re.compile(r"layer_types|use_sliding_window|max_window_layers|_?sliding_window(_pattern)?|attention_chunk_size")
NOT_ATTENTION = re.compile(r"chunk_size_feed_forward")
ROPE = re.compile(r"rope|rotary|alibi|position_embedding_type")
SOFT_CAP = re.compile(
    r"soft_?cap|logits?_(cap|scal)|_multiplier|query_pre_attn_scalar|attn_temperature|floor_scale|attn_scale|scale_attn"
)
POSITIONS = "max_position_embeddings"
FILES = (("", "config.json"), ("generation.", "generation_config.json"))


@dataclass(frozen=True)
class Change:
    """A setting that is not the same in both."""

    key: str
    """As config.json has it, a dot before what is inside; `generation.` before a key of generation_config.json."""
    base: Any
    """JSON data; None where it is not set."""
    post: Any
    """The same in the later one."""

    def __str__(self) -> str:
        """For example `sliding_window: base null, post 32`."""
        return f"{self.key}: base {_short(self.base)}, post {_short(self.post)}"


def config_changes(base: Checkpoint, post: Checkpoint) -> tuple[Change, ...]:
    """Every key whose value differs, as transformers reads the files, so that a default that is written out is no difference.

    Of generation_config.json only the tokens that end a reply: replies are greedy whatever else it says. Raises InputError.
    """
    return _changes(*({**_settings(point), **_ends(point)} for point in (base, post)))


def reach_changes(base: Checkpoint, post: Checkpoint, part: Part) -> tuple[Change, ...]:
    """What differs of one part of what decides how far, and how sharply, attention sees: exact, from the configs alone.

    window: what each block's attention may look back on; rope: how positions are told apart; soft_cap: caps and scales of scores
    and logits. Settings that take no effect do not count: a window that is switched off, a longer context of plain rope.
    """
    return _changes(*(_reach(point)[part] for point in (base, post)))


def _reach(point: Checkpoint) -> dict[Part, dict[str, Any]]:
    settings = _settings(point)
    rope = {key: value for key, value in settings.items() if ROPE.search(key)}
    if any(key.endswith("rope_type") and value != "default" for key, value in rope.items()):
        rope[POSITIONS] = settings.get(POSITIONS)  # by which the other types scale
    return {
        "window": _windows(settings, point.layers),
        "rope": rope,
        "soft_cap": {key: value for key, value in settings.items() if SOFT_CAP.search(key)},
    }


def _windows(settings: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """What each block may look back on, and every other setting of windows."""
    found = {key: value for key, value in settings.items() if WINDOW.search(key) and not NOT_ATTENTION.search(key)}
    if not isinstance(types := settings.get("layer_types"), list):
        return found
    sizes = {"sliding": settings.get("sliding_window"), "chunked": settings.get("attention_chunk_size")}
    rest = {key: value for key, value in found.items() if not MADE_INTO_TYPES.fullmatch(key)}
    for layer, kind in enumerate(types[:layers]):
        rest[f"layer_types.{layer}"] = " ".join([str(kind), *(str(size) for name, size in sizes.items() if name in str(kind))])
    return rest


def _settings(point: Checkpoint) -> dict[str, Any]:
    """All of the config of the text model, flat."""
    flat = _flat(load_config(point).get_text_config(decoder=True).to_dict())
    return {key: value for key, value in flat.items() if not NO_MATTER.fullmatch(key)}


def _ends(point: Checkpoint) -> dict[str, Any]:
    """The tokens that end a reply, by the generation config; nothing where there is none that can be read."""
    try:
        data = read_json(point.folder / "generation_config.json")
    except (OSError, ValueError):
        return {}
    return {"generation.eos_token_id": data.get("eos_token_id")} if isinstance(data, dict) else {}


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value if isinstance(value, list | str | int | float | None) else str(value)
    return flat


def _changes(base: Mapping[str, Any], post: Mapping[str, Any]) -> tuple[Change, ...]:
    keys = sorted(key for key in base.keys() | post.keys() if base.get(key) != post.get(key))
    return tuple(Change(key, base.get(key), post.get(key)) for key in keys)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list) and len(value) > 3:
        return f"{value[0]}, ... ({len(value)})" if len({*map(str, value)}) > 1 else f"{len(value)} x {value[0]}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
