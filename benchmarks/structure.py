"""What a change of weights is made of: a plain loop of torch.linalg.svd, or one basis for all. `python benchmarks/structure.py`.

Both ways take the same pair of random matrices and as many random changes of it, in float64; the loop turns those by uniform
(Haar) rotations. Matrices of one shape cost the same, so each shape is timed once and counts as often as a block has it.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import torch

from mechdrift.engine.weights.decompose import compare, haar

MODELS = {
    "SmolLM2-135M": {"q, o": (576, 576, 2), "k, v": (192, 576, 2), "gate, up, down": (1536, 576, 3)},
    "Llama-3.1-8B": {"q, o": (4096, 4096, 2), "k, v": (1024, 4096, 2), "gate, up, down": (14336, 4096, 3)},
}
"""Rows, columns and how many a block has."""
T = TypeVar("T")
DRAWS, CHANGE = 4, 0.05  # random changes a matrix; relative norm of the change
HEADS = (
    "model, one block",
    "matrices",
    "plain loop, s",
    "ours, s",
    "ratio",
    "error of s / s_1",
    "error of the gap",
    "null gap / loop's",
)


class Loop(NamedTuple):
    """What the plain loop finds."""

    seconds: float
    post: torch.Tensor
    gap: float
    null_gap: float


def main() -> None:
    """Print one table. CPU seconds of one thread, so that other work hardly counts; on a GPU seconds of the clock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="SmolLM2-135M")
    parser.add_argument("--matrices", choices=("q, o", "k, v", "gate, up, down"), help="of one shape; all if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smaller", type=int, default=1, help="both sides of every matrix divided by so much")
    parser.add_argument(
        "--loop-draws",
        type=int,
        default=DRAWS,
        help="random changes that the loop makes; its time is scaled to all",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compare(torch.eye(2, device=options.device), torch.ones(2, 2, device=options.device), 1, 0)  # what is loaded once
    line(HEADS)
    line("---" for _ in HEADS)
    totals = [0.0, 0.0]
    timed_shapes = {kinds: of for kinds, of in MODELS[options.model].items() if options.matrices in (None, kinds)}
    for kinds, (*shape, count) in timed_shapes.items():
        rows, columns = (side // options.smaller for side in shape)
        base, change = (torch.randn(rows, columns, device=options.device) for _ in range(2))
        post = base + CHANGE * base.norm() / change.norm() * change
        seconds, found = timed(lambda: compare(base, post, DRAWS, 0))  # noqa: B023 - called at once
        loop = plain(base.double(), post.double(), options.loop_draws)
        error = float((torch.from_numpy(found.post) - loop.post).abs().max()) / found.base[0]
        totals = [total + count * one for total, one in zip(totals, (loop.seconds, seconds), strict=True)]
        summary = f"{loop.seconds:.2f}", f"{seconds:.2f}", f"{loop.seconds / seconds:.1f}", f"{error:.0e}"
        errors = f"{abs(found.gap - loop.gap):.0e}", f"{found.null_gap.mean() / loop.null_gap:.3f}"
        line((options.model, f"{kinds}: {rows} x {columns}", *summary, *errors))
    counted = f"all {sum(count for *_, count in timed_shapes.values())}"
    line((options.model, counted, *(f"{total:.2f}" for total in totals), f"{totals[0] / totals[1]:.1f}", "", "", ""))


def plain(base: torch.Tensor, post: torch.Tensor, made: int) -> Loop:
    """Base, post and every random change decomposed by themselves."""

    def gap_of(u: torch.Tensor, v: torch.Tensor, changed: torch.Tensor) -> tuple[torch.Tensor, float]:
        u_p, values, v_p = torch.linalg.svd(changed, full_matrices=False)
        turned = (u.mT @ u_p) @ (v @ v_p.mT).mT - torch.eye(len(v), dtype=v.dtype, device=v.device)
        return values, float(turned.norm()) / len(v) ** 0.5

    def draw(seed: int) -> float:
        left, right = (haar(size, torch.Generator().manual_seed(seed)).to(base) for size in base.shape)
        return gap_of(u, v, base + left @ (post - base) @ right)[1]

    first, (u, _, v) = timed(lambda: torch.linalg.svd(base, full_matrices=False))
    second, (values, gap) = timed(lambda: gap_of(u, v, post))
    third, gaps = timed(lambda: [draw(seed) for seed in range(made)])
    return Loop(first + second + third * DRAWS / made, values.cpu(), gap, sum(gaps) / made)


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what was made in them."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started, found


def line(cells: Iterable[str]) -> None:
    """One row of the table, as soon as it is known."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
