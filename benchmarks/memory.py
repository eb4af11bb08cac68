"""Peak memory by phase, of a random sharded Llama on the CPU. `python benchmarks/memory.py [--layers N]`.

Counted is what the kernel cannot drop: anonymous and shared pages (RssAnon + RssShmem of /proc/self/status), read every 5 ms,
the interpreter with torch included. Pages of the memory-mapped weight files are shown beside it; they are page cache.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

GB = 1e9
PROMPTS, TOKENS, BATCH_TOKENS = 16, 32, 256


def resident() -> tuple[int, int]:
    """Bytes in anonymous and shared pages, and in pages of files."""
    values = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            values[name] = int(value.split()[0]) * 1024
    return values["RssAnon"] + values["RssShmem"], values["RssFile"]


@contextmanager
def watched(peaks: dict[str, tuple[int, int]], phase: str) -> Iterator[None]:
    """The highest of both while inside."""
    done = threading.Event()
    seen = [resident()]

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        seen.append(resident())
        peaks[phase] = (max(first for first, _ in seen), max(second for _, second in seen))


def measure(folder: str, dtype: str) -> None:
    """Print the peaks of one process as JSON."""
    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.engine.pool import Pool
    from mechdrift.engine.recording import record_blocks

    torch.set_num_threads(1)
    peaks: dict[str, tuple[int, int]] = {}
    with watched(peaks, "resolve"):
        checkpoint = resolve(folder)
    pool = Pool("cpu", dtype)
    prompts = [[0, *range(5, 4 + TOKENS)] for _ in range(PROMPTS)]
    with watched(peaks, "load"):
        pool.model(checkpoint, [prompts[0][:8], prompts[0][:9]])
    with watched(peaks, "record"):
        record_blocks(pool.model(checkpoint, []), prompts, [TOKENS - 1] * PROMPTS, BATCH_TOKENS)
    pool.free()
    with watched(peaks, "after free"):
        time.sleep(0.1)
    print(json.dumps({"parameters": checkpoint.parameters, "peaks": peaks}))


def make(folder: Path, layers: int, dtype: torch.dtype) -> None:
    """A random Llama in shards, with a tokenizer to make it whole."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=32000, num_hidden_layers=layers, dtype=dtype, **sizes)
    LlamaForCausalLM._from_config(config, dtype=dtype).save_pretrained(folder, max_shard_size="400MB")
    organism = files("mechdrift.data") / "organisms" / "base"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(organism / name), folder / name)


def main() -> None:
    """Print one table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    phases = ("resolve", "load", "record", "after free")
    print(f"| stored | run in | weights, GB | {' | '.join(phases)} | bound, GB | mapped files, GB |")
    print("|---" * (5 + len(phases)) + "|")
    for stored in (torch.float32, torch.bfloat16):
        with TemporaryDirectory() as folder:
            make(Path(folder), options.layers, stored)
            for dtype in ("float32", "bfloat16"):
                command = [sys.executable, __file__, "--measure", folder, dtype]
                summary = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])  # noqa: S603
                size = summary["parameters"] * getattr(torch, dtype).itemsize / GB
                peaks = [summary["peaks"][phase] for phase in phases]
                cells = [f"{size:.2f}", *(f"{anonymous / GB:.2f}" for anonymous, _ in peaks), f"{1.15 * size + 1.5:.2f}"]
                mapped = max(file for _, file in peaks) / GB
                print(f"| {str(stored).removeprefix('torch.')} | {dtype} | {' | '.join(cells)} | {mapped:.2f} |", flush=True)


if __name__ == "__main__":
    main()
