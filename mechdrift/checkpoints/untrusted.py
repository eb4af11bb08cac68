"""A checkpoint's settings may not reach beyond its checked files: no code of its own is run, no other weights are read."""

import json
from pathlib import Path

from mechdrift.errors import InputError


def refuse_what_points_elsewhere(spec: str, folder: Path) -> None:
    """Raise InputError where config.json or tokenizer_config.json asks for code, or names weights beside the usual ones."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{spec}: {name} is not JSON ({error})", "JSON", "save the checkpoint again") from error
        if code := settings.get("auto_map"):
            raise InputError(
                f"{spec}: {name} asks for code of its own (auto_map: {', '.join(code)})",
                "a model that transformers knows by itself: no code of a checkpoint is run",
                "if transformers has the same class, delete auto_map from a copy of the checkpoint",
            )
        if weights := settings.get("transformers_weights"):
            raise InputError(
                f"{spec}: {name} names weights of its own ({weights!r})",
                "model.safetensors or its index",
                "rename the file, and delete transformers_weights",
            )
