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
    """Raise InputError where config.json or tokenizer_config.json names weights beside the usual ones.

    Code of its own that they name (`auto_map`) is never run: a class that transformers has is taken in its place, and where it
    has none the checkpoint is refused when its config is read.
    """
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
        if (code := settings.get("auto_map")) and not isinstance(code, dict):
            raise InputError(f"{spec}: {name}: auto_map is {code!r}", "classes by name", "save the checkpoint again")
        if weights := settings.get("transformers_weights"):
            raise InputError(
                f"{spec}: {name} names weights of its own ({weights!r})",
                "model.safetensors or its index",
                "rename the file, and delete transformers_weights",
            )
