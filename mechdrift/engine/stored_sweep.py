"""Sweeps by content: read from the store where they are already known, block of pairs by block."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.config import require_known
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import Progress
from mechdrift.engine.selfcheck import require_whole_state, why_whole
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.sweep import BUDGET_PER_TOKEN, Pairs, Sweep, sweep
from mechdrift.engine.sweep_naive import check_sweep, sweep_naive
from mechdrift.engine.sweep_restarted import sweep_restarted
from mechdrift.engine.work import Work
from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# A block of pairs is what is swept between two savings, and whose activations of another model are in memory at a time.
BLOCK_PAIRS, BLOCK_BYTES = 64, 1 << 28
Sweeper = Callable[..., Sweep]


@dataclass
class Columns:
    """A checkpoint's activations on the clean prompts of pairs."""

    recorder: Recorder
    """Whose store holds them."""
    checkpoint: Checkpoint
    """Whose they are."""
    pairs: Pairs
    """On which."""
    kept: "dict[tuple[int, ...], np.ndarray]" = field(default_factory=dict)
    """Blocks that the store could not take."""

    def of(self, block: list[int]) -> "np.ndarray":
        """Of one block: float32 [pair, layer, column, d_model], 0 beyond a pair's last token."""
        if (values := self.kept.get(tuple(block))) is not None:
            return values
        part = self.pairs.take(block)
        return self.recorder.columns(self.checkpoint, part.clean, part.first)


def record_clean(recorder: Recorder, checkpoint: Checkpoint, pairs: Pairs) -> Columns:
    """Record block outputs of the clean prompts at every swept token, to be patched into another checkpoint.

    They are kept on disk, so that models and the activations of all pairs need not be in memory together.
    """
    found = Columns(recorder, checkpoint, pairs)
    for block in blocks_of(checkpoint, pairs):
        values = found.of(block)
        if recorder.store.read_only:
            found.kept[tuple(block)] = values
    return found


def sweep_through(recorder: Recorder, checkpoint: Checkpoint, pairs: Pairs, source: Columns | None = None) -> Sweep:
    """Every cell of every pair (engine/sweep.py), from the store where it is known; source: activations to patch in instead.

    A pass takes at most BUDGET_PER_TOKEN bytes for each token of a batch. Where the fast way does not agree with whole forwards
    on a few cells of this model, forwards that start at the patched block are used, or whole ones, and a warning says so.
    Raises Unmeasurable where the two models' widths or numbers of blocks differ, a value is not finite, or more than the stream
    passes from block to block.
    """
    import torch

    if source is not None and (source.checkpoint.layers, source.checkpoint.width) != (checkpoint.layers, checkpoint.width):
        raise Unmeasurable(
            f"layers x width differ: {source.checkpoint.spec} {source.checkpoint.layers} x {source.checkpoint.width}, "
            f"{checkpoint.spec} {checkpoint.layers} x {checkpoint.width}"
        )
    require_known(checkpoint, pairs.clean)
    widest = pairs.widest
    sweepers: list[Sweeper] = []  # found on the first part: how this model can be run

    def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
        part = pairs.take(chosen)
        if not sweepers and checkpoint.short in recorder.slower_sweeps:
            sweepers.append(recorder.slower_sweeps[checkpoint.short])
        if not sweepers:
            longest = max(range(len(pairs.corrupt)), key=lambda number: len(pairs.corrupt[number]))  # beyond a window that slides
            require_whole_state(model, pairs.corrupt[longest])
            sweeper, slower = fastest_exact(model, pairs.take([longest]))
            if slower:
                recorder.warnings.append(f"{checkpoint.spec}: {slower}")
                recorder.slower_sweeps[checkpoint.short] = sweeper
            sweepers.append(sweeper)
        budget = recorder.batch_tokens * BUDGET_PER_TOKEN["cpu" if model.device.type == "cpu" else "gpu"]
        given = None if source is None else torch.from_numpy(source.of(chosen))
        found = sweepers[0](model, part, budget, given, progress)
        cells = torch.zeros(len(chosen), checkpoint.layers, widest)
        for row in range(len(chosen)):
            cells[row, :, : part.width(row)] = found.patched[row, :, : part.width(row)]
        return torch.cat([found.clean[:, None], found.corrupt[:, None], cells.flatten(1)], dim=1)

    requested = Prompts([list(prompt) for prompt in pairs.corrupt], list(pairs.first), list(pairs.answers))
    more = {"clean": pairs.clean, "source": source and source.checkpoint.digests}
    shape = len(pairs.corrupt), 2 + checkpoint.layers * widest

    def takes(chosen: list[int]) -> Work:
        part = pairs.take(chosen)
        return Work(prompts=len(chosen), tokens=block_runs(part, checkpoint.layers, source is None) // checkpoint.layers)

    values = recorder.read("sweep", checkpoint, requested, run, shape, more, cut=blocks_of(checkpoint, pairs), work=takes)
    cells = torch.from_numpy(values[:, 2:]).reshape(-1, checkpoint.layers, widest)
    for number in range(len(cells)):
        cells[number, :, pairs.width(number) :] = torch.nan
    return Sweep(cells, torch.from_numpy(values[:, 0]), torch.from_numpy(values[:, 1]))


def fastest_exact(model: Any, pairs: Pairs) -> tuple[Sweeper, str]:
    """The fastest way to sweep this model that agrees with whole forwards on these pairs; why it is not the fast one, if so."""
    if not (why := why_whole(model, "the fast sweep", lambda: check_sweep(model, pairs))):
        return sweep, ""
    if not (again := why_whole(model, "a restarted one", lambda: check_sweep(model, pairs, way=sweep_restarted))):
        return sweep_restarted, f"{why}; patched by forwards from the patched block on, slower"
    return sweep_naive, f"{why}; {again}; patched by whole forwards, slower"


def block_runs(pairs: Pairs, layers: int, own: bool) -> int:
    """How many times a block is run on a token (docs/design/sweep.md); own: not with another model's activations."""
    run = pairs.from_difference() if own else pairs
    widths = [(len(ids), run.width(number)) for number, ids in enumerate(run.corrupt)]
    return sum(layers * (n + w) + layers * (layers - 1) // 2 * (w * (w + 1) // 2) for n, w in widths)


def blocks_of(checkpoint: Checkpoint, pairs: Pairs) -> list[list[int]]:
    """Indices of pairs, those of like length together."""
    order = sorted(range(len(pairs.corrupt)), key=lambda pair: (len(pairs.corrupt[pair]), pair))
    step = min(BLOCK_PAIRS, max(1, BLOCK_BYTES // (4 * checkpoint.layers * pairs.widest * checkpoint.width)))
    return [order[at : at + step] for at in range(0, len(order), step)]
