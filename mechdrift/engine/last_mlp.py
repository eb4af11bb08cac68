"""The last MLP, the final norm and the head: all that lies between a neuron of the last block and the next token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from mechdrift.engine.batches import Progress
from mechdrift.errors import Unmeasurable
from mechdrift.models.ending import ending_of
from mechdrift.models.head import Head, head_of
from mechdrift.models.sites import final_norm, width_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

BLOCK_VALUES = 1 << 22  # logits that are held at a time, whatever the vocabulary
BLOCK_ROWS = 1 << 14  # rows of the head that are held in float64 at a time
USUAL_EPS = (1e-5, 1e-6)  # of norms that do not name theirs
TINY = 1e-3


@dataclass(frozen=True)
class Norm:
    """A norm as x -> gain * (C x) / scale(x) + bias, C the centring of a LayerNorm."""

    gain: "Tensor"
    """float32 [d_model], the family's offset in it."""
    bias: "Tensor | None"
    """float32 [d_model]; RMSNorms have none."""
    eps: float
    """Under the root."""
    centred: bool
    """Whether the mean over d_model is taken out."""

    def centre(self, x: "Tensor") -> "Tensor":
        """C x, over the last axis."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: "Tensor") -> "Tensor":
        """Root of the mean square of C x, [..., 1]."""
        return (self.centre(x).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def linear(self, x: "Tensor") -> "Tensor":
        """What is left of the norm where its scale is left out: gain * (C x)."""
        return self.gain * self.centre(x)


@dataclass(frozen=True)
class LastMLP:
    """Weights in float32, the head's with the final norm's gain folded in."""

    raw: "Tensor"
    """Rows of W_out as they are, [neuron, d_model]."""
    written: "Tensor"
    """The direction in the stream that a neuron writes to: W_out through the gain of the norm after the MLP, where there is one,
    and centred where the final norm centres; [neuron, d_model]."""
    after: Norm | None
    """The norm between the MLP and the stream, in post-norm families."""
    norm: Norm
    """The final norm."""
    head: "Tensor"
    """[token, d_model]: W_U with the final norm's gain and centring folded in, so logits are (head h) / scale(h) + constant."""
    constant: "Tensor"
    """[token]: what the final norm's bias and the head's give every position."""
    after_head: Head
    """What makes logits of the head's products."""

    def logits(self, products: "Tensor", scale: "Tensor") -> "Tensor":
        """Logits of (head h) products, [..., token], and scales, [..., 1]."""
        return self.after_head.logits(products / scale + self.constant)


def read_last_mlp(model: "PreTrainedModel", tokens: int, neurons: bool = True) -> LastMLP:
    """The weights, on the head's device. Raises Unmeasurable where they cannot be read as matrices.

    tokens: rows of the head that count, those that a tokenizer can give; rows that pad a vocabulary come after them. neurons:
    False leaves the MLP out, which a mixture of experts does not have as a matrix.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    ending = ending_of(model) if neurons else None
    with torch.inference_mode():
        unembedding = _plain(head, "the head")[:tokens].float()
        device = unembedding.device
        norm = _norm(final_norm(model), width_of(model), device)
        raw, after = torch.empty(0, unembedding.shape[1], device=device), None
        if ending is not None:
            raw = _plain(ending.down, "the last MLP's output matrix").float().to(device)
            if not isinstance(ending.down, Conv1D):  # GPT-2's matrices are stored the other way round
                raw = raw.T.contiguous()
            if ending.after is None:
                raw = raw * ending.factor
            else:
                after = _norm(ending.after, width_of(model), device, ending.factor)
        constant = torch.zeros(len(unembedding), device=device)
        if norm.bias is not None:
            constant = unembedding @ norm.bias
        if getattr(head, "bias", None) is not None:
            constant = constant + head.bias[:tokens].float()
        folded = norm.centre(unembedding * norm.gain)  # C is symmetric, so rows times C are rows centred
        written = norm.centre(raw if after is None else after.linear(raw))
    return LastMLP(raw, written, after, norm, folded, constant, head_of(model))


def _plain(module: "nn.Module", name: str) -> "Tensor":
    """A module's weight. Raises Unmeasurable where it is no plain matrix."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2 or not weight.is_floating_point() or weight.is_meta or hasattr(weight, "to_local"):
        raise Unmeasurable(f"{name} is quantised, offloaded or split over devices; this is read from plain weights")
    return weight


def _norm(module: "nn.Module", width: int, device: Any, factor: float = 1.0) -> Norm:
    """A norm's weights in float32, of what it gives times a factor: whether it centres, and what it adds to its gain, by trial.

    Raises Unmeasurable for a module that is neither an RMSNorm nor a LayerNorm.
    """
    import torch

    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    named = [getattr(module, name) for name in ("variance_epsilon", "eps") if getattr(module, name, None) is not None]
    gain = torch.ones(width, device=device) if weight is None else weight.float().to(device)
    shift = None if bias is None else bias.float().to(device)
    tried = torch.randn(8, width, generator=torch.Generator().manual_seed(0)).to(device)
    tried[::2] *= TINY  # beside which eps counts
    wanted = deepcopy(module).float().to(device)(tried)
    for eps, centred, offset in product(named or USUAL_EPS, (False, True), (0.0, 1.0)):
        norm = Norm(gain + offset, shift, float(eps), centred)
        if torch.allclose(norm.linear(tried) / norm.scale(tried) + (0.0 if shift is None else shift), wanted, 1e-4, 1e-5):
            return Norm(factor * norm.gain, None if shift is None else factor * shift, float(eps), centred)
    raise Unmeasurable(f"{type(module).__name__} is neither an RMSNorm nor a LayerNorm")


def null_directions(d_model: int) -> int:
    """k: how many of the head's least singular directions are taken for its null space, one in 64; 12 of GPT-2's 768."""
    return max(1, d_model // 64)


def neuron_table(mlp: LastMLP, progress: Progress | None = None) -> "Tensor":
    """Of every neuron of the last MLP, what the published rule goes by: float32 [neuron, 3] on the CPU.

    norm: length of what it writes. LogitVar: variance over tokens v (unbiased, as published) of the cosine between that and the
    folded W_U[:, v], W_U centred over the vocabulary. rho: share of its squared length in the bottom null_directions left
    singular directions of that W_U; the one that the norm's centring takes out is not counted. float64 sums of float32 weights,
    block by block. Source: Stolfo et al. 2024.
    """
    import torch

    with torch.inference_mode():
        count, width = mlp.head.shape
        centre = torch.zeros(width, dtype=torch.float64, device=mlp.head.device)
        for rows in mlp.head.split(BLOCK_ROWS):
            centre += rows.double().sum(0) / count
        square, unit_square = (torch.zeros(width, width, dtype=torch.float64, device=centre.device) for _ in range(2))
        unit_sum = torch.zeros_like(centre)
        done = 0
        for rows in mlp.head.split(BLOCK_ROWS):
            centred = rows.double() - centre
            unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
            square += centred.T @ centred
            unit_square += unit.T @ unit
            unit_sum += unit.sum(0)
            done += len(rows)
            if progress is not None:
                progress(done, count)
        covariance = (unit_square - torch.outer(unit_sum, unit_sum) / count) / (count - 1)
        written = mlp.written.double()
        norms = written.norm(dim=1)
        unit = written / norms[:, None].clamp(min=torch.finfo(torch.float32).tiny)
        variance = ((unit @ covariance) * unit).sum(1).clamp(min=0.0)
        first = int(mlp.norm.centred)
        bottom = torch.linalg.eigh(square).eigenvectors[:, first : first + null_directions(width)]
        rho = (unit @ bottom).square().sum(1)
        return torch.stack([norms, variance, rho], dim=1).float().cpu()


def nearest(mlp: LastMLP, directions: "Tensor") -> "Tensor":
    """For each direction, [k, d_model], the neuron that writes most nearly along it, and their cosine: float32 [k, 2]."""
    import torch

    with torch.inference_mode():
        given = directions.to(mlp.written)
        cosines = torch.nn.functional.normalize(given, dim=1) @ torch.nn.functional.normalize(mlp.written, dim=1).T
        best = cosines.max(dim=1)
        return torch.stack([best.indices.float(), best.values], dim=1).cpu()


@dataclass(frozen=True)
class Ablation:
    """Neurons whose activations are replaced by their means."""

    neurons: tuple[int, ...]
    """Which."""
    means: tuple[float, ...]
    """By what."""


@contextmanager
def ablating_neurons(model: "PreTrainedModel", ablation: Ablation) -> Iterator[None]:
    """Replace activations of the last MLP's neurons by their means, at every position: the slow way, by hooks."""
    import torch

    def edit(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        activations = args[0].clone()
        activations[..., list(ablation.neurons)] = torch.tensor(ablation.means).to(activations)
        return (activations, *args[1:])

    handle = ending_of(model).down.register_forward_pre_hook(edit)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Streams:
    """What a forward left behind at some positions, and all that ablations are computed from; float32."""

    final: "Tensor"
    """The residual stream that enters the final norm, [position, d_model]."""
    mlp: "Tensor | None"
    """What the last MLP gave the norm after it, [position, d_model]; None in pre-norm families."""
    activations: "Tensor"
    """Of the recorded neurons, [position, neuron]."""

    def part(self, where: "slice | Tensor") -> "Streams":
        """Those of some positions."""
        return Streams(self.final[where], None if self.mlp is None else self.mlp[where], self.activations[where])

    def to(self, like: "Tensor") -> "Streams":
        """On another device."""
        return Streams(self.final.to(like), None if self.mlp is None else self.mlp.to(like), self.activations.to(like))


def streams_of(recorded: "Tensor", width: int, neurons: int) -> Streams:
    """Out of rows of record.record_last_mlp, [position, d_model (+ d_model) + neuron]."""
    final, mlp, activations = recorded.split([width, recorded.shape[-1] - width - neurons, neurons], dim=-1)
    return Streams(final, mlp if mlp.shape[-1] else None, activations)


class Unembedding:
    """Logits of a block of positions, plain and under ablations, for one product with the head (two in post-norm families).

    A neuron's ablation changes the stream by a multiple of one direction, so the logits by that multiple of the head's product
    with it: work for an ablation is in [position, token], not in [position, d_model, token].
    """

    def __init__(self, mlp: LastMLP, streams: Streams, neurons: Sequence[int]) -> None:
        """Of a block of positions; neurons: those whose activations it has."""
        self.mlp, self.place = mlp, {neuron: column for column, neuron in enumerate(neurons)}
        self.streams = streams.to(mlp.head)
        self.products = self.streams.final @ mlp.head.T
        self.scale = mlp.norm.scale(self.streams.final)
        if mlp.after is not None:
            assert self.streams.mlp is not None
            self.added = mlp.after.linear(self.streams.mlp) / mlp.after.scale(self.streams.mlp)
            self.added_products = self.added @ mlp.head.T

    def plain(self) -> "Tensor":
        """As the model has them, [position, token]."""
        return self.mlp.logits(self.products, self.scale)

    def under(self, ablation: Ablation, written_products: "Tensor") -> "tuple[Tensor, Tensor]":
        """Under an ablation, with the final norm's scale as it then is (total) and as it was (direct), [position, token] each.

        written_products: what the ablated neurons write, through the head: [neuron, token].
        """
        import torch

        mlp, final = self.mlp, self.streams.final
        columns = [self.place[neuron] for neuron in ablation.neurons]
        away = self.streams.activations[:, columns] - torch.tensor(ablation.means).to(final)
        if mlp.after is None:
            moved = final - away @ mlp.raw[list(ablation.neurons)]
            products = self.products - away @ written_products
        else:
            # The norm after the MLP sees another length, and so scales all that the MLP writes anew.
            before = self.streams.mlp
            assert before is not None
            left = before - away @ mlp.raw[list(ablation.neurons)]
            after = mlp.after.scale(left)
            moved = final - self.added + mlp.after.linear(left) / after
            ratio = mlp.after.scale(before) / after
            products = self.products + (ratio - 1) * self.added_products - (away / after) @ written_products
        return mlp.logits(products, mlp.norm.scale(moved)), mlp.logits(products, self.scale)


def written_products(mlp: LastMLP, neurons: Sequence[int]) -> "Tensor":
    """What neurons write, through the head: [neuron, token]."""
    return mlp.written[list(neurons)] @ mlp.head.T


def entropy(logits: "Tensor") -> "Tensor":
    """Of the next token, in nats, over the last axis."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


def in_blocks(
    mlp: LastMLP, streams: Streams, neurons: Sequence[int], progress: Progress | None = None
) -> Iterator[tuple[slice, Unembedding]]:
    """Positions in blocks of BLOCK_VALUES logits, so that memory is bounded whatever the vocabulary."""
    step, count = max(1, BLOCK_VALUES // len(mlp.head)), len(streams.final)
    for start in range(0, count, step):
        part = slice(start, start + step)
        yield part, Unembedding(mlp, streams.part(part), neurons)
        if progress is not None:
            progress(min(start + step, count), count)


def entropies(
    mlp: LastMLP,
    streams: Streams,
    neurons: Sequence[int],
    ablations: Sequence[Ablation],
    progress: Progress | None = None,
) -> "Tensor":
    """Entropy of the next token, float32 [position, 1 + 2 k] on the CPU: plain, then total and direct of every ablation.

    neurons: those of the streams' activations.
    """
    import torch

    found = torch.empty(len(streams.final), 1 + 2 * len(ablations))
    with torch.inference_mode():
        through = [written_products(mlp, ablation.neurons) for ablation in ablations]
        for part, block in in_blocks(mlp, streams, neurons, progress):
            found[part, 0] = entropy(block.plain()).cpu()
            for number, (ablation, products) in enumerate(zip(ablations, through, strict=True)):
                for column, logits in enumerate(block.under(ablation, products)):
                    found[part, 1 + 2 * number + column] = entropy(logits).cpu()
    return found


def answers(
    mlp: LastMLP,
    streams: Streams,
    neurons: Sequence[int],
    ablation: Ablation,
    tokens: Sequence[Sequence[int]],
    progress: Progress | None = None,
) -> "Tensor":
    """Logits of k asked tokens a position, plain and under an ablation (total): float32 [position, 2, k] on the CPU."""
    import torch

    found = torch.empty(len(streams.final), 2, len(tokens[0]))
    with torch.inference_mode():
        requested = torch.tensor(tokens, device=mlp.head.device)
        through = written_products(mlp, ablation.neurons)
        for part, block in in_blocks(mlp, streams, neurons, progress):
            for arm, logits in enumerate((block.plain(), block.under(ablation, through)[0])):
                found[part, arm] = logits.gather(1, requested[part]).cpu()
    return found
