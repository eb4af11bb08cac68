"""Files of strangers: JSON that may be anything, and settings that may not reach beyond the files that are checked."""

import json
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError


def parse_json(text: str | bytes) -> Any:
    """JSON of a stranger's. Raises ValueError, also for brackets nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_json(path: Path) -> Any:
    """A JSON file in UTF-8. Raises ValueError where it is not one."""
    return parse_json(path.read_text(encoding="utf-8"))


def refuse_what_points_elsewhere(spec: str, folder: Path) -> None:
    """Raise InputError where config.json or tokenizer_config.json asks for code, or names weights beside the usual ones."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = read_json(path)
        except ValueError as error:
            raise InputError(f"{spec}: {name} is not JSON ({error})", "JSON", "save the checkpoint again") from error
        if not isinstance(settings, dict):
            raise InputError(f"{spec}: {name} is no JSON object", "settings by name", "save the checkpoint again")
        if code := settings.get("auto_map"):
            classes = ", ".join(code) if isinstance(code, dict) else repr(code)
            raise InputError(
                f"{spec}: {name} asks for code of its own (auto_map: {classes})",
                "a model that transformers knows by itself: no code of a checkpoint is run",
                "if transformers has the same class, delete auto_map from a copy of the checkpoint",
            )
        if weights := settings.get("transformers_weights"):
            raise InputError(
                f"{spec}: {name} names weights of its own ({weights!r})",
                "model.safetensors or its index",
                "rename the file, and delete transformers_weights",
            )
