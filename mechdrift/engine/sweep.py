"""Activation patching: what each block's output at each token does to an answer, exactly, for all blocks and tokens at once.

A cell (layer, column) is the CORRUPT prompt run with one block's output at one token replaced by that of the CLEAN prompt; its
value is logit(correct) - logit(other) after the last token. docs/design/sweep.md says how much work that is and why.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.config import of_block
from mechdrift.engine.batches import Progress
from mechdrift.engine.packed import Packing, Track, packed_attention
from mechdrift.errors import Unmeasurable
from mechdrift.models.devices import input_device
from mechdrift.models.head import head_of
from mechdrift.models.sites import blocks, final_norm, stream, width_of, with_stream

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

BUDGET = 1 << 28  # bytes that one pass may take beside the weights; on a CPU larger ones are no faster
BUDGET_PER_TOKEN = {"cpu": 1 << 16, "gpu": 1 << 21}  # the same for each token of a batch, so that halving a batch halves a pass
SLAB_BYTES, LEAST_SLAB = 1 << 22, 256  # of one of an MLP's inner states on a CPU, in bytes and in tokens


@dataclass(frozen=True)
class Sweep:
    """Differences of two logits, correct minus other, after the last token; float32 on the CPU."""

    patched: "Tensor"
    """[pair, layer, column]; column j of pair k is its token first[k] + j; NaN beyond a pair's last token."""
    clean: "Tensor"
    """[pair], of the clean prompt as it is."""
    corrupt: "Tensor"
    """[pair], of the corrupt prompt as it is."""
    cells: int | None = None
    """Cells that were run; None out of a store. The rest cannot differ from the corrupt prompt: the last block's,
    but at the last token, and within one model those of tokens before the first that differs."""
    tokens: int | None = None
    """How many times a block was run on a token, everything counted; None as above."""


@dataclass(frozen=True)
class Pairs:
    """Token ids of prompts, pair by pair, and what is asked of them; sound by construction."""

    corrupt: Sequence[Sequence[int]]
    clean: Sequence[Sequence[int]]
    """As many tokens as the corrupt prompt has, and the same before the first that is swept."""
    answers: Sequence[tuple[int, int]]
    """Ids of (correct, other)."""
    first: Sequence[int]
    """From this token on every one is swept."""

    def __post_init__(self) -> None:
        """Raises Unmeasurable with the number of the pair that cannot be swept, and why."""
        if not self.corrupt:
            raise Unmeasurable("no pairs to patch")
        if not len(self.corrupt) == len(self.clean) == len(self.answers) == len(self.first):
            raise Unmeasurable("not as many clean prompts, answers and first tokens as corrupt prompts")
        for number, (corrupt, clean, start) in enumerate(zip(self.corrupt, self.clean, self.first, strict=True)):
            if len(corrupt) != len(clean):
                raise Unmeasurable(f"pair {number}: {len(corrupt)} tokens against {len(clean)}: a patch needs equal lengths")
            if not 0 <= start < len(corrupt):
                raise Unmeasurable(f"pair {number}: first token {start} of {len(corrupt)}")
            if list(corrupt[:start]) != list(clean[:start]):
                raise Unmeasurable(f"pair {number}: its prompts differ before token {start}")

    def width(self, pair: int) -> int:
        """Tokens that are swept."""
        return len(self.corrupt[pair]) - self.first[pair]

    def from_difference(self) -> "Pairs":
        """The same pairs, swept from the first token that differs; from the last where none does."""
        first = []
        for corrupt, clean, start in zip(self.corrupt, self.clean, self.first, strict=True):
            last = len(corrupt) - 1
            first.append(next((place for place in range(start, last) if corrupt[place] != clean[place]), last))
        return Pairs(self.corrupt, self.clean, self.answers, first)

    @property
    def widest(self) -> int:
        """Tokens that are swept of the pair with the most."""
        return max(map(self.width, range(len(self.corrupt))))

    def take(self, chosen: Sequence[int]) -> "Pairs":
        """Those of these indices."""
        return Pairs(
            [self.corrupt[index] for index in chosen],
            [self.clean[index] for index in chosen],
            [self.answers[index] for index in chosen],
            [self.first[index] for index in chosen],
        )


def sweep(
    model: "PreTrainedModel",
    pairs: Pairs,
    budget_bytes: int = BUDGET,
    source: "Tensor | None" = None,
    progress: Progress | None = None,
) -> Sweep:
    """Every cell of every pair, each token run only where a patch can have changed it.

    Within one model tokens before the first that differs have the corrupt prompt's value and are not run. source: activations to
    patch with instead of the model's own, [pair, layer, column, d_model] as record_columns gives them, for instance another
    model's on the clean prompts. budget_bytes bounds what a pass takes beside the weights, whatever the number of pairs; one
    column of one pair is the least there is. progress counts pairs. Raises Unmeasurable for a source that does not fit.
    """
    import torch

    depth = len(blocks(model))
    check_source(model, pairs, source)
    found = empty(pairs, depth)
    run_pairs = pairs.from_difference() if source is None else pairs
    skipped = torch.tensor(run_pairs.first) - torch.tensor(pairs.first)
    cells = tokens = done = 0
    with torch.inference_mode():
        for tracks in _passes(run_pairs, depth, max(1, budget_bytes // bytes_per_token(model, max(map(len, pairs.corrupt))))):
            packing = Packing(pairs.corrupt, run_pairs.first, tracks)
            values, run = _run(model, run_pairs, packing, source)
            count, width = len(packing.pairs), len(packing.tracks)
            found.corrupt[packing.pairs], found.clean[packing.pairs] = values[:count], values[count : 2 * count]
            of_pair = torch.tensor([track.pair for track in packing.tracks])
            column = torch.tensor([track.column for track in packing.tracks]) + skipped[of_pair]
            found.patched[of_pair, :-1, column] = values[2 * count : 2 * count + (depth - 1) * width].view(depth - 1, width).T
            found.patched[of_pair, -1, column] = found.corrupt[of_pair]
            ends = packing.single
            found.patched[of_pair[ends], -1, column[ends]] = values[2 * count + (depth - 1) * width :]
            cells += len(values) - 2 * count
            tokens += run
            finished = sum(track.column == run_pairs.width(track.pair) - 1 for track in tracks)
            done += finished
            if progress is not None and finished:
                progress(done, len(pairs.corrupt))
    for pair, width in enumerate(skipped.tolist()):
        found.patched[pair, :, :width] = found.corrupt[pair]
    return Sweep(found.patched, found.clean, found.corrupt, cells, tokens)


@contextmanager
def _lean_mlp(model: "PreTrainedModel", block: "nn.Module", rows: "Tensor | None") -> Iterator[None]:
    """On a CPU a block's MLP runs on some tokens at a time, so that its inner states stay in the cache; on `rows` only, if given.

    Other tokens of the sequence then get nothing from it. What else it gives, as routers' scores, nothing in a forward reads.
    A block without a module of the usual name is run as it is.
    """
    import torch

    mlp: Any = getattr(block, "mlp", None)
    if not isinstance(mlp, torch.nn.Module):
        yield
        return
    usual, own = mlp.forward, "forward" in vars(mlp)  # accelerate, too, puts a forward of its own there
    slab = max(LEAST_SLAB, SLAB_BYTES // (_inner_width(model) * model.dtype.itemsize))

    def forward(states: "Tensor", *more: Any, **named: Any) -> Any:
        flat = states.ndim == 2  # some families flatten a batch before its MLP
        given = states[None] if flat else states
        chosen = given if rows is None else given[:, rows]
        step = slab if states.device.type == "cpu" and not more and not named else chosen.shape[1]
        outputs = [usual(part[0] if flat else part, *more, **named) for part in chosen.split(step, dim=1)]
        output = torch.cat([stream(each).view(1, -1, given.shape[-1]) for each in outputs], dim=1)
        if rows is not None:
            whole = torch.zeros_like(given)
            whole[:, rows] = output
            output = whole
        return with_stream(outputs[-1], output[0] if flat else output)

    mlp.forward = forward
    try:
        yield
    finally:
        if own:
            mlp.forward = usual
        else:
            del mlp.forward


def bytes_per_token(model: "PreTrainedModel", length: int) -> int:
    """What a packed token takes at the most while a block runs, in prompts of a length: an estimate from above.

    The states before, within and after the block, the MLP's inner ones (of all experts that a token goes to), and the scores of a
    row of attention in float32 with what softmax makes of them.
    """
    width, heads = width_of(model), of_block(model.config.get_text_config(decoder=True), "num_attention_heads") or 1
    return int(model.dtype.itemsize * (10 * width + 4 * _inner_width(model)) + 4 * 3 * heads * length)


def _inner_width(model: "PreTrainedModel") -> int:
    """Of a token's inner states in the MLP, all its experts taken together."""
    config = model.config.get_text_config(decoder=True)
    inner = of_block(config, "moe_intermediate_size") or of_block(config, "intermediate_size") or 4 * width_of(model)
    return int(inner) * int(of_block(config, "num_experts_per_tok") or 1)


def _passes(pairs: Pairs, depth: int, room: int) -> Iterator[list[Track]]:
    """Columns of pairs that are run together, within `room` tokens: whole pairs if they fit, else some columns at a time."""
    batch: list[Track] = []
    used = 0
    for pair in sorted(range(len(pairs.corrupt)), key=lambda pair: (len(pairs.corrupt[pair]), pairs.width(pair))):
        width = pairs.width(pair)
        alone = len(pairs.corrupt[pair]) + width  # the two prompts themselves
        if batch and used + alone + depth * width * (width + 1) // 2 > room:
            yield batch
            batch, used = [], 0
        used += alone
        for column in range(width):
            if batch and used + depth * (width - column) > room:
                yield batch
                batch, used = [], alone
            batch.append(Track(pair, column, width - column))
            used += depth * (width - column)
    yield batch


def _run(model: "PreTrainedModel", pairs: Pairs, packing: Packing, source: "Tensor | None") -> "tuple[Tensor, int]":
    """One pass: the differences of [corrupt prompts, clean prompts, cells layer by layer], and tokens run, block by block.

    All go through the blocks as one sequence that grows: what a block gave out for the two prompts starts that block's cells,
    which follow behind. So a block's weights are read once, and tokens need no padding.
    """
    import torch

    layers, norm = blocks(model), final_norm(model)
    device = input_device(model)
    tokens = [token for pair in packing.pairs for token in pairs.corrupt[pair]]
    for pair in packing.pairs:
        tokens += pairs.clean[pair][pairs.first[pair] :]
    places = packing.positions()
    run = 0
    last: list[Tensor] = []

    def started(states: "Tensor", rows: Any, at: Any, clean_rows: Any, layer: int, chosen: Any = ...) -> "Tensor":
        """What the cells of a layer start from: the corrupt prompt's states, and at the patched tokens the clean one's."""
        new = states[0, rows]
        if source is None:
            new[at] = states[0, clean_rows]
        else:
            of_pair, column = packing.patched[:, chosen]
            new[at] = source[of_pair, layer, column].to(states.device, states.dtype)
        return new

    def grow(layer: int) -> "Callable[..., Any]":
        def hook(_module: "nn.Module", _args: Any, output: Any) -> Any:
            nonlocal run
            states = stream(output)
            run += states.shape[1]
            if layer + 1 < len(layers):
                new = started(states, packing.rows, packing.starts, packing.clean_rows, layer)
                return with_stream(output, torch.cat([states, new[None]], dim=1))
            new = started(states, packing.ends[packing.single], ..., packing.clean_ends[packing.single], layer, packing.single)
            return with_stream(output, torch.cat([states[:, packing.last_rows(layer)], new[None]], dim=1))

        return hook

    def place(layer: int) -> "Callable[..., Any]":
        """A cell's token has the position of the corrupt prompt's token, and so whatever the family made of that."""
        rows = packing.places(layer)

        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            grows = isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[:2] == (1, len(tokens))
            return value[:, rows.to(value.device)] if grows else value

        def hook(_module: "nn.Module", args: Any, summary: dict[str, Any]) -> Any:
            more = {name: value if name == "hidden_states" else moved(value) for name, value in summary.items()}
            return (*args[:1], *map(moved, args[1:])), more

        return hook

    def keep(_module: "nn.Module", _args: Any, output: "Tensor") -> "Tensor | None":
        if not run:
            return None  # nanochat's norm runs before the blocks too
        last.append(output[0])
        return output.new_empty(1, len(tokens), output.shape[-1])  # what is left of the decoder expects as many as went in

    with ExitStack() as stack:
        for layer, block in enumerate(layers):
            stack.callback(block.register_forward_pre_hook(place(layer), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(grow(layer)).remove)
            stack.enter_context(_lean_mlp(model, block, packing.last_rows(layer) if layer + 1 == len(layers) else None))
        stack.callback(norm.register_forward_hook(keep).remove)
        stack.enter_context(packed_attention(model, packing))
        model.get_decoder()(
            input_ids=torch.tensor([tokens], device=device),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long, device=device),
            position_ids=torch.tensor([places], device=device),
            use_cache=False,
        )
    requested = [pairs.answers[pair] for pair in packing.pairs] * 2
    requested += [pairs.answers[track.pair] for track in packing.tracks] * (len(layers) - 1)
    requested += [pairs.answers[packing.tracks[index].pair] for index in packing.single]
    return _answer_difference(model, last[0], requested), run


def _answer_difference(model: "PreTrainedModel", states: "Tensor", requested: list[tuple[int, int]]) -> "Tensor":
    """Logit(correct) - logit(other) of final states [row, d_model], by two rows of the head: float32 [row] on the CPU."""
    import torch

    head: Any = model.get_output_embeddings()
    ids, places = torch.unique(torch.tensor(requested), return_inverse=True)
    ids = ids.to(head.weight.device)
    logits = states.float() @ head.weight[ids].float().T.to(states.device)
    if getattr(head, "bias", None) is not None:
        logits += head.bias[ids].float().to(states.device)
    logits = head_of(model).logits(logits)
    chosen = logits.cpu().gather(1, places)
    return chosen[:, 0] - chosen[:, 1]


def check_source(model: "PreTrainedModel", pairs: Pairs, source: "Tensor | None") -> None:
    """Raise Unmeasurable where activations are not those of these pairs in such a model."""
    if source is None:
        return
    wanted = (len(pairs.corrupt), len(blocks(model)), pairs.widest, width_of(model))
    if tuple(source.shape) != wanted:
        raise Unmeasurable(
            f"activations of shape {tuple(source.shape)} cannot be patched into {wanted} [pair, layer, column, width]"
        )


def empty(pairs: Pairs, depth: int) -> Sweep:
    """Values of no cell yet."""
    import torch

    count = len(pairs.corrupt)
    return Sweep(
        torch.full((count, depth, pairs.widest), torch.nan), torch.full((count,), torch.nan), torch.full((count,), torch.nan)
    )
