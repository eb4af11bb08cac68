"""How prompts go through a model together: in batches, and what they begin with alike, as few-shot prompts do, once.

A group of prompts costs its beginning once and the rest of each prompt, whose attention looks back at cached keys and values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from mechdrift.models.devices import input_device

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Progress = Callable[[int, int], None]
LEAST = 16  # tokens: shorter beginnings save less than a second pass costs
WORTH = 0.25  # share of all tokens that must be saved
CACHED = 4  # tokens with keys and values for each token of a batch: a token's of all blocks weigh what one costs inside a block


@dataclass(frozen=True)
class Group:
    """Prompts with the same beginning."""

    shared: int
    """Its length in tokens; 0: they go through the model whole."""
    prompts: list[int]
    """Their indices."""


@dataclass(frozen=True)
class Forward:
    """One batch, ready for the forward that gives what is requested."""

    prompts: list[int]
    """Indices, a row each."""
    before: list[int]
    """Tokens of each prompt that are in the cache: column j of a row is the prompt's token before + j."""
    inputs: dict[str, Any]
    """For the model or its decoder."""


def forwards(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    first: Sequence[int],
    batch_tokens: int,
    share: bool,
    progress: Progress | None,
) -> Iterator[Forward]:
    """Batches of prompts; columns from first[k] on are there for prompt k. share: whether beginnings may be shared.

    Padded on the RIGHT: under a causal mask nothing there can reach a prompt. Shared beginnings are padded on the left, so that
    what follows follows at once.
    """
    import torch

    done = 0
    with torch.inference_mode():
        for batch in batches(prompts, first, batch_tokens, share):
            chosen = [index for group in batch for index in group.prompts]
            before = [group.shared for group in batch for _ in group.prompts]
            rest = [prompts[index][left:] for index, left in zip(chosen, before, strict=True)]
            ids, mask = (tensor.to(input_device(model)) for tensor in padded(rest))
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
            if any(before):
                inputs |= _continued(model, prompts, batch, mask)
            yield Forward(chosen, before, inputs)
            done += len(chosen)
            if progress is not None:
                progress(done, len(prompts))


def _continued(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], batch: list[Group], mask: "Tensor") -> dict[str, Any]:
    """Run the beginnings of a batch, and say how its rows go on from there. mask: of the rest, [row, column]."""
    import torch
    from transformers import DynamicCache

    starts = [prompts[group.prompts[0]][: group.shared] for group in batch]
    ids, seen = (tensor.to(mask.device) for tensor in padded(starts, left=True))
    # A plain cache also where attention slides: the family's own forgets.
    cache = DynamicCache()
    places = (seen.cumsum(1) - 1).clamp(min=0)
    model.get_decoder()(input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cache, use_cache=True)
    of = torch.tensor([number for number, group in enumerate(batch) for _ in group.prompts], device=mask.device)
    cache.batch_select_indices(of)
    follows = seen.sum(1)[of][:, None] + torch.arange(mask.shape[1], device=mask.device)
    return {
        "attention_mask": torch.cat([seen[of], mask], dim=1),
        "position_ids": follows,
        "past_key_values": cache,
        "use_cache": True,
    }


def padded(rows: Sequence[Sequence[int]], left: bool = False) -> "tuple[Tensor, Tensor]":
    """Token ids and mask [row, token], padded on the right, or on the left: then every row ends in the last column."""
    import torch

    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Prompt indices in batches of similar length whose padded size stays within batch_tokens (one prompt at least)."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if not found or (len(found[-1]) + 1) * lengths[index] > batch_tokens:
            found.append([])
        found[-1].append(index)
    return found


def batches(prompts: Sequence[Sequence[int]], first: Sequence[int], batch_tokens: int, share: bool = True) -> list[list[Group]]:
    """All prompts in batches of groups: with what they share where that saves enough, else whole, by length."""
    lengths = [len(prompt) for prompt in prompts]
    found = groups(prompts, first) if share else []
    if sum(group.shared * (len(group.prompts) - 1) for group in found) < WORTH * sum(lengths):
        found = []
    together = {index for group in found for index in group.prompts}
    alone = [index for index in range(len(prompts)) if index not in together]
    whole = [
        [Group(0, [alone[place] for place in batch])] for batch in batches_by_length([lengths[i] for i in alone], batch_tokens)
    ]
    return whole + _filled(found, lengths, batch_tokens)


def _filled(found: Sequence[Group], lengths: Sequence[int], batch_tokens: int) -> list[list[Group]]:
    """Groups in batches: neither beginnings nor rests, padded, are over batch_tokens, nor over CACHED times it together.

    A group that does not fit goes on in the next batch.
    """
    filled: list[list[Group]] = []
    rows = width = 0
    for group in sorted(found, key=lambda group: (group.shared, group.prompts[0])):
        begins = True
        for index in sorted(group.prompts, key=lambda index: (lengths[index], index)):
            wider = max(width, lengths[index] - group.shared)
            starts = (len(filled[-1]) + begins) * group.shared if filled else 0
            most = max((rows + 1) * wider, starts, (rows + 1) * (group.shared + wider) / CACHED)
            if not filled or most > batch_tokens:
                filled.append([])
                rows, wider, begins = 0, lengths[index] - group.shared, True
            if begins:
                filled[-1].append(Group(group.shared, []))
                begins = False
            filled[-1][-1].prompts.append(index)
            rows, width = rows + 1, wider
    return filled


def groups(prompts: Sequence[Sequence[int]], first: Sequence[int]) -> list[Group]:
    """Prompts of one beginning of at least LEAST tokens, none beyond any first[k], grouped so that the most tokens are saved.

    In the order of their tokens, prompts with a common beginning are neighbours, and the weakest links of a range part it into
    ranges that share more. Each prompt is served by the longest beginning that is run and is its own.
    """
    order = sorted(range(len(prompts)), key=lambda index: (list(prompts[index]), index))
    common = [0] + [
        min(_common(prompts[left], prompts[right]), first[left], first[right], len(prompts[left]) - 1, len(prompts[right]) - 1)
        for left, right in pairwise(order)
    ]

    @cache
    def best(start: int, end: int, above: int) -> tuple[int, tuple[Group, ...], tuple[int, ...]]:
        """Tokens saved in a range, the groups in it, and the prompts left to a group of `above` tokens around it."""
        if end - start == 1:
            return above, (), (order[start],)
        least = min(common[start + 1 : end])
        edges = [start, *(place for place in range(start + 1, end) if common[place] == least), end]
        found = []
        for shared in {above, max(above, least)} if least >= LEAST else {above}:
            inner = [best(*edge, shared) for edge in pairwise(edges)]
            saved, left = sum(part for part, _, _ in inner), tuple(chain(*(rest for _, _, rest in inner)))
            inside = tuple(chain(*(parts for _, parts, _ in inner)))
            if shared == above:
                found.append((saved, inside, left))
            else:
                found.append((saved - shared, (*inside, Group(shared, list(left))), ()))
        return max(found, key=lambda option: option[0])

    return [group for group in best(0, len(order), 0)[1] if len(group.prompts) > 1] if prompts else []


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens at which two prompts begin alike."""
    return next((place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
