"""Steered judgements: whole forwards for every arm, or one prefix for all. `python benchmarks/steering.py [SPEC] [PROMPTS]`."""

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.recording import Edit, record_under, record_under_whole
from mechdrift.engine.steer import adding
from mechdrift.models.load import load_model
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import shipped_statements

ARMS, REPEATS, BATCH_TOKENS = 18, 3, 4096


def main() -> None:
    """Print one table; both ways on the same prompts, model, process and thread, the fastest of three runs each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", default="organism:base")
    parser.add_argument("prompts", nargs="?", type=int, default=120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = resolve(options.spec)
    model, tokenizer = load_model(checkpoint, torch.float32, "cpu"), load_tokenizer(checkpoint)
    statements = [statement for statement in shipped_statements() if not statement.negated]
    prompts = dict(list(judgement_prompts(statements).items())[: options.prompts])
    ids, offsets = encode(tokenizer, list(prompts.values()))
    first = []
    for (statement, text), row in zip(prompts.items(), offsets, strict=True):
        end = text.rindex(statement.text) + statement.text.rindex(statement.value) + len(statement.value) - 1
        first.append(max(i for i, (a, b) in enumerate(row) if a <= end < b))
    shifts = torch.randn(ARMS, checkpoint.width)

    def edit(arm: int) -> Edit:
        def on(model: Any, batch: list[int], before: list[int]) -> AbstractContextManager[None]:
            places = [[first[index] - left] for index, left in zip(batch, before, strict=True)]
            return adding(model, [checkpoint.layers // 2], shifts[arm].expand(len(batch), -1), places)

        return on

    edits = [edit(arm) for arm in range(ARMS)]
    answers = [(5, 6)] * len(ids)

    def best(run: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            found = run()
            seconds.append(time.perf_counter() - started)
        return min(seconds), found

    whole, expected = best(lambda: record_under_whole(model, ids, answers, edits, BATCH_TOKENS))
    shared, found = best(lambda: record_under(model, ids, answers, edits, first, BATCH_TOKENS))
    tokens = sum(map(len, ids))
    edited = sum(len(row) - start for row, start in zip(ids, first, strict=True))
    size = f"{len(ids)} prompts of {tokens / len(ids):.0f} tokens, {edited / len(ids):.1f} from the first edit on"
    print(f"{options.spec}: {size}; {ARMS} arms")
    print(f"{'way':34}{'tokens run':>12}{'seconds':>10}{'ratio':>8}")
    print(f"{'whole forwards, an arm at a time':34}{ARMS * tokens:>12,}{whole:>10.2f}{1:>8.1f}")
    print(f"{'one prefix for all arms':34}{tokens + ARMS * edited:>12,}{shared:>10.2f}{whole / shared:>8.1f}")
    print(f"least tokens the arms need: ratio {ARMS * tokens / (tokens + ARMS * edited):.1f}")
    print(f"largest difference {(found - expected).abs().max():.1e} at logits up to {expected.abs().max():.1f}")


if __name__ == "__main__":
    main()
