"""False alarms: pairs between which nothing should have changed, and that are not bit-identical."""

import json
from collections import Counter
from pathlib import Path
from statistics import fmean

from mechdrift.session.many_runs import Run

from .tables import Record, not_held, read, share, table

NO_SHORT_CUT = "--mechdrift-no-identity-shortcut"
SMALL = "small-batch"
SMALL_BATCH = ("--mechdrift-batch", "512")
ORIGIN = "organism:instruct"
FLOAT32 = "organism:retrained@0"  # instruct is stored in bfloat16 already: rounding it changes nothing
PRECISIONS = ("bfloat16", "float16")
Scores = dict[str, dict[str, float]]


def benign_runs(retrains: int) -> list[Run]:
    """Instruct against its benign retrains."""
    return [Run(f"benign-{seed}", ORIGIN, f"organism:retrained@{seed}", (NO_SHORT_CUT,)) for seed in range(retrains)]


def rounded_runs(folder: Path) -> list[Run]:
    """A float32 checkpoint against copies with rounded weights, in the usual and in another batch shape."""
    runs = []
    for precision in PRECISIONS:
        copy = str(folder / "checkpoints" / f"rounded-{precision}")
        runs += [
            Run(f"rounded-{precision}", FLOAT32, copy, (NO_SHORT_CUT,)),
            Run(f"rounded-{precision}-{SMALL}", FLOAT32, copy, (NO_SHORT_CUT, *SMALL_BATCH)),
        ]
    return runs


def write_rounded(folder: Path) -> None:
    """The copies, where they are not there yet."""
    import torch

    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.checkpoints.tokenizer import load_tokenizer
    from mechdrift.models.load import load_model

    checkpoint = resolve(FLOAT32)
    for precision in PRECISIONS:
        copy = folder / "checkpoints" / f"rounded-{precision}"
        if not (copy / "config.json").is_file():
            model = load_model(checkpoint, torch.float32, "cpu").to(getattr(torch, precision))
            load_tokenizer(checkpoint).save_pretrained(copy)
            model.save_pretrained(copy)


def outputs(name: str, folder: Path) -> Scores:
    """An organism's output-level scores and, of a retrain, by how much its weights moved; kept in the folder."""
    path = _outputs(name, folder)
    if not path.is_file():
        from mechdrift.organisms.score import measured_outputs

        found = measured_outputs(name) | {"weights moved": {"all": weights_moved(name)}}
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return json.loads(path.read_bytes())


def _outputs(name: str, folder: Path) -> Path:
    return folder / f"outputs-{name}.json"


def weights_moved(name: str) -> float:
    """Norm of the change from instruct as a share of its norm."""
    import torch

    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.models.load import load_model
    from mechdrift.organisms.internals import share_of_norm

    one, other = (
        dict(load_model(resolve(spec), torch.float32, "cpu").named_parameters()) for spec in (ORIGIN, f"organism:{name}")
    )
    return share_of_norm(one, other, list(one))


def broken_bounds(origin: Scores, found: Scores) -> list[str]:
    """The scores that left the bounds that drifts.toml sets to a change that should leave them."""
    from mechdrift.organisms.matrix import bounds, change

    moved = {score: (change(origin, found, score), bound) for score, bound in bounds().items()}
    return [f"{score} {by:+.3f}" for score, (by, bound) in moved.items() if abs(by) > bound]


def null_table(folder: Path, retrains: int) -> str:
    """Runs in which a gated row is not held, by the kind of null pair; then the retrains one by one."""
    found = {
        name.replace("benign-", "retrained@"): record for name, record in read(folder, _names(benign_runs(retrains))).items()
    }
    scores = {name: json.loads(path.read_bytes()) for name in ("instruct", *found) if (path := _outputs(name, folder)).is_file()}
    broken = {name: broken_bounds(scores["instruct"], scores[name]) for name in found if {name, "instruct"} <= scores.keys()}
    rounded = read(folder, _names(rounded_runs(folder)))
    groups = {
        f"{ORIGIN} and a benign retrain": [found[name] for name, scores in broken.items() if not scores],
        f"{FLOAT32} and a rounded copy": [record for name, record in rounded.items() if not name.endswith(SMALL)],
        "the same in batches of 512 tokens": [record for name, record in rounded.items() if name.endswith(SMALL)],
    }
    groups["all"] = [record for records in groups.values() for record in records]
    rows = [
        [name, share(sum(bool(not_held(each)) for each in records), len(records)), _which(records)]
        for name, records in groups.items()
    ]
    lines = [
        [
            f"organism:{name}",
            f"{fmean(scores[name]['weights moved'].values()):.4f}",
            "; ".join(outside) or "none",
            "; ".join(not_held(found[name])) or "none",
        ]
        for name, outside in broken.items()
    ]
    dropped = sum(map(bool, broken.values()))
    head = f"{len(broken)} retrains measured, {dropped} dropped because their outputs left the bounds of drifts.toml."
    retrain_table = table(["retrain", "weights moved", "outputs out of bounds", "gated rows not held"], lines)
    return f"{head}\n\n{table(['pair', 'runs with a gated row not held', 'which'], rows)}\n\n{retrain_table}"


def _names(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


def _which(records: list[Record]) -> str:
    """Rows with the number of runs in which they are not held."""
    return (
        "; ".join(f"{row} {runs}" for row, runs in Counter(row for each in records for row in not_held(each)).items()) or "none"
    )
