"""Choices made by hand instead of by rule, to repeat a published procedure: `--mechdrift-hand-set NAME|FILE.toml`."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from mechdrift.errors import InputError
from mechdrift.prompts.pairs import Pairing, Start

HAND_SET = "hand-set"
POSITIONS = ("object_last", "period")
LENGTHS = ("of the steered model", "of the direction's model")
PAIRINGS, STARTS = get_args(Pairing), get_args(Start)


@dataclass(frozen=True)
class HandSet:
    """What is fixed; None leaves a choice to its rule."""

    name: str = ""
    """Of the file; empty where nothing is fixed."""
    truth_layer: int | None = None
    """Block at whose output truth is read."""
    steering_layers: tuple[int, ...] | None = None
    """Blocks to whose outputs the truth direction is added, in order."""
    steering_coefficient: float | None = None
    """Times the length of the mean difference."""
    steering_positions: tuple[str, ...] = POSITIONS
    """Tokens at which it is added."""
    steering_length: str = LENGTHS[0]
    """Whose mean difference gives the length of a transferred direction."""
    knowledge_pairs: Pairing = "entities"
    """How the entities of a table are joined."""
    knowledge_positions: Start = "difference"
    """Where the columns of a knowledge map begin."""
    knowledge_negated: bool = False
    """Whether negated statements are judged too, as kinds of their own."""

    def require_layers(self, layers: int) -> None:
        """Raise InputError for a block that a model of so many blocks does not have."""
        named = [*(self.steering_layers or ()), *([] if self.truth_layer is None else [self.truth_layer])]
        if wrong := [layer for layer in named if not 0 <= layer < layers]:
            raise InputError(f"hand-set {self.name}: block {wrong[0]}", f"0 to {layers - 1} for this model", "fix the file")

    def to_dict(self) -> dict[str, Any] | None:
        """As the record has it; None where nothing is fixed."""
        if not self.name:
            return None
        fixed = {key: value for key, value in vars(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fixed.items()}


def load_hand_set(name: str | None) -> HandSet:
    """A shipped file by name, or one that ends in .toml; the keys are the fields of HandSet. Raises InputError naming the key."""
    if name is None:
        return HandSet()
    shipped = files("mechdrift.suites") / "hand_set"
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise InputError(f"hand-set {name}: no such file", "a TOML file", "check --mechdrift-hand-set")
        raw = Path(name).read_bytes()
    else:
        known = sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir())
        if name not in known:
            raise InputError(f"hand-set {name!r}: unknown", f"one of {', '.join(known)}, or FILE.toml", "check the name")
        raw = (shipped / f"{name}.toml").read_bytes()
    try:
        values = tomllib.loads(raw.decode())
    except ValueError as error:
        raise InputError(f"hand-set {name}: {error}", "TOML", "fix the file") from error
    for key, value in values.items():
        if key not in CHECKS:
            raise InputError(f"hand-set {name}: key {key!r}", f"only {', '.join(CHECKS)}", "fix the file")
        fits, expected = CHECKS[key]
        if not fits(value):
            raise InputError(f"hand-set {name}: {key} = {value!r}", expected, "fix the file")
    fixed: dict[str, Any] = {
        key: tuple(sorted(set(value))) if isinstance(value, list) else value for key, value in values.items()
    }
    return HandSet(name, **fixed)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


# Of each key: what fits, and that in words.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "truth_layer": (lambda value: _is_number(value, int), "a block number"),
    "steering_layers": (
        lambda value: _is_list(value) and all(_is_number(one, int) for one in value),
        "a list of block numbers",
    ),
    "steering_coefficient": (lambda value: _is_number(value, int | float) and value > 0, "a positive number"),
    "steering_positions": (
        lambda value: _is_list(value) and all(one in POSITIONS for one in value),
        f"a list of {' and '.join(POSITIONS)}",
    ),
    "steering_length": (lambda value: value in LENGTHS, f"one of {', '.join(LENGTHS)}"),
    "knowledge_pairs": (lambda value: value in PAIRINGS, f"one of {', '.join(PAIRINGS)}"),
    "knowledge_positions": (lambda value: value in STARTS, f"one of {', '.join(STARTS)}"),
    "knowledge_negated": (lambda value: isinstance(value, bool), "true or false"),
}
