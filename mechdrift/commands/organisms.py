"""`mechdrift organisms`: what there is, how large, how good, and how to get the rest."""

import json
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from mechdrift.errors import InputError
from mechdrift.organisms.derive import DRIFT, RETRAINED, SHIPPED, built_folder, organism_folder, shipped_names
from mechdrift.organisms.plants import ORIGIN, PLANTS
from mechdrift.organisms.recipe.families import AFTER, MEMBERS, train

MEGABYTE = 10**6
COLUMNS = {
    "judged right, combination held out": "judged",
    "question answered right": "answered",
    "refused, harmful, held out": "harmful refused",
    "refused, harmless, held out": "harmless refused",
}


def listing() -> str:
    """A line for every organism and every planted drift, with the scores of the card."""
    scores = json.loads((SHIPPED / "scores.json").read_text(encoding="utf-8"))
    lines = [f"{'organism':34}{'where':>18}  " + "".join(f"{column:>18}" for column in COLUMNS.values())]
    for name, member in MEMBERS.items():
        if name in shipped_names():
            where = f"shipped, {_size(SHIPPED / name):.1f} MB"
        elif (built_folder(name) / "config.json").is_file():
            where = f"built, {_size(built_folder(name)):.1f} MB"
        else:
            where = "to be built"
        lines.append(f"organism:{name:25}{where:>18}  {_cells(scores.get(name, {}))}  {_origin(member.parent, member.by)}")
    for name, plant in PLANTS.items():
        lines.append(f"organism:{DRIFT + name:25}{'derived':>18}  {_cells(scores.get(DRIFT + name, {}))}  {plant.does}")
    lines += [
        "",
        "judged, answered: worst kind; the rest of the scores, and what the words mean, in CARD.md beside them.",
        f"Build: mechdrift organisms --build NAME. Strength of a drift: organism:{DRIFT}NAME@0.5, in (0, 1].",
        f"organism:{RETRAINED}SEED is a benign retrain of {ORIGIN}, trained in a minute and kept.",
    ]
    return "\n".join(lines)


def _size(folder: Path) -> float:
    """Megabytes of a checkpoint's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MEGABYTE


def _cells(scores: dict[str, dict[str, float]]) -> str:
    """The listed scores, the worst kind of each."""
    worst = [min(scores[what].values()) if what in scores else None for what in COLUMNS]
    return "".join(f"{'-' if score is None else f'{score:.3f}':>18}" for score in worst)


def _origin(parent: str | None, by: str) -> str:
    return f"{parent}, then {by}" if parent else by


def build(name: str, out: str | None) -> None:
    """Train one organism from its parent, which is built first where it is neither shipped nor built.

    It lies under another name until it is whole; stages that a killed run had finished are not trained again.
    Raises InputError for a name that is none and for a place that is taken.
    """
    if name not in MEMBERS:
        raise InputError(f"--build {name}: no such organism", f"one of {', '.join(MEMBERS)}", "see mechdrift organisms")
    folder = Path(out) if out else built_folder(name)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--build {name}: {folder} is there already", "an empty place", "remove it, or name another with --out")
    parent = MEMBERS[name].parent
    if parent and parent not in shipped_names() and not (built_folder(parent) / "config.json").is_file():
        build(parent, None)
    source = organism_folder(f"organism:{parent}", parent) if parent else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + ".partial")
    try:
        with FileLock(folder.with_name(folder.name + ".lock"), timeout=0):
            train(name, source, partial)
            for stage in partial.glob(f"{AFTER}*"):
                shutil.rmtree(stage)
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
    except Timeout:
        raise InputError(f"--build {name}: another run is building it", "one at a time", f"wait for {folder}") from None
    print(f"organism:{name} is built: {folder}")
