"""What activation patching costs in each way. `python benchmarks/sweep.py [--pairs N] [--cells N] [--device cuda]`.

nnsight and TransformerLens take part where they are installed. docs/design/sweep.md has the formula of the least arithmetic.
"""

import argparse
import copy
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.recording import record_columns
from mechdrift.engine.sweep import BUDGET, Pairs, sweep
from mechdrift.models.load import load_model
from mechdrift.models.sites import blocks, stream, with_stream

SMOLLM2 = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
LLAMA_8B = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
TOKENS, SWEPT, ANSWER = 78, 14, (3, 4)
BATCH = 32
ROUNDS = 3  # of each way the least is taken
Cell = tuple[int, int]
Way = Callable[[list[Cell]], list[float]]


def main() -> None:
    """Print one table. CPU seconds of one thread, so that other work hardly counts; on a GPU seconds of the clock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="of our way and of all (default: 4 on a CPU, 238 on a GPU)")
    parser.add_argument("--cells", type=int, default=96, help="that the slow ways are timed on, spread over a pair")
    parser.add_argument("--budget", type=int, help="bytes of a pass (default: the engine's own, on a GPU 8 GiB)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    gpu = options.device != "cpu"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs, budget = options.pairs or (238 if gpu else 4), options.budget or (BUDGET if not gpu else 8 << 30)
    print(
        "| model | way | seconds per pair | ratio to ours | largest difference, as a share | share of the matmul rate |\n"
        "|---|---|---|---|---|---|"
    )
    if gpu:
        config = LlamaConfig(**LLAMA_8B, num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False)
        with torch.device(options.device):
            model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
        table("Llama-3.1-8B shape, random", model, None, pairs, options.cells, budget)
        return
    config = LlamaConfig(**SMOLLM2, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
    table("SmolLM2-135M shape, random", LlamaForCausalLM(config).eval(), None, pairs, options.cells, budget)
    base = resolve("organism:base")
    table("organism:base", load_model(base, torch.float32, "cpu"), load_tokenizer(base), pairs, options.cells, budget)


def table(name: str, model: Any, tokenizer: Any, pairs: int, cells: int, budget: int) -> None:
    """The rows of one model. The slow ways cost the same in every cell, so a pair's seconds are those of some, scaled."""
    corrupt = torch.randint(5, model.config.vocab_size, (pairs, TOKENS))
    clean = corrupt.clone()
    clean[:, TOKENS - SWEPT :] = torch.randint(5, model.config.vocab_size, (pairs, SWEPT))
    first = [TOKENS - SWEPT] * pairs
    depth = len(blocks(model))
    everywhere = [(layer, column) for layer in range(depth) for column in range(SWEPT)]
    some = everywhere[:: max(1, len(everywhere) // cells)][:cells]
    least = least_arithmetic(model.config, TOKENS, SWEPT)
    given = record_columns(model, clean[:1].tolist(), first[:1])[0].to(model.device)
    ways: dict[str, Way] = {
        "hook loop, one forward a cell, all logits": lambda chosen: hook_loop(model, corrupt[0], given, chosen, 1, 0),
        "hook loop, one forward a cell, last logits": lambda chosen: hook_loop(model, corrupt[0], given, chosen, 1, 1),
        f"hook loop, {BATCH} cells a forward, all logits": lambda chosen: hook_loop(model, corrupt[0], given, chosen, BATCH, 0),
        f"hook loop, {BATCH} cells a forward, last logits": lambda chosen: hook_loop(model, corrupt[0], given, chosen, BATCH, 1),
    }
    if find_spec("nnsight"):
        ways[f"nnsight {version('nnsight')}, one trace a cell"] = lambda chosen: nnsight_loop(model, corrupt[0], given, chosen)
    if find_spec("transformer_lens") and tokenizer is not None:
        label = f"TransformerLens {version('transformer_lens')} bridge, run_with_hooks"
        ways[label] = lambda chosen: lens_loop(model, tokenizer, corrupt[0], given, chosen)
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    gaps = dict.fromkeys(ways, 0.0)
    ours_taken, rate = [], 0.0
    with torch.inference_mode():
        swept = Pairs(corrupt.tolist(), clean.tolist(), [ANSWER] * pairs, first)
        sweep(model, swept.take([0]), budget)
        for number in range(ROUNDS):
            rate = max(rate, matmul_rate(model))
            taken, ours = timed(model, lambda: sweep(model, swept, budget))
            ours_taken.append(taken / pairs)
            part = some[number::ROUNDS]
            layers, columns = zip(*part, strict=True)
            found = ours.patched[0]
            for label, way in ways.items():
                if number == 0:
                    way(part[:1])
                taken, values = timed(model, lambda way=way, part=part: way(part))  # type: ignore[misc]
                seconds[label].append(taken / len(part) * len(everywhere))
                gap = (torch.tensor(values) - found[list(layers), list(columns)]).abs().max() / found[~found.isnan()].abs().max()
                gaps[label] = max(gaps[label], float(gap))
    own = min(ours_taken)
    rows = [(label, min(taken), gaps[label]) for label, taken in seconds.items()]
    rows.append(("mechdrift sweep", own, max(gaps.values())))
    for label, least_taken, gap in rows:
        share = least / least_taken / rate
        print(f"| {name} | {label} | {least_taken:.3f} | {least_taken / own:.1f} | {gap:.0e} | {share:.1%} |")
    print(f"| {name} | least arithmetic {least / 1e9:.1f} GFLOP a pair, matmul {rate / 1e9:.1f} GFLOP/s | | | | |", flush=True)


def timed(model: Any, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    if model.device.type == "cpu":
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - started, result


def matmul_rate(model: Any) -> float:
    """Operations a second of the best of ten square products, 1024 wide on a CPU and 8192 on a GPU, in the model's dtype."""
    size = 1024 if model.device.type == "cpu" else 8192
    square = torch.randn(size, size, dtype=model.dtype, device=model.device)
    return float(2 * size**3 / min(timed(model, lambda: square @ square)[0] for _ in range(10)))


def least_arithmetic(config: Any, length: int, width: int) -> float:
    """Multiplications and additions that no exact way can do without, for a pair; of the shape of Llama."""
    inner, heads, shared = config.intermediate_size, config.num_attention_heads, config.num_key_value_heads
    size, depth, head = config.hidden_size, config.num_hidden_layers, config.head_dim
    triangle = width * (width + 1) // 2
    prompt_seen = length * (length + 1) // 2
    clean_seen = sum(range(length - width + 1, length + 1))
    cells_seen = sum(seen * (seen - (length - width)) for seen in range(length - width + 1, length + 1))
    total = 0.0
    for layer in range(depth):
        new = width if layer else 0  # of the cells that have just begun only the patched token is not the corrupt prompt's
        projected = length + width + max(0, layer - 1) * triangle + new
        if layer + 1 < depth:
            asking, onward = projected, length + width + layer * triangle
            seen = prompt_seen + clean_seen + layer * cells_seen
        else:  # nothing comes after but the last token's logits
            asking = onward = 2 + layer * width
            seen = asking * length
        total += 4 * size * shared * head * projected + 2 * size * heads * head * (asking + onward)
        total += 6 * size * inner * onward + 4 * heads * head * seen
    return total + 4 * size * (2 + (depth - 1) * width + 1)


def hook_loop(model: Any, prompt: Any, given: Any, cells: list[Cell], batch: int, kept: int) -> list[float]:
    """One forward for so many cells, of which all logits (kept 0) or the last ones are taken."""
    values = []
    modules = blocks(model)
    for at in range(0, len(cells), batch):
        chosen = cells[at : at + batch]
        handles = [
            modules[layer].register_forward_hook(patch(row, column, given[layer, column]))
            for row, (layer, column) in enumerate(chosen)
        ]
        logits = model(input_ids=prompt.repeat(len(chosen), 1).to(model.device), use_cache=False, logits_to_keep=kept).logits[
            :, -1
        ]
        for handle in handles:
            handle.remove()
        values += (logits[:, ANSWER[0]].float() - logits[:, ANSWER[1]].float()).tolist()
    return values


def patch(row: int, column: int, state: Any) -> Callable[..., Any]:
    """A hook that replaces one token of one row."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        states = stream(output)
        states[row, TOKENS - SWEPT + column] = state
        return with_stream(output, states)

    return hook


def nnsight_loop(model: Any, prompt: Any, given: Any, cells: list[Cell]) -> list[float]:
    """One trace a cell."""
    from nnsight import NNsight

    traced, ids = NNsight(model), prompt[None].to(model.device)
    values = []
    for layer, column in cells:
        with traced.trace(ids, use_cache=False, logits_to_keep=1):
            traced.model.layers[layer].output[0, TOKENS - SWEPT + column] = given[layer, column]
            logits = traced.output.logits.save()
        values.append(float(logits[0, -1, ANSWER[0]].float() - logits[0, -1, ANSWER[1]].float()))
    return values


def lens_loop(model: Any, tokenizer: Any, prompt: Any, given: Any, cells: list[Cell]) -> list[float]:
    """The model as TransformerLens wraps it, one run_with_hooks a cell."""
    from transformer_lens.model_bridge import TransformerBridge

    name = model.name_or_path
    bridge = TransformerBridge.boot_transformers(name, hf_model=copy.deepcopy(model), tokenizer=tokenizer, device="cpu")
    values = []
    for layer, column in cells:

        def replace(states: Any, layer: int = layer, column: int = column, **_hook: Any) -> Any:
            states[0, TOKENS - SWEPT + column] = given[layer, column]
            return states

        logits = bridge.run_with_hooks(prompt[None], fwd_hooks=[(f"blocks.{layer}.hook_out", replace)])
        values.append(float(logits[0, -1, ANSWER[0]] - logits[0, -1, ANSWER[1]]))
    return values


if __name__ == "__main__":
    main()
