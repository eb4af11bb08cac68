"""The hybrid pair, and drifts planted in it: `python benchmarks/hybrid.py` prints the tables of docs/design/families.md.

Three of its blocks in four are linear attention, as in Qwen 3.5. Build it first: `mechdrift organisms --build hybrid-forgotten`
trains the whole chain, which takes one core two hours. Records are kept in --runs and not measured again.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
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
    ablate_refusal,
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

BASE, POST, FORGOTTEN = "organism:hybrid-base", "organism:hybrid-instruct", "organism:hybrid-forgotten"
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


PLANTS: dict[str, tuple[str, Plant]] = {
    "refusal-removed": ("refusal", ablate_refusal),
    "truth-removed": ("truth", remove_truth),
    "logits-doubled": ("confidence", double_logits),
    "spectra-scrambled": ("structure", scramble_spectra),
}
"""By name: the family of findings that must notice, and the operation."""


def planted(name: str, folder: Path) -> Path:
    """The folder of a planted copy of post, in float32."""
    if not (folder / "config.json").is_file():
        point = resolve(POST)
        model, tokenizer = load_model(point, torch.float32, "cpu"), load_tokenizer(point)
        PLANTS[name][1](model, tokenizer, 1.0)
        model.save_pretrained(folder)
        load_tokenizer(point).save_pretrained(folder)
    return folder


def rows_of(base: str, post: str, profile: str, record: Path, cache: Path) -> list[StoredRow]:
    """The rows of a comparison, measured where they are not kept."""
    if not record.is_file():
        command = ["--base", base, "--post", post, "--mechdrift-profile", profile, "--mechdrift-record", str(record)]
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
    print(by_family(rows_of(BASE, POST, "base-to-post", runs / "pair.json", cache)), "\n")
    print(f"{POST} -> itself with a drift planted, profile release:\n")
    lines = []
    posts = {name: family for name, (family, _) in PLANTS.items()} | {"facts-forgotten": "knowledge"}
    for name, family in posts.items():
        post = str(planted(name, runs / name)) if name in PLANTS else FORGOTTEN
        rows = rows_of(POST, post, "release", runs / f"{name}.json", cache)
        drifted = [row.label for row in rows if row.role == "gate" and row.verdict == "drifted"]
        noticed = [label for label in drifted if label.startswith(f"{family}.")]
        others = Counter(label.partition(".")[0] for label in drifted if not label.startswith(f"{family}."))
        lines.append(
            [
                name,
                family,
                ", ".join(f"`{label}`" for label in noticed) or "none",
                ", ".join(f"{other} {count}" for other, count in sorted(others.items())) or "none",
            ]
        )
    print(table(["planted", "must drift", "gates of it that drifted", "gates of others that drifted"], lines))


if __name__ == "__main__":
    main()
