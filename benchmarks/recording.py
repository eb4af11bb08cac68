"""What a recording costs beside the forward it is made of. `python benchmarks/recording.py [--prompts N] [--repeats N]`.

nnsight and TransformerLens take part where they are installed.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.batches import Group, batches, batches_by_length
from mechdrift.engine.recording import record_blocks
from mechdrift.models.load import load_model
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import shipped_statements

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from real_models import gguf_of

BATCH_TOKENS = 4096
SHOTS = 20  # few-shot prompts for each other one
LEAST_SECONDS = 0.3  # of one timing: short forwards are repeated
Way = Callable[[], "torch.Tensor | None"]


def main() -> None:
    """Print one table: CPU seconds of one thread, so that other work on the machine hardly counts; every round runs every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = [statement.text for statement in shipped_statements()[: options.prompts]]
    print(
        "| model | way | CPU seconds, least | ratio to bare, median [least, most] | largest difference |\n|---|---|---|---|---|"
    )
    smollm2 = gguf_of("SmolLM2-135M-Instruct", Path())
    for spec in ["organism:base", *([str(smollm2)] if smollm2 else [])]:
        checkpoint = resolve(spec)
        model, tokenizer = load_model(checkpoint, torch.float32, "cpu"), load_tokenizer(checkpoint)
        table(Path(spec).stem, model, tokenizer, texts, options.repeats)
        few_shot(Path(spec).stem, model, tokenizer, options.prompts * SHOTS, options.repeats)


def few_shot(name: str, model: Any, tokenizer: Any, count: int, repeats: int) -> None:
    """Two rows of one model: few-shot prompts read whole, and with each beginning read once; tokens run, with padding."""
    prompts = encode(tokenizer, [*judgement_prompts(shipped_statements()).values()][:count])[0]
    lasts = [len(prompt) - 1 for prompt in prompts]
    found: dict[bool, torch.Tensor] = {}
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(repeats):
        for share in (True, False) if number % 2 else (False, True):
            started = time.process_time()
            found[share] = record_blocks(model, prompts, lasts, BATCH_TOKENS, share=share)
            taken[share].append(time.process_time() - started)
    gap = (found[True] - found[False]).abs().max() / found[False].abs().max()
    for share, way in ((False, "whole"), (True, "shared beginnings")):
        run = sum(tokens_of(batch, prompts) for batch in batches(prompts, lasts, BATCH_TOKENS, share))
        ratios = [a / b for a, b in zip(taken[share], taken[False], strict=True)]
        spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        label = f"{len(prompts)} few-shot prompts, {way}: {run:,} tokens"
        print(f"| {name} | {label} | {min(taken[share]):.3f} | {spread} | {f'{gap:.0e}' if share else ''} |", flush=True)


def tokens_of(batch: list[Group], prompts: list[list[int]]) -> int:
    """Tokens that a batch runs, with padding."""
    rows = [len(prompts[index]) - group.shared for group in batch for index in group.prompts]
    return len(rows) * max(rows) + sum(map(bool, (group.shared for group in batch))) * max(group.shared for group in batch)


def table(name: str, model: Any, tokenizer: Any, texts: list[str], repeats: int) -> None:
    """The rows of one model: all blocks' outputs at the last token of every prompt, float32 on the CPU."""
    prompts = encode(tokenizer, texts)[0]
    lasts = [len(prompt) - 1 for prompt in prompts]
    batches = padded(prompts)
    decoder = model.get_decoder()

    def bare() -> None:
        for _, ids, mask in batches:
            decoder(input_ids=ids, attention_mask=mask, use_cache=False)

    def hidden() -> torch.Tensor:
        """Without the last block: its entry has gone through the final norm."""
        return gathered(
            lambda ids, mask: decoder(
                input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
            ).hidden_states[1:-1]
        )

    def gathered(states: Callable[[torch.Tensor, torch.Tensor], Any]) -> torch.Tensor:
        recorded = []
        for batch, ids, mask in batches:
            ends = torch.tensor([lasts[index] for index in batch])
            recorded.append(torch.stack([state[torch.arange(len(batch)), ends] for state in states(ids, mask)], dim=1))
        return torch.cat(recorded)[torch.argsort(torch.tensor([index for batch, _, _ in batches for index in batch]))]

    ways: dict[str, Way] = {
        "bare forward": bare,
        "mechdrift record_blocks": lambda: record_blocks(model, prompts, lasts, BATCH_TOKENS),
        "transformers output_hidden_states": hidden,
    }
    if find_spec("nnsight"):
        ways[f"nnsight {version('nnsight')} trace"] = lambda: gathered(nnsight_states(decoder))
    if find_spec("transformer_lens"):
        bridge = lens(model, tokenizer)
        label = f"TransformerLens {version('transformer_lens')} bridge"
        ways[f"{label}, forward alone"] = lambda: [bridge(ids, attention_mask=mask) for _, ids, mask in batches] and None
        ways[f"{label}, run_with_cache"] = lambda: gathered(lens_states(bridge))
    with torch.inference_mode():
        found = {label: way() for label, way in ways.items()}  # and warm
        started = time.process_time()
        bare()
        loops = max(1, round(LEAST_SECONDS / (time.process_time() - started)))
        seconds: dict[str, list[float]] = {label: [] for label in ways}
        for number in range(repeats):
            order = list(ways.items())
            for label, way in order[number % len(order) :] + order[: number % len(order)]:
                started = time.process_time()
                for _ in range(loops):
                    way()
                seconds[label].append((time.process_time() - started) / loops)
    expected = found["mechdrift record_blocks"]
    assert expected is not None
    for label, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["bare forward"], strict=True)]
        states = found[label]
        gap = "" if states is None else f"{(states - expected[:, : states.shape[1]]).abs().max() / expected.abs().max():.0e}"
        spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        print(f"| {name} | {label} | {min(taken):.3f} | {spread} | {gap} |", flush=True)


def padded(prompts: list[list[int]]) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Indices, ids and mask of the batches that record_blocks makes."""
    made = []
    for batch in batches_by_length([len(prompt) for prompt in prompts], BATCH_TOKENS):
        width = max(len(prompts[index]) for index in batch)
        ids = torch.tensor([prompts[index] + [0] * (width - len(prompts[index])) for index in batch])
        mask = torch.tensor([[1] * len(prompts[index]) + [0] * (width - len(prompts[index])) for index in batch])
        made.append((batch, ids, mask))
    return made


def nnsight_states(decoder: Any) -> Callable[..., Any]:
    """All blocks' outputs by a trace of the decoder alone."""
    from nnsight import NNsight, save

    traced = NNsight(decoder)

    def states(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        with traced.trace(input_ids=ids, attention_mask=mask, use_cache=False):
            saved = save([layer.output for layer in traced.layers])
        return list(saved)

    return states


def lens(model: Any, tokenizer: Any) -> Any:
    """The model as TransformerLens wraps it, with the weights as they are; its attention is the eager one."""
    from transformer_lens.model_bridge import TransformerBridge

    name = model.name_or_path
    return TransformerBridge.boot_transformers(name, hf_model=copy.deepcopy(model), tokenizer=tokenizer, device="cpu")


def lens_states(bridge: Any) -> Callable[..., Any]:
    """All blocks' outputs by run_with_cache, told to keep nothing else."""
    names = [f"blocks.{layer}.hook_out" for layer in range(bridge.cfg.n_layers)]

    def states(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names)
        return [cache[name] for name in names]

    return states


if __name__ == "__main__":
    main()
