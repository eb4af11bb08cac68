"""Which prompts go through a model together, and what they share."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.engine import batches as module
from mechdrift.engine.batches import CACHED, LEAST, Group, batches, groups

SHORT = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=6)


def partitions(members: list[int]) -> list[list[list[int]]]:
    """All ways to put members into groups."""
    if not members:
        return [[]]
    head, *rest = members
    found = []
    for parts in partitions(rest):
        found.append([[head], *parts])
        found += [[*parts[:place], [head, *part], *parts[place + 1 :]] for place, part in enumerate(parts)]
    return found


def saved(prompts: list[list[int]], parts: list[list[int]]) -> int:
    """Tokens that need not be run, each group's longest common beginning being run once; of every prompt one is kept."""
    total = 0
    for part in parts:
        length = 0
        while all(length < len(prompts[i]) - 1 and prompts[i][length] == prompts[part[0]][length] for i in part):
            length += 1
        total += length * (len(part) - 1)
    return total


@given(SHORT)
def test_no_other_grouping_saves_more(prompts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 1)
        found = groups(prompts, [len(prompt) - 1 for prompt in prompts])
    best = max(saved(prompts, parts) for parts in partitions(list(range(len(prompts)))))
    assert sum(group.shared * (len(group.prompts) - 1) for group in found) == best


FEW_SHOT = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(5, 7), min_size=1, max_size=8)), min_size=1, max_size=40
).map(lambda drawn: [[start] * (LEAST + 3 * start) + end for start, end in drawn])


@given(FEW_SHOT, st.integers(1, 200), st.booleans())
def test_every_prompt_is_there_once_within_the_bounds(prompts: list[list[int]], batch_tokens: int, share: bool) -> None:
    first = [len(prompt) - 1 - len(prompt) % 2 for prompt in prompts]
    found = batches(prompts, first, batch_tokens, share)
    assert sorted(index for batch in found for group in batch for index in group.prompts) == list(range(len(prompts)))
    for batch in found:
        rows = [index for group in batch for index in group.prompts]
        rest = max(len(prompts[index]) - group.shared for group in batch for index in group.prompts)
        start = max(group.shared for group in batch)
        if len(rows) > 1:
            assert len(rows) * rest <= batch_tokens
            assert len(batch) * start <= batch_tokens
            assert not start or len(rows) * (start + rest) <= CACHED * batch_tokens
        for group in batch:
            assert not group.shared or share
            assert all(prompts[index][: group.shared] == prompts[group.prompts[0]][: group.shared] for index in group.prompts)
            assert all(group.shared <= first[index] for index in group.prompts)


def test_nothing_is_shared_where_it_saves_little() -> None:
    """Texts that happen to begin alike, among many that do not."""
    like = [[*range(20), 1], [*range(20), 2]]
    other = [[number] * 30 for number in range(20)]
    assert groups(like + other, [20] * 22) == [Group(20, [0, 1])]
    found = list(chain(*batches(like + other, [20] * 22, 10**6)))
    assert {group.shared for group in found} == {0}
    assert [group.shared for group in chain(*batches(like, [20] * 2, 10**6))] == [20]
