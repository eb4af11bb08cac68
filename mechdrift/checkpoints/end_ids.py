"""Ids of the tokens that end a reply, as files name them: held to be tokens of the model before any weight is read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.untrusted import read_json
from mechdrift.errors import InputError

GENERATION = "generation_config.json"


def check_end_ids(spec: str, folder: Path, config: dict[str, Any]) -> None:
    """Raise InputError where generation_config.json is broken, or it or config.json names an end that is no token.

    config: the content of config.json; as far as that does not say how large the vocabulary is, any id may be one.
    """
    sections = [config, *(section for section in config.values() if isinstance(section, dict))]
    sizes = [size for section in sections if isinstance(size := section.get("vocab_size"), int)]
    vocabulary = max(sizes, default=None)
    generation_ends(spec, folder, vocabulary)
    for section in sections:
        ids_of(spec, "config.json", section.get("eos_token_id"), vocabulary)


def generation_ends(spec: str, folder: Path, vocabulary: int | None) -> list[int]:
    """What generation_config.json says ends a reply; nothing where it says nothing. Raises InputError for a broken one."""
    path = folder / GENERATION
    if not path.is_file():
        return []
    try:
        settings = read_json(path)
    except ValueError as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(f"{spec}: {GENERATION} is not JSON ({found})", "JSON", "copy it again, or delete it") from error
    if not isinstance(settings, dict):
        raise InputError(f"{spec}: {GENERATION} is no JSON object", "settings by name", "copy it again, or delete it")
    return ids_of(spec, GENERATION, settings.get("eos_token_id"), vocabulary)


def ids_of(spec: str, file: str, written: Any, vocabulary: int | None) -> list[int]:
    """The ids of an eos_token_id, which may be one or a list; none for null. Raises InputError for what is no token."""
    if written is None:
        return []
    ids = written if isinstance(written, list | tuple) else [written]
    found = "is empty" if not ids else wrong_id(ids, vocabulary)
    if found:
        raise InputError(
            f"{spec}: {file}: eos_token_id {found}",
            "ids of tokens" if vocabulary is None else f"ids of tokens, 0 to {vocabulary - 1}",
            "name the token that ends a reply, or delete the key",
        )
    return list(ids)


def wrong_id(ids: Iterable[Any], vocabulary: int | None) -> str:
    """What is wrong with the first id that is no token; empty where all are."""
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, int):
            return f"holds {str(one)[:40]!r}, no whole number"
        if one < 0:
            return f"holds {str(one)[:20]}, which is below 0"
        if vocabulary is not None and one >= vocabulary:
            return f"holds {str(one)[:20]}, and the vocabulary has {vocabulary:,} tokens"
    return ""
