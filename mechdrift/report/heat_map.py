"""A map of blocks and tokens, drawn in characters."""

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

BLANK = "\N{MIDDLE DOT}"
SHADES = {0.1: "\u2591" * 3, 0.3: "\u2592" * 3, 0.5: "\u2593" * 3, 0.7: "\u2588" * 3}  # from which value on


def can_shade(encoding: str | None) -> bool:
    """Whether an output of this encoding has the shades."""
    try:
        "".join([BLANK, *SHADES.values()]).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def legend(shades: bool) -> str:
    """What a cell shows, where 1 is all of it."""
    if not shades:
        return "per cent"
    return f"{BLANK} under {min(SHADES)}" + "".join(f"  {shade} from {start}" for start, shade in SHADES.items())


def heat_map(columns: "Sequence[str]", values: "np.ndarray", shades: bool) -> list[str]:
    """Lines: a head of two, then one a block. values: [layer, column]; a column `part[-2]` stands under its part's name."""
    names = [name.partition("[") for name in columns]
    groups = [(part, list(members)) for part, members in groupby(range(len(names)), key=lambda column: names[column][0])]
    widths = [max(len(part), 4 * len(members) - 1) for part, members in groups]

    def line(head: str, cells: "Sequence[str]") -> str:
        return f"{head:>5}  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    def row(head: str, cells: "Sequence[str]") -> str:
        return line(head, [" ".join(cells[column] for column in members) for _, members in groups])

    lines = [line("block", [part for part, _ in groups]), row("", [f"{end.rstrip(']'):>3}" for *_, end in names])]
    draw = _shade if shades else _per_cent
    return lines + [row(str(layer), [draw(float(value)) for value in of_layer]) for layer, of_layer in enumerate(values)]


def _shade(value: float) -> str:
    reached = [start for start in SHADES if value >= start]
    return SHADES[reached[-1]] if reached else f" {BLANK} "


def _per_cent(value: float) -> str:
    return f"{min(max(100 * value, -99), 999):3.0f}"  # as far as a cell's three characters go
