"""Many continuations of the same prompts as one sequence, and attention that lets each see its own prompt only.

Whatever works token by token (projections, norms, MLPs, experts) runs on the sequence as it is. Attention is the one place where
tokens meet, and transformers lets it be replaced: every family hands its queries, keys and values to a function chosen by name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

NAME = "mechdrift_packed"


@dataclass(frozen=True)
class Track:
    """The cells of one column of one pair: every layer adds one, of `length` tokens, up to the prompt's last."""

    pair: int
    column: int
    length: int


@dataclass(frozen=True)
class Group:
    """Runs of tokens of equal length that end where their prompts end, and see the corrupt prompts' tokens before themselves."""

    start: int
    """Where the first run begins: in the packed sequence, or in a layer's cells."""
    length: int
    prompts: list[int]
    """Of each run, counted in the packing."""


class Packing:
    """Where everything lies: [corrupt prompts | swept tokens of clean prompts | cells of layer 0 | of layer 1 | ...].

    The cells of a layer lie track by track, the longest first.
    """

    def __init__(self, corrupt: Sequence[Sequence[int]], first: Sequence[int], tracks: Sequence[Track]) -> None:
        """Tracks of some pairs; corrupt and first are those of all pairs."""
        import torch

        self.pairs = sorted({track.pair for track in tracks}, key=lambda pair: (len(corrupt[pair]), first[pair], pair))
        self.tracks = sorted(tracks, key=lambda track: (-track.length, track.pair))
        self.lengths = [len(corrupt[pair]) for pair in self.pairs]
        self.widths = [len(corrupt[pair]) - first[pair] for pair in self.pairs]
        self.prompts = sum(self.lengths)
        """Tokens of all corrupt prompts."""
        self.width = sum(track.length for track in tracks)
        """Tokens that one layer's cells have."""
        number = {pair: index for index, pair in enumerate(self.pairs)}
        ends, clean_ends, row = [], [], 0
        for length in self.lengths:
            row += length
            ends.append(row - 1)
        for width in self.widths:
            row += width
            clean_ends.append(row - 1)
        self.begun = row
        """Tokens of all prompts, corrupt and clean."""
        of_track = [number[track.pair] for track in self.tracks]
        rows = [
            ends[of] - track.length + 1 + step
            for of, track in zip(of_track, self.tracks, strict=True)
            for step in range(track.length)
        ]
        offsets = torch.tensor([0, *(track.length for track in self.tracks)]).cumsum(0)
        self.rows = torch.tensor(rows)
        """Of each token of a layer's cells, the corrupt prompt's token that it stands for."""
        self.starts = offsets[:-1]
        """Of each track, its patched token within a layer's cells."""
        self.ends = torch.tensor([ends[of] for of in of_track])
        self.clean_ends = torch.tensor([clean_ends[of] for of in of_track])
        self.clean_rows = self.clean_ends + 1 - torch.tensor([track.length for track in self.tracks])
        """Of each track, the clean prompt's token that is patched in."""
        self.single = torch.tensor([index for index, track in enumerate(self.tracks) if track.length == 1], dtype=torch.long)
        """Tracks of a last token."""
        self.patched = torch.tensor([[track.pair for track in self.tracks], [track.column for track in self.tracks]])
        self._prompt_ends = torch.tensor(ends + clean_ends)
        self.prompt_groups = self._grouped(self.lengths, range(len(self.pairs)), 0)
        self.prompt_groups += self._grouped(self.widths, range(len(self.pairs)), self.prompts)
        self.cell_groups = self._grouped([track.length for track in self.tracks], of_track, 0)
        widest = max(self.lengths)
        # Corrupt prompts as a rectangle, flush right.
        self.rectangle = torch.tensor(
            [
                [max(end - length + 1, end - widest + 1 + step) for step in range(widest)]
                for end, length in zip(ends, self.lengths, strict=True)
            ]
        )
        self._masks: dict[tuple[Any, ...], Tensor | None] = {}

    @staticmethod
    def _grouped(lengths: Sequence[int], prompts: Sequence[int], start: int) -> list[Group]:
        """Neighbours of one length together."""
        groups: list[Group] = []
        for length, prompt in zip(lengths, prompts, strict=True):
            if not groups or groups[-1].length != length:
                groups.append(Group(start, length, []))
            groups[-1].prompts.append(prompt)
            start += length
        return groups

    def positions(self) -> list[int]:
        """Of the prompts' tokens."""
        clean = [range(length - width, length) for length, width in zip(self.lengths, self.widths, strict=True)]
        return [position for part in (*map(range, self.lengths), *clean) for position in part]

    def places(self, layer: int) -> "Tensor":
        """Of every token that a layer is run on, the prompts' token in the same position."""
        import torch

        return torch.cat([torch.arange(self.begun), self.rows.repeat(layer)])

    def last_rows(self, layer: int) -> "Tensor":
        """The last token of each corrupt prompt, each clean one, and each cell that a layer is run on."""
        import torch

        cells = self.begun + torch.arange(layer)[:, None] * self.width + self.last_tokens
        return torch.cat([self._prompt_ends, cells.flatten()])

    @cached_property
    def last_tokens(self) -> "Tensor":
        """Of each track, its last token within a layer's cells."""
        import torch

        return self.starts + torch.tensor([track.length for track in self.tracks]) - 1

    def mask(self, group: Group, before: int, window: int | None, device: Any) -> "Tensor | None":
        """What the tokens of a group must not see: bool [run, 1, 1, 1, token, seen], seen = `before` of the prompt and their own.

        None where they see all.
        """
        import torch

        lengths = tuple(self.lengths[prompt] for prompt in group.prompts)
        key = (lengths, group.length, before, window, device)
        if key not in self._masks:
            token = torch.arange(before, before + group.length)[:, None]
            seen = torch.arange(before + group.length)
            hidden = (seen > token)[None]
            if window is not None:
                hidden = hidden | (seen <= token - window)
            padding = before + group.length - torch.tensor(lengths)
            hidden = hidden | (seen < padding[:, None])[:, None]
            self._masks[key] = hidden[:, None, None, None].to(device) if hidden.any() else None
        return self._masks[key]


@contextmanager
def packed_attention(model: "PreTrainedModel", packing: Packing) -> Iterator[None]:
    """The model's attention inside is that of the packing: for forwards of [1, token] only."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(
        _module: Any,
        query: "Tensor",
        key: "Tensor",
        value: "Tensor",
        _mask: Any,
        scaling: float,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: "Tensor | None" = None,
        **_others: Any,
    ) -> "tuple[Tensor, None]":
        """From query [1, head, token, width], key and value [1, key head, token, width] to [1, token, head, width]."""
        queries, keys, values = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
        rectangle = packing.rectangle.to(keys.device)
        seen_keys, seen_values = (
            states[rectangle].permute(0, 2, 1, 3) for states in (keys, values)
        )  # [prompt, key head, token, width]
        output = torch.empty(queries.shape[0], queries.shape[1], values.shape[2], dtype=values.dtype, device=values.device)
        begun, layers = packing.begun, (len(queries) - packing.begun) // packing.width

        def group_of(states: "Tensor", group: Group, cells: bool) -> "Tensor":
            """Of states [token, head, width] those of a group, [layer, run, token, head, width]."""
            part = states[begun:].view(layers, packing.width, *states.shape[1:]) if cells else states[None, :begun]
            return part[:, group.start : group.start + len(group.prompts) * group.length].unflatten(1, (-1, group.length))

        for cells, groups in ((False, packing.prompt_groups), (True, packing.cell_groups if layers else [])):
            for group in groups:
                before = max(packing.lengths[prompt] for prompt in group.prompts) - group.length
                base = slice(seen_keys.shape[2] - group.length - before, seen_keys.shape[2] - group.length)
                own = (group_of(queries, group, cells), group_of(keys, group, cells), group_of(values, group, cells))
                seen = (seen_keys[group.prompts, :, base], seen_values[group.prompts, :, base])
                mask = packing.mask(group, before, sliding_window, keys.device)
                group_of(output, group, cells).copy_(_attended(*own, *seen, mask, scaling, softcap, s_aux))
        return output[None], None

    config = model.get_decoder().config
    usual = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[NAME] = attend
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
        del ALL_ATTENTION_FUNCTIONS[NAME]


def _attended(
    queries: "Tensor",
    keys: "Tensor",
    values: "Tensor",
    seen_keys: "Tensor",
    seen_values: "Tensor",
    mask: "Tensor | None",
    scaling: float,
    softcap: float | None,
    sinks: "Tensor | None",
) -> "Tensor":
    """Attention of runs to what their prompts have before them, which all layers' cells share, and to themselves.

    queries, keys, values: [layer, run, token, head, width]; seen_keys, seen_values: [run, key head, token, width]; sinks: [head],
    a score of each that takes its share and gives nothing (gpt-oss). Returns [layer, run, token, head, width]. Scores go through
    softmax in float32, as in transformers' own eager attention.
    """
    import torch

    layers, runs, length, heads, _ = queries.shape
    shared = keys.shape[3]
    rows = (layers, heads // shared, length)
    # [run, key head, layer, head of that key head, token, width]
    query = queries.unflatten(3, (shared, -1)).permute(1, 3, 0, 4, 2, 5).flatten(2, 4).flatten(0, 1)
    key, value = (states.permute(1, 3, 0, 2, 4).flatten(0, 2) for states in (keys, values))
    per_layer = query.reshape(len(key), -1, query.shape[-1])
    none = query.new_empty(())
    own = torch.baddbmm(none, per_layer, key.transpose(1, 2), beta=0, alpha=scaling)
    before = torch.baddbmm(none, query, seen_keys.flatten(0, 1).transpose(1, 2), beta=0, alpha=scaling)
    scores = torch.cat([before.view(runs, shared, *rows, -1), own.view(runs, shared, *rows, length)], dim=-1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores.masked_fill_(mask, -torch.inf)
    if sinks is not None:
        column = sinks.to(scores).view(1, shared, 1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
    split = before.shape[-1]
    found = torch.bmm(weights[..., :split].reshape(before.shape), seen_values.flatten(0, 1))
    found += torch.bmm(weights[..., split : split + length].reshape(own.shape), value).view(found.shape)
    return found.view(runs, shared, *rows, -1).permute(2, 0, 4, 1, 3, 5).flatten(3, 4)
