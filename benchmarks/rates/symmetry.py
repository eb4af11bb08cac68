"""Which rows react to a mere change of coordinates, and by how much."""

import json
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError
from mechdrift.organisms.symmetries import SYMMETRIES
from mechdrift.session.many_runs import Run

from .null import NO_SHORT_CUT, ORIGIN
from .tables import Record, read, rows_of, table

PLAIN = "organism:llama-instruct"  # no norms on queries and keys
TOLERANCE = 1e-4  # of a logit, as a share of the largest: float32 matrices rewritten once, weights spread over e^3 either way
LEAST_CHANGE = 1e-3  # of the weights, as a share of their norm
PROMPTS = 40
MOVED = 1e-3  # estimates that differ less from those of the checkpoint against itself are shown as a dot


def _origin(name: str) -> str:
    return ORIGIN if SYMMETRIES[name].norms_on_heads else PLAIN


def _same(origin: str) -> Run:
    return Run(f"same-{origin.removeprefix('organism:')}", origin, origin, (NO_SHORT_CUT,))


def symmetry_runs(folder: Path) -> list[Run]:
    """Both organisms against themselves, then against each of their other forms."""
    changed = [Run(f"symmetric-{name}", _origin(name), str(_copy(folder, name)), (NO_SHORT_CUT,)) for name in SYMMETRIES]
    return [
        _same(ORIGIN),
        *(run for run in changed if run.base == ORIGIN),
        _same(PLAIN),
        *(run for run in changed if run.base == PLAIN),
    ]


def _copy(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / f"symmetric-{name}"


def write_symmetric(folder: Path) -> None:
    """The checkpoints, where they are not there yet, each with its proof. Raises InputError for a change that is no symmetry."""
    import torch

    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.checkpoints.tokenizer import load_tokenizer
    from mechdrift.models.load import load_model
    from mechdrift.organisms.symmetries import proof
    from mechdrift.prompts.positions import encode
    from mechdrift.prompts.statements import shipped_statements

    for name, symmetry in SYMMETRIES.items():
        copy, summary = _copy(folder, name), _copy(folder, name).with_suffix(".json")
        if summary.is_file() and copy.is_dir():
            continue
        checkpoint = resolve(_origin(name))
        model, other = (load_model(checkpoint, torch.float32, "cpu") for _ in range(2))
        tokenizer = load_tokenizer(checkpoint)
        symmetry.apply(other, tokenizer)
        statements = shipped_statements()
        ids, _ = encode(tokenizer, [each.text for each in statements[:: len(statements) // PROMPTS]])
        logits, weights = proof(model, other, ids)
        if logits > TOLERANCE or weights < LEAST_CHANGE:
            raise InputError(
                f"{name}: logits moved by {logits:.1e}, weights by {weights:.1e}", "the same function, other weights", "fix it"
            )
        other.save_pretrained(copy)
        tokenizer.save_pretrained(copy)
        summary.write_text(json.dumps({"logits": logits, "weights": weights, "prompts": len(ids)}), encoding="utf-8")


def symmetry_table(folder: Path) -> str:
    """The proofs, then the rows that moved: their estimates, and a dot where they did not."""
    proofs = {
        name: json.loads(path.read_bytes()) for name in SYMMETRIES if (path := _copy(folder, name).with_suffix(".json")).is_file()
    }
    lines = [
        [name, _origin(name), SYMMETRIES[name].does, f"{summary['logits']:.0e}", f"{summary['weights']:.2f}"]
        for name, summary in proofs.items()
    ]
    head = ["change", "of", "what it does", "logits moved, share of the largest", "weights moved, share of their norm"]
    found = read(folder, (run.name for run in symmetry_runs(folder)))
    changes = [name for name in SYMMETRIES if f"symmetric-{name}" in found and _same(_origin(name)).name in found]
    same = {name: rows_of(found[_same(_origin(name)).name]) for name in changes}
    cells = {name: _moved(same[name], found[f"symmetric-{name}"]) for name in changes}
    labels = sorted({label for moved in cells.values() for label in moved})
    rows = [[label, *(cells[name].get(label, "·") for name in changes)] for label in labels]
    every = {label for rows in same.values() for label in rows}
    still = f"{len(every) - len(labels)} of {len(every)} rows moved by less than {MOVED:g} under each."
    return f"{table(head, lines)}\n\n{table(['row', *changes], rows)}\n\n{still}"


def _moved(same: dict[str, dict[str, Any]], changed: Record) -> dict[str, str]:
    """Rows whose estimate or verdict is another than that of the checkpoint against itself."""
    moved = {}
    for label, row in rows_of(changed).items():
        before = same[label]
        if row["estimate"] is None or before["estimate"] is None:
            if (row["estimate"] is None) != (before["estimate"] is None):
                moved[label] = f"{_summary(before)} -> {_summary(row)}"
        elif abs(row["estimate"] - before["estimate"]) > MOVED or row["verdict"] != before["verdict"]:
            moved[label] = f"{_summary(before)} -> {_summary(row)}"
    return moved


def _summary(row: dict[str, Any]) -> str:
    estimate = "no number" if row["estimate"] is None else f"{row['estimate']:.3f}"
    return estimate if row["verdict"] in ("reported", "held") else f"{estimate} {row['verdict']}"
