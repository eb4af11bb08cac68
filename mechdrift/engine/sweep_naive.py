"""Activation patching by whole forwards: what the fast way (sweep.py) has to equal, and what runs where it does not."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mechdrift.engine.batches import Progress
from mechdrift.engine.recording import record_columns
from mechdrift.engine.sweep import BUDGET, Pairs, Sweep, bytes_per_token, check_source, empty, sweep
from mechdrift.models.devices import input_device, last_only
from mechdrift.models.sites import blocks, stream, with_stream

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def sweep_naive(
    model: "PreTrainedModel",
    pairs: Pairs,
    budget_bytes: int = BUDGET,
    source: "Tensor | None" = None,
    progress: Progress | None = None,
    cells: int | None = None,
) -> Sweep:
    """What sweep returns, by a whole forward of the corrupt prompt for every cell; no cell is skipped.

    cells: of one pair in one batch; as many as the budget holds if not given.
    """
    import torch

    depth = len(blocks(model))
    check_source(model, pairs, source)
    found = empty(pairs, depth)
    count = tokens = 0
    with torch.inference_mode():
        for pair, (prompt, requested, start) in enumerate(zip(pairs.corrupt, pairs.answers, pairs.first, strict=True)):
            width = pairs.width(pair)
            given = record_columns(model, [pairs.clean[pair]], [start])[0] if source is None else source[pair]
            found.clean[pair], found.corrupt[pair] = (
                difference(model, [ids], requested)[0] for ids in (pairs.clean[pair], prompt)
            )
            places = [(layer, column) for layer in range(depth) for column in range(width)]
            step = cells or max(1, budget_bytes // (len(prompt) * bytes_per_token(model, len(prompt))))
            for at in range(0, len(places), step):
                batch = places[at : at + step]
                with _patched(model, batch, start, given):
                    values = difference(model, [prompt] * len(batch), requested)
                for (layer, column), value in zip(batch, values, strict=True):
                    found.patched[pair, layer, column] = value
            count += len(places)
            tokens += depth * len(prompt) * (len(places) + 3 if source is None else len(places) + 2)
            if progress is not None:
                progress(pair + 1, len(pairs.corrupt))
    return Sweep(found.patched, found.clean, found.corrupt, count, tokens)


def check_sweep(
    model: "PreTrainedModel",
    pairs: Pairs,
    columns: int = 3,
    way: Callable[["PreTrainedModel", Pairs], Sweep] = sweep,
) -> float:
    """Largest difference between a way to sweep and sweep_naive on a few pairs, as a share of the largest value.

    So many columns of each pair, evenly spread, the first and the last among them, are run whole. Infinite where anything is not
    finite. Above selfcheck.tolerance_of(model), another way has to be used.
    """
    import torch

    fast = way(model, pairs)
    gaps, sizes = [], []
    with torch.inference_mode():
        for pair, (prompt, requested, start) in enumerate(zip(pairs.corrupt, pairs.answers, pairs.first, strict=True)):
            width = pairs.width(pair)
            given = record_columns(model, [pairs.clean[pair]], [start])[0]
            chosen = sorted({round(share * (width - 1) / max(1, columns - 1)) for share in range(columns)})
            cells = [(layer, column) for layer in range(fast.patched.shape[1]) for column in chosen]
            with _patched(model, cells, start, given):
                values = difference(model, [prompt] * len(cells), requested)
            layers, places = zip(*cells, strict=True)
            found = fast.patched[pair, list(layers), list(places)]
            ends = torch.stack([difference(model, [ids], requested)[0] for ids in (pairs.clean[pair], prompt)])
            gaps += [(found - values).abs().max(), (torch.stack([fast.clean[pair], fast.corrupt[pair]]) - ends).abs().max()]
            sizes += [values.abs().max(), ends.abs().max()]
    gap = float(torch.stack(gaps).max() / torch.stack(sizes).max())
    return gap if gap == gap and all(bool(each.isfinite()) for each in gaps) else float("inf")


def difference(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], requested: tuple[int, int]) -> "Tensor":
    """Logit(correct) - logit(other) after prompts of one length, by whole forwards: float32 [prompt] on the CPU."""
    import torch

    ids = torch.tensor([list(prompt) for prompt in prompts], device=input_device(model))
    logits = (
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=last_only(model))
        .logits[:, -1]
        .float()
    )
    return (logits[:, requested[0]] - logits[:, requested[1]]).cpu()


@contextmanager
def _patched(model: "PreTrainedModel", cells: Sequence[tuple[int, int]], start: int, given: "Tensor") -> Iterator[None]:
    """Row r of the batch that is run inside has cell r patched from given [layer, column, d_model]."""

    def edit(layer: int, rows: list[int], columns: list[int]) -> "Callable[..., Any]":
        def hook(_module: "nn.Module", _args: Any, output: Any) -> Any:
            states = stream(output).clone()
            states[rows, [start + column for column in columns]] = given[layer, columns].to(states.device, states.dtype)
            return with_stream(output, states)

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(blocks(model)):
            rows = [row for row, (patched, _) in enumerate(cells) if patched == layer]
            if rows:
                stack.callback(block.register_forward_hook(edit(layer, rows, [cells[row][1] for row in rows])).remove)
        yield
