"""Activation patching: what each block's output at each token does to an answer, exactly, for all blocks and tokens at once.

A cell (layer, column) is the CORRUPT prompt run with one block's output at one token replaced by that of the CLEAN prompt; its
value is logit(correct) - logit(other) after the last token. docs/design/sweep.md says how much work that is and why.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.engine.devices import input_device
from mechdrift.engine.packed import Packing, Track, packed_attention
from mechdrift.engine.record import Progress, record_columns
from mechdrift.engine.sites import blocks, final_norm, stream, with_stream
from mechdrift.errors import Unmeasurable

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
    cells: int
    """Cells that were run. The rest cannot differ from the corrupt prompt: the last block's, but at the last token, and within
    one model those of tokens before the first that differs."""
    tokens: int
    """How many times a block was run on a token, everything counted."""


@dataclass(frozen=True)
class Pairs:
    """Token ids of prompts, pair by pair, and what is asked of them; sound by construction."""

    corrupt: Sequence[Sequence[int]]
    clean: Sequence[Sequence[int]]
    answers: Sequence[tuple[int, int]]
    first: Sequence[int]

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
    corrupt: Sequence[Sequence[int]],
    clean: Sequence[Sequence[int]],
    answers: Sequence[tuple[int, int]],
    first: Sequence[int],
    budget_bytes: int = BUDGET,
    source: "Tensor | None" = None,
    progress: Progress | None = None,
) -> Sweep:
    """Every cell of every pair, each token run only where a patch can have changed it.

    corrupt[k] and clean[k]: token ids, equally many, the same before first[k]; every token from there on is swept. Within one
    model tokens before the first that differs have the corrupt prompt's value and are not run. answers[k]:
    ids of (correct, other). source: activations to patch with instead of the model's own, [pair, layer, column, d_model] as
    record_columns gives them, for instance another model's on the clean prompts. budget_bytes bounds what a pass takes beside the
    weights, whatever the number of pairs; one column of one pair is the least there is. progress is told of pairs.
    Raises Unmeasurable for pairs or a source that do not fit together.
    """
    import torch

    pairs = Pairs(corrupt, clean, answers, first)
    depth = len(blocks(model))
    _check_source(model, pairs, source)
    found = _empty(pairs, depth)
    run_pairs = pairs.from_difference() if source is None else pairs
    skipped = torch.tensor(run_pairs.first) - torch.tensor(pairs.first)
    cells = tokens = done = 0
    with torch.inference_mode():
        for tracks in _passes(run_pairs, depth, max(1, budget_bytes // bytes_per_token(model, max(map(len, corrupt))))):
            packing = Packing(corrupt, run_pairs.first, tracks)
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
                progress(done, len(corrupt))
    for pair, width in enumerate(skipped.tolist()):
        found.patched[pair, :, :width] = found.corrupt[pair]
    return Sweep(found.patched, found.clean, found.corrupt, cells, tokens)


def sweep_naive(
    model: "PreTrainedModel",
    corrupt: Sequence[Sequence[int]],
    clean: Sequence[Sequence[int]],
    answers: Sequence[tuple[int, int]],
    first: Sequence[int],
    budget_bytes: int = BUDGET,
    source: "Tensor | None" = None,
    progress: Progress | None = None,
    cells: int | None = None,
) -> Sweep:
    """What sweep returns, by a whole forward of the corrupt prompt for every cell; no cell is skipped.

    cells: of one pair in one batch; as many as the budget holds if not given.
    """
    import torch

    pairs = Pairs(corrupt, clean, answers, first)
    depth = len(blocks(model))
    _check_source(model, pairs, source)
    found = _empty(pairs, depth)
    count = tokens = 0
    with torch.inference_mode():
        for pair, (prompt, asked, start) in enumerate(zip(corrupt, answers, first, strict=True)):
            width = pairs.width(pair)
            given = record_columns(model, [clean[pair]], [start])[0] if source is None else source[pair]
            found.clean[pair], found.corrupt[pair] = (_difference(model, [ids], asked)[0] for ids in (clean[pair], prompt))
            places = [(layer, column) for layer in range(depth) for column in range(width)]
            step = cells or max(1, budget_bytes // (len(prompt) * bytes_per_token(model, len(prompt))))
            for at in range(0, len(places), step):
                batch = places[at : at + step]
                with _patched(model, batch, start, given):
                    values = _difference(model, [prompt] * len(batch), asked)
                for (layer, column), value in zip(batch, values, strict=True):
                    found.patched[pair, layer, column] = value
            count += len(places)
            tokens += depth * len(prompt) * (len(places) + 3 if source is None else len(places) + 2)
            if progress is not None:
                progress(pair + 1, len(corrupt))
    return Sweep(found.patched, found.clean, found.corrupt, count, tokens)


def check_sweep(
    model: "PreTrainedModel",
    corrupt: Sequence[Sequence[int]],
    clean: Sequence[Sequence[int]],
    answers: Sequence[tuple[int, int]],
    first: Sequence[int],
    columns: int = 3,
) -> float:
    """Largest difference between sweep and sweep_naive on a few pairs, as a share of the largest value.

    So many columns of each pair, evenly spread, the first and the last among them, are run whole. Infinite where anything is not
    finite. Above selfcheck.tolerance_of(model), sweep_naive has to be used.
    """
    import torch

    fast = sweep(model, corrupt, clean, answers, first)
    pairs = Pairs(corrupt, clean, answers, first)
    gaps, sizes = [], []
    with torch.inference_mode():
        for pair, (prompt, asked, start) in enumerate(zip(corrupt, answers, first, strict=True)):
            width = pairs.width(pair)
            given = record_columns(model, [clean[pair]], [start])[0]
            chosen = sorted({round(share * (width - 1) / max(1, columns - 1)) for share in range(columns)})
            cells = [(layer, column) for layer in range(fast.patched.shape[1]) for column in chosen]
            with _patched(model, cells, start, given):
                values = _difference(model, [prompt] * len(cells), asked)
            layers, places = zip(*cells, strict=True)
            found = fast.patched[pair, list(layers), list(places)]
            ends = torch.stack([_difference(model, [ids], asked)[0] for ids in (clean[pair], prompt)])
            gaps += [(found - values).abs().max(), (torch.stack([fast.clean[pair], fast.corrupt[pair]]) - ends).abs().max()]
            sizes += [values.abs().max(), ends.abs().max()]
    gap = float(torch.stack(gaps).max() / torch.stack(sizes).max())
    return gap if gap == gap and all(bool(each.isfinite()) for each in gaps) else float("inf")


@contextmanager
def _lean_mlp(model: "PreTrainedModel", block: "nn.Module", rows: "Tensor | None") -> Iterator[None]:
    """On a CPU a block's MLP runs on some tokens at a time, so that its inner states stay in the cache; on `rows` only, if given.

    Other tokens of the sequence then get nothing from it.
    """
    import torch

    mlp: Any = block.mlp
    usual, own = mlp.forward, "forward" in vars(mlp)  # accelerate, too, puts a forward of its own there
    slab = max(LEAST_SLAB, SLAB_BYTES // (_inner_width(model) * model.dtype.itemsize))

    def forward(states: "Tensor") -> "Tensor":
        chosen = states if rows is None else states[:, rows]
        if states.device.type == "cpu" and chosen.shape[1] > slab:
            output = torch.cat([usual(part) for part in chosen.split(slab, dim=1)], dim=1)
        else:
            output = usual(chosen)
        if rows is None:
            return output
        whole = torch.zeros_like(states)
        whole[:, rows] = output
        return whole

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
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    return int(model.dtype.itemsize * (10 * width + 4 * _inner_width(model)) + 4 * 3 * heads * length)


def _inner_width(model: "PreTrainedModel") -> int:
    """Of a token's inner states in the MLP, all its experts taken together."""
    config = model.config
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(inner) * (getattr(config, "num_experts_per_tok", None) or 1)


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

        def hook(_module: "nn.Module", args: Any, told: dict[str, Any]) -> Any:
            return args, {name: value if name == "hidden_states" else moved(value) for name, value in told.items()}

        return hook

    def keep(_module: "nn.Module", _args: Any, output: "Tensor") -> "Tensor":
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
    asked = [pairs.answers[pair] for pair in packing.pairs] * 2
    asked += [pairs.answers[track.pair] for track in packing.tracks] * (len(layers) - 1)
    asked += [pairs.answers[packing.tracks[index].pair] for index in packing.single]
    return _asked_difference(model, last[0], asked), run


def _asked_difference(model: "PreTrainedModel", states: "Tensor", asked: list[tuple[int, int]]) -> "Tensor":
    """Logit(correct) - logit(other) of final states [row, d_model], by two rows of the head: float32 [row] on the CPU."""
    import torch

    head: Any = model.get_output_embeddings()
    ids, places = torch.unique(torch.tensor(asked), return_inverse=True)
    ids = ids.to(head.weight.device)
    logits = states.float() @ head.weight[ids].float().T.to(states.device)
    if getattr(head, "bias", None) is not None:
        logits += head.bias[ids].float().to(states.device)
    if cap := getattr(model.config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    chosen = logits.cpu().gather(1, places)
    return chosen[:, 0] - chosen[:, 1]


def _difference(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], asked: tuple[int, int]) -> "Tensor":
    """Logit(correct) - logit(other) after prompts of one length, by whole forwards: float32 [prompt] on the CPU."""
    import torch

    ids = torch.tensor([list(prompt) for prompt in prompts], device=input_device(model))
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1).logits[:, -1].float()
    return (logits[:, asked[0]] - logits[:, asked[1]]).cpu()


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


def _check_source(model: "PreTrainedModel", pairs: Pairs, source: "Tensor | None") -> None:
    if source is None:
        return
    wanted = (len(pairs.corrupt), len(blocks(model)), max(map(pairs.width, range(len(pairs.corrupt)))), model.config.hidden_size)
    if tuple(source.shape) != wanted:
        raise Unmeasurable(
            f"activations of shape {tuple(source.shape)} cannot be patched into {wanted} [pair, layer, column, width]"
        )


def _empty(pairs: Pairs, depth: int) -> Sweep:
    import torch

    count = len(pairs.corrupt)
    widest = max(map(pairs.width, range(count)))
    return Sweep(
        torch.full((count, depth, widest), torch.nan), torch.full((count,), torch.nan), torch.full((count,), torch.nan), 0, 0
    )
