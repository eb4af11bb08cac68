"""Activation patching by forwards that start at the patched block: for families whose attention sweep.py cannot replace.

What leaves a block is all that those behind it are given (the self-check's whole state), so those before it need not run: half
the work of whole forwards. Everything else is the model's own forward, of linear attention and state spaces too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mechdrift.engine.batches import Progress
from mechdrift.engine.recording import record_columns, standing_in
from mechdrift.engine.sweep import BUDGET, Pairs, Sweep, bytes_per_token, check_source, empty
from mechdrift.engine.sweep_naive import difference
from mechdrift.models.sites import blocks, stream, with_stream

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def sweep_restarted(
    model: "PreTrainedModel",
    pairs: Pairs,
    budget_bytes: int = BUDGET,
    source: "Tensor | None" = None,
    progress: Progress | None = None,
) -> Sweep:
    """What sweep returns; every cell is run from its block on, on all tokens of its prompt. What cannot differ is not run."""
    import torch

    layers = blocks(model)
    depth = len(layers)
    check_source(model, pairs, source)
    found = empty(pairs, depth)
    run_pairs = pairs.from_difference() if source is None else pairs
    cells = tokens = 0
    with torch.inference_mode():
        for pair, (prompt, requested) in enumerate(zip(pairs.corrupt, pairs.answers, strict=True)):
            first, width, skipped = run_pairs.first[pair], run_pairs.width(pair), run_pairs.first[pair] - pairs.first[pair]
            given = record_columns(model, [pairs.clean[pair]], [first])[0] if source is None else source[pair]
            found.clean[pair] = difference(model, [pairs.clean[pair]], requested)[0]
            with _recording_outputs(layers) as kept:
                found.corrupt[pair] = difference(model, [prompt], requested)[0]
            found.patched[pair, :, : pairs.width(pair)] = found.corrupt[pair]
            step = max(1, budget_bytes // (len(prompt) * bytes_per_token(model, len(prompt))))
            for layer in range(depth):
                columns = list(range(width) if layer + 1 < depth else range(width - 1, width))
                for at in range(0, len(columns), step):
                    batch = torch.tensor(columns[at : at + step])
                    states = stream(kept[layer]).repeat(len(batch), 1, 1)
                    states[torch.arange(len(batch)), first + batch] = given[layer, batch].to(states.device, states.dtype)
                    with _starting_at(layers, layer, kept, states):
                        values = difference(model, [prompt] * len(batch), requested)
                    found.patched[pair, layer, skipped + batch] = values
                cells += len(columns)
                tokens += (depth - layer - 1) * len(columns) * len(prompt)
            tokens += depth * len(prompt) * (3 if source is None else 2)
            if progress is not None:
                progress(pair + 1, len(pairs.corrupt))
    return Sweep(found.patched, found.clean, found.corrupt, cells, tokens)


@contextmanager
def _recording_outputs(layers: "list[nn.Module]") -> Iterator[list[Any]]:
    """What each block returns in the forward that is run inside."""
    kept: list[Any] = []
    with ExitStack() as stack:
        for block in layers:
            stack.callback(block.register_forward_hook(lambda _module, _args, output: kept.append(output)).remove)
        yield kept


@contextmanager
def _starting_at(layers: "list[nn.Module]", layer: int, kept: list[Any], states: "Tensor") -> Iterator[None]:
    """Inside, the blocks up to this one compute nothing, and what leaves it is given."""
    with ExitStack() as stack:
        for block, usual in zip(layers[: layer + 1], kept, strict=False):
            stack.enter_context(standing_in(block, with_stream(usual, states)))
        yield
