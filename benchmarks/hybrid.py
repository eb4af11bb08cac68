"""The hybrid pair, and drifts planted in it: `python benchmarks/hybrid.py` prints the tables of docs/design/families.md.

Three of its blocks in four are linear attention, as in Qwen 3.5. Build it first: `mechdrift organisms --build hybrid-forgotten`
trains the whole chain, which takes one core two hours. Records are kept in --runs and not measured again.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rates.tables import table

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.findings.truth.probes import choose_layer
from mechdrift.models.load import load_model
from mechdrift.organisms.plants import (
    SEED,
    period_blocks,
    remove_direction,
    scramble_spectra,
    truth_direction,
    untie,
)
from mechdrift.organisms.recipe.families import HYBRID
from mechdrift.prompts.statements import shipped_statements
from mechdrift.report.whole import read_record
from mechdrift.verdict.row import StoredRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE, POST = "organism:hybrid-base", "organism:hybrid-instruct"
RETRAINED = {"preferences-undone": "organism:hybrid-sft", "facts-forgotten": "organism:hybrid-forgotten"}
"""Drifts that are trained. The refusal direction is none: no single one carries this pair's refusals."""
Plant = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", float], None]


def remove_truth(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", strength: float) -> None:
    """The truth direction at the layer that the rule chooses, taken out of all that writes."""
    statements = [one for one in shipped_statements(SEED) if one.kind in HYBRID.kinds and not one.negated]
    blocks = period_blocks(model, tokenizer, statements).numpy()
    layer, _ = choose_layer(blocks, statements)
    remove_direction(model, torch.tensor(truth_direction(blocks[:, layer], statements)), strength)


def double_logits(model: "PreTrainedModel", _tokenizer: "PreTrainedTokenizerBase", _strength: float) -> None:
    """The head's weights times two: no greedy choice changes."""
    untie(model)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2.0)


PLANTS: dict[str, Plant] = {
    "truth-removed": remove_truth,
    "logits-doubled": double_logits,
    "spectra-scrambled": scramble_spectra,
}
PAIR = (
    *("truth", "refusal", "confidence", "structure", "context"),
    *(f"knowledge.{name}" for name in ("accuracy", "clean_gap", "location", "depth_shift", "published")),
)
"""What is measured of the pair: all but knowledge across the models, which takes as long as the rest together."""
MUST_DRIFT: dict[str, tuple[str, ...]] = {
    "preferences-undone": ("refusal.change_harmful",),
    "truth-removed": ("truth.probe_accuracy", "truth.probe_transfer_forward", "truth.direction_similarity", "truth.clean_gap"),
    "logits-doubled": ("confidence",),
    "spectra-scrambled": ("structure",),
    "facts-forgotten": ("knowledge.accuracy", "knowledge.clean_gap", "truth.judgement_accuracy"),
}
"""By name of what is planted, the findings that are measured."""


def planted(name: str, folder: Path) -> Path:
    """The folder of a planted copy of post, in float32."""
    if not (folder / "config.json").is_file():
        point = resolve(POST)
        model, tokenizer = load_model(point, torch.float32, "cpu"), load_tokenizer(point)
        PLANTS[name](model, tokenizer, 1.0)
        model.save_pretrained(folder)
        load_tokenizer(point).save_pretrained(folder)
    return folder


def rows_of(base: str, post: str, profile: str, record: Path, cache: Path, only: Sequence[str] = ()) -> list[StoredRow]:
    """The rows of a comparison, measured where they are not kept."""
    if not record.is_file():
        command = ["--base", base, "--post", post, "--mechdrift-profile", profile, "--mechdrift-record", str(record)]
        command += [word for name in only for word in ("--mechdrift-only", name)]
        subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *command, "--mechdrift-cache", str(cache)],
            check=False,
        )
    return list(read_record(record).rows)


def by_family(rows: list[StoredRow]) -> str:
    """How many rows of each family have which verdict."""
    families = sorted({row.label.partition(".")[0] for row in rows})
    lines = []
    for family in families:
        of_family = [row for row in rows if row.label.startswith(f"{family}.")]
        counts = Counter(str(row.verdict) for row in of_family)
        lines.append([family, str(len(of_family)), ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))])
    return table(["family", "rows", "verdicts"], lines)


def main() -> None:
    """Measure what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("hybrid-runs"), help="where records and planted copies are kept")
    runs = parser.parse_args().runs
    runs.mkdir(parents=True, exist_ok=True)
    cache = runs / "cache"
    print(f"{BASE} -> {POST}, profile base-to-post:\n")
    print(by_family(rows_of(BASE, POST, "base-to-post", runs / "pair.json", cache, PAIR)), "\n")
    print(f"{POST} -> itself with a drift planted, profile release:\n")
    lines = []
    for name, only in MUST_DRIFT.items():
        post = str(planted(name, runs / name)) if name in PLANTS else RETRAINED[name]
        rows = rows_of(POST, post, "release", runs / f"{name}.json", cache, only)
        lines += [[name, f"`{row.label}`", row.role, _with_interval(row), str(row.verdict)] for row in rows]
    print(table(["planted", "row", "role", "estimate [90% interval]", "verdict"], lines))


def _with_interval(row: StoredRow) -> str:
    return "none" if row.estimate is None else f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]"


if __name__ == "__main__":
    main()
