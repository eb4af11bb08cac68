"""`--mechdrift-plan`: what a run would ask and take, before it starts. No weights are loaded, nothing is measured or kept."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.generate.choose import generator_for
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Part, Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.engine.sweep import BUDGET_PER_TOKEN
from mechdrift.engine.work import NOTHING, Work
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.registry import PLANS, provided
from mechdrift.models.devices import pick_device, pick_dtype
from mechdrift.report.terminal import aligned
from mechdrift.session.fixtures import inputs_of
from mechdrift.session.state import State

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SECONDS = 0.3  # that each rate is measured for, at least
EIGEN_SIDE = 512  # of the matrix whose decomposition is timed
LARGEST = 1 << 26  # values of the matrix that is read for the memory's rate
HEADS = ("family", "rows", "gated", "prompts", "tokens", "replies", "their tokens", "minutes", "kept, MB")


@dataclass
class CountingStore(Store):
    """An empty store that makes nothing: it counts what its parts would take, and answers with zeros."""

    requested: set[str] = field(default_factory=set)
    """Provenances: what was asked before takes nothing."""
    kinds: set[str] = field(default_factory=set)
    """What kinds of things were asked."""

    def get(self, provenance: dict[str, Any], parts: Sequence[Part], label: str = "") -> "list[Tensor]":  # noqa: ARG002
        """Zeros in the place of every part."""
        import torch

        self.kinds.add(provenance["what"])
        if (summary := repr(provenance)) not in self.requested:
            self.requested.add(summary)
            self.work = sum((part.whole_work for part in parts), self.work)
        return [torch.zeros(()).expand(part.shape) for part in parts]


class CountingRecorder(Recorder):
    """A recorder that loads no model."""

    def joined(self, shape: tuple[int, ...], *_parts: Any) -> "np.ndarray":
        """Zeros, which take no memory while nobody writes to them."""
        import numpy as np

        return np.zeros(shape, dtype=np.float32)


@dataclass(frozen=True)
class Rates:
    """What a device does in a second, measured on products of the model's size."""

    flops: float
    """Of a matrix product: what forwards of many tokens are made of."""
    bytes: float
    """Read by a product of a matrix and a vector: what replies, a token at a time, are made of."""
    cubes: float
    """Of symmetric eigendecompositions in float64, the third power of a matrix's side."""

    @classmethod
    def of(cls, device: str, dtype: str, width: int, weights: int, tokens: int) -> "Rates":
        """Measure them; takes a second or two."""
        import torch

        on, kind = ("cuda" if device in (MAP, TENSOR_PARALLEL) else device), getattr(torch, dtype)
        given, matrix = torch.randn(tokens, width, device=on).to(kind), torch.randn(width, 4 * width, device=on).to(kind)
        rows = max(1, min(weights, LARGEST) // width)
        tall, vector = torch.randn(rows, width, device=on).to(kind), torch.randn(width, device=on).to(kind)
        side = min(EIGEN_SIDE, width)
        symmetric = torch.randn(side, side, dtype=torch.float64, device=on)
        symmetric = symmetric + symmetric.mT
        products = _per_second(lambda: given @ matrix, on)
        readings = _per_second(lambda: tall @ vector, on)
        decompositions = _per_second(lambda: torch.linalg.eigh(symmetric), on)
        return cls(products * 2 * given.numel() * 4 * width, readings * tall.numel() * tall.itemsize, decompositions * side**3)

    def seconds(self, work: Work, weights: int, head: int, itemsize: int) -> float:
        """Of work with a model of so many weights, the head's among them."""
        tokens = (weights - head) * (work.tokens + work.reply_tokens) + head * (
            work.prompts + work.head_tokens + work.reply_tokens
        )
        return 2 * tokens / self.flops + work.reply_steps * weights * itemsize / self.bytes + work.matrix_cubes / self.cubes


def _per_second(do: Callable[[], object], device: str) -> float:
    """How often something is done in a second."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    do()
    wait()
    started, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < SECONDS:
        do()
        wait()
        times += 1
    return times / passed


def planned(state: State) -> tuple[dict[str, Work | str], bool]:
    """What each family of the collected rows takes at most, in the order in which they run, or why it cannot be told.

    And whether any sweeps, which needs memory of its own.
    """
    settings, inputs, device = state.settings, state.inputs, pick_device(state.settings.device)
    store = CountingStore(Path())
    pool = Pool(device, pick_dtype(settings.dtype, device), inputs.templates)
    recorder = CountingRecorder(pool, store, settings.batch)
    found: dict[str, Work | str] = {}
    for between in state.request.betweens:
        if between.later in inputs.absent:
            continue
        pair = inputs.pair(between)
        generator = generator_for(recorder, settings.generator, settings.vllm_args, pair.points)
        of_pair = inputs_of(state, pair, recorder, generator)
        for family in sorted({each.finding.family for each in state.expected if each.between == between}):
            so_far, before = found.get(family, NOTHING), store.work
            try:
                plan_of(family)(of_pair)
                found[family] = so_far if isinstance(so_far, str) else so_far + (store.work - before)
            except (Unmeasurable, InputError) as error:
                found[family] = str(error)
    return found, "sweep" in store.kinds


def plan_of(family: str) -> Callable[[Inputs], None]:
    """What a family asks at most. Raises Unmeasurable where its package says nothing of that."""
    plan: Callable[[Inputs], None] | None = provided(PLANS, family)
    if plan is None:
        raise Unmeasurable("its package says nothing of what it takes")
    return plan


def plan_lines(state: State) -> list[str]:
    """The plan in lines."""
    import torch

    settings, points = state.settings, state.inputs.points
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of measures of zeros
        found, sweeping = planned(state)
    device = pick_device(settings.device)
    work = {family: amount for family, amount in found.items() if isinstance(amount, Work)}
    dtype = pick_dtype(settings.dtype, device)
    larger = max(points.values(), key=lambda point: point.parameters)
    size = getattr(torch, dtype).itemsize
    rates = Rates.of(device, dtype, larger.width, larger.parameters, settings.batch)
    table: list[tuple[str, ...]] = [HEADS]
    for family, amount in [*work.items(), ("all", sum(work.values(), NOTHING))]:
        rows = [requested for requested in state.expected if family in (requested.finding.family, "all")]
        gated = sum(requested.rule(state.profile).role == "gate" for requested in rows)
        minutes = rates.seconds(amount, larger.parameters, _head(larger), size) / 60
        numbers = (len(rows), gated, amount.prompts, amount.tokens, amount.replies, amount.reply_tokens)
        table.append((family, *(f"{number:,}" for number in numbers), f"{minutes:.2f}", f"{amount.bytes / 1e6:,.0f}"))
    lines = ["".join(line).rstrip() for line in aligned(table)]
    lines += [f"{family} is not counted: {why}" for family, why in found.items() if isinstance(why, str)]
    sweeps = settings.batch * BUDGET_PER_TOKEN["cpu" if device == "cpu" else "gpu"]
    memory = 1.15 * larger.parameters * size + 1.5e9 + (sweeps if sweeping else 0)
    lines += [
        "upper bounds, with an empty cache: kinds that base does not know need less; a family is counted whole",
        "of knowledge an estimate: pairs of kinds that base knows are swept in the place of others, longer or shorter ones",
        "minutes are an estimate, without loading and statistics, by rates measured just now: "
        f"{rates.flops / 1e9:,.0f} GFLOP/s, {rates.bytes / 1e9:,.1f} GB/s, {rates.cubes / 1e9:,.2f}e9 n^3/s (eigenvectors)",
        f"memory: at most {memory / 1e9:.1f} GB on {device} in {dtype} (docs/memory.md)",
    ]
    return lines


def _head(checkpoint: Checkpoint) -> int:
    """Weights of the head."""
    return int(load_config(checkpoint).get_text_config(decoder=True).vocab_size) * checkpoint.width
