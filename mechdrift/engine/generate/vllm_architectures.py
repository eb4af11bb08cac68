"""Which architectures vLLM has, by the file that lists them.

It is parsed, not imported: that would take seconds in every run, and set up vLLM's logging in the user's process.
"""

import ast
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint

REGISTRY = Path("model_executor") / "models" / "registry.py"
PLUGINS = "vllm.general_plugins"  # vLLM's own register none; others may
GONE = ("_PREVIOUSLY_SUPPORTED_MODELS", "_OOT_SUPPORTED_MODELS")
"""Lists in that file of what vLLM does not have."""


def architecture_of(checkpoint: Checkpoint) -> str:
    """The class that its config names; without one, transformers' for its family. Empty where there is neither."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = getattr(load_config(checkpoint), "architectures", None) or []
    return str(next(iter(named), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(checkpoint.model_type, "")))


def is_registered(architecture: str) -> bool:
    """Whether vLLM lists it. Where the list cannot be read, and where a plugin may add to it, the engine has to say."""
    listed = architectures_in(registry_file())
    foreign = any(not plugin.value.startswith("vllm.") for plugin in entry_points(group=PLUGINS))
    return not listed or architecture in listed or foreign


def may_run(architecture: str) -> bool:
    """Whether vLLM may run it: what it does not list it runs by transformers' own code, where that lets it put attention in."""
    if is_registered(architecture):
        return True
    import transformers

    model: Any = getattr(transformers, architecture, None)
    if not hasattr(model, "is_backend_compatible") or not hasattr(model, "_can_set_attn_implementation"):
        return True
    return bool(model.is_backend_compatible() or model._can_set_attn_implementation())


def registry_file() -> Path | None:
    """Where vLLM lists its architectures; None without vLLM."""
    spec = find_spec("vllm")
    places = getattr(spec, "submodule_search_locations", None) or []
    return next((Path(place) / REGISTRY for place in places if (Path(place) / REGISTRY).is_file()), None)


@cache
def architectures_in(file: Path | None) -> frozenset[str]:
    """Keys of the tables in that file; none where it is not there, or not what it was."""
    try:
        lines = ast.parse(file.read_text(encoding="utf-8")).body if file else []
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    found: set[str] = set()
    for line in lines:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        table = getattr(line, "value", None)
        if (
            isinstance(target, ast.Name)
            and isinstance(table, ast.Dict)
            and target.id.endswith("_MODELS")
            and target.id not in GONE
        ):
            found.update(str(key.value) for key in table.keys if isinstance(key, ast.Constant))
    return frozenset(found)
