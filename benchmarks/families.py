"""What is found on every causal type, and the self-check of listed families in three precisions and at a site that is wrong.

`python benchmarks/families.py` prints the tables of docs/design/families.md, and fails where fewer types are read than were;
--write puts them there.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import every_type
import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.generate.vllm_architectures import REGISTRY, architectures_in, registry_file
from mechdrift.engine.selfcheck import TOLERANCE, prefix_gap, self_check
from mechdrift.errors import Unmeasurable
from mechdrift.models.families import FAMILIES
from mechdrift.models.load import load_model
from mechdrift.models.structure import SUM_TOLERANCE
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import shipped_statements

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from real_models import gguf_of
from tiny import VARIANTS, tiny_model, wrong_writes

DOCUMENT = Path(__file__).parents[1] / "docs" / "design" / "families.md"
BEGIN, END = "<!-- families --write: begin -->", "<!-- families --write: end -->"
SEEDS, LENGTHS = 3, (2, 3, 8, 12, 25, 40)
SUFFIX = 3  # tokens that are not in a shared prefix
Figures = tuple[float, ...]


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}, between its marks")
    parser.add_argument("--vllm", type=Path, default=registry_file(), help=f"{REGISTRY.name} of a vLLM, as it is installed here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun, text = time.monotonic(), ""
    rows = list(every_type.measured())
    minutes = (time.monotonic() - begun) / 60
    for line in (*every_type.tables(rows, minutes, architectures_in(options.vllm)), "", *listed()):
        print(line, flush=True)
        text += f"{line}\n"
    if options.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.exit(not every_type.enough(rows))


def listed() -> Iterator[str]:
    """Figures of random models of every listed family and of real ones, then what a planted fault is told."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(2, 258, (length,), generator=generator).tolist() for length in LENGTHS]
    yield f"Listed families, the largest of {SEEDS} random models each; residual in eps of the dtype, the rest as a share of the"
    yield "largest value: residual, batch, logits, shared prefix.\n"
    yield "| model | " + " | ".join(TOLERANCE) + " |"
    yield "|---|" + "---|" * len(TOLERANCE)
    largest: dict[str, Figures] = dict.fromkeys(TOLERANCE, (0.0,) * 4)
    for variant in VARIANTS:
        rows = {
            dtype: worst([figures(tiny_model(variant, seed), dtype, prompts) for seed in range(SEEDS)]) for dtype in TOLERANCE
        }
        yield row_of(variant, rows)
        largest = {dtype: worst([largest[dtype], rows[dtype]]) for dtype in TOLERANCE}
    for name, model, ids in real():
        rows = {dtype: figures(model, dtype, ids) for dtype in TOLERANCE}  # each from the weights of the one before
        yield row_of(name, rows)
        largest = {dtype: worst([largest[dtype], rows[dtype]]) for dtype in TOLERANCE}
    yield row_of("**largest**", largest)
    yield row_of("**tolerance**", {dtype: (SUM_TOLERANCE, bound, bound, bound) for dtype, bound in TOLERANCE.items()})
    yield "\n| family | blocks | a block adds | a wrong site | self-check in bfloat16 |\n|---|---|---|---|---|"
    for family, right in FAMILIES.items():
        wrong = wrong_writes(family, 1)
        FAMILIES[family] = replace(right, writes=wrong)
        try:
            self_check(tiny_model(family).to(torch.bfloat16), prompts)
            summary = "NOT CAUGHT"
        except Unmeasurable as fault:
            summary = str(fault).removeprefix("self-check: ")
        FAMILIES[family] = right
        yield f"| {family} | {right.blocks} | {', '.join(right.writes)} | {wrong[1]} | {summary} |"


def figures(model: Any, dtype: str, prompts: list[list[int]]) -> Figures:
    """Residual in eps, batch, logits, shared prefix."""
    model = model.to(getattr(torch, dtype))
    found = self_check(model, prompts)
    starts = [max(1, len(prompt) - SUFFIX) for prompt in prompts]
    gap = prefix_gap(model, prompts, [prompt[-1:] for prompt in prompts], [lambda *_: nullcontext()], starts)
    return found.residual / torch.finfo(model.dtype).eps, found.batch, found.logits, gap


def worst(rows: list[Figures]) -> Figures:
    """The largest of each figure."""
    return tuple(max(column) for column in zip(*rows, strict=True))


def row_of(name: str, rows: dict[str, Figures]) -> str:
    """Residual, batch, logits, prefix by dtype."""
    cells = [f"{row[0]:.2f}, " + ", ".join(f"{figure:.1e}" for figure in row[1:]) for row in rows.values()]
    return f"| {name} | " + " | ".join(cells) + " |"


def real() -> Any:
    """Name, model and prompts of trained models that are at hand."""
    statements = [statement for statement in shipped_statements() if not statement.negated]
    texts = [*(statement.text for statement in statements[:4]), *list(judgement_prompts(statements).values())[:2]]
    smollm2 = gguf_of("SmolLM2-135M-Instruct", Path())
    for spec in ["organism:base", *([str(smollm2)] if smollm2 else [])]:
        checkpoint = resolve(spec)
        yield Path(spec).stem, load_model(checkpoint, torch.float32, "cpu"), encode(load_tokenizer(checkpoint), texts)[0]


if __name__ == "__main__":
    main()
