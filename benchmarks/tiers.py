"""What the tiers take on a pair, by phase, beside their plan and budget. `python benchmarks/tiers.py [--tiers smoke commit]`.

--base and --post name a pair; `--shape llama-3.1-8b` makes one instead: random weights of that size and a copy of which every
matrix has moved by one per cent. Such a pair knows nothing, so rows that need an effect are unmeasurable and fewer tokens run
than on a model that knows: it is for loading, memory, and the plan beside it.

Every tier runs as pytest in a process of its own, with an empty cache. The budgets, commit in 5 minutes and nightly in 30, are
for an 8B pair on one H100-class GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generate import SHAPES, random_weights

BUDGET = {"smoke": "-", "commit": "5 min", "nightly": "30 min"}
MOVED = 0.01  # of a matrix's norm


def main() -> None:
    """Print the plan, then one line a phase, then the gated rows, for each tier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="organism:base")
    parser.add_argument("--post", default="organism:instruct")
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--tiers", nargs="+", default=list(BUDGET), choices=list(BUDGET))
    parser.add_argument("more", nargs=argparse.REMAINDER, help="further options of pytest, after --")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        pair = options.base, options.post
        if options.shape:
            pair = shaped(Path(folder), options.shape)
        more = [word for word in options.more if word != "--"]
        for tier in options.tiers:
            measure(tier, ["--base", pair[0], "--post", pair[1], "--mechdrift-tier", tier, *more], Path(folder) / tier)


def shaped(folder: Path, shape: str) -> tuple[str, str]:
    """A random checkpoint and one that has moved from it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = random_weights(folder, shape)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        for weight in model.parameters():
            weight += MOVED * weight.float().std() * torch.randn_like(weight)
    post = folder / f"{shape}-moved"
    model.save_pretrained(post)
    AutoTokenizer.from_pretrained(base).save_pretrained(post)
    return str(base), str(post)


def measure(tier: str, arguments: list[str], folder: Path) -> None:
    """Plan and run one tier."""
    folder.mkdir()
    record = folder / "record.json"
    plan = run([*arguments, "--mechdrift-plan"])
    print(f"\n{tier}, budget on an 8B pair {BUDGET[tier]}\n\n{plan.stdout.strip()}\n", flush=True)
    started = time.perf_counter()
    ended = run([*arguments, "--mechdrift-cache", str(folder / "cache"), "--mechdrift-record", str(record)])
    seconds = time.perf_counter() - started
    if not record.is_file():
        sys.exit(ended.stdout + ended.stderr)
    summary: dict[str, Any] = json.loads(record.read_text())
    print("| phase | seconds | peak RSS, GB | peak GPU, GB | loads | prompts | tokens | replies | kept, MB |")
    print("|---" * 9 + "|")
    for name, phase in summary["run"]["phases"].items():
        gpu = "-" if phase["peak_gpu"] is None else f"{phase['peak_gpu'] / 1e9:.2f}"
        counts = " | ".join(f"{phase[what]:,}" for what in ("model_loads", "prompts", "tokens", "replies"))
        print(
            f"| {name} | {phase['seconds']:.1f} | {phase['peak_rss'] / 1e9:.2f} | {gpu} | {counts} "
            f"| {phase['bytes'] / 1e6:,.0f} |"
        )
    gated = [row for row in summary["rows"] if row["role"] == "gate"]
    print(
        f"\nwhole process {seconds:.1f} s, exit code {ended.returncode}, {len(summary['rows'])} rows, {len(gated)} of them gated:"
    )
    for row in gated:
        print(f"  {row['label']:40}{row['verdict']:14}n {row['n']}", flush=True)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Pytest, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603


if __name__ == "__main__":
    main()
