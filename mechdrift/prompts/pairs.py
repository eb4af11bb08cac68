"""Pairs of prompts that differ in what they name and in nothing else, token by token, for activation patching.

The clean prompt names a subject of which something is true, the corrupt one another subject, of which it is false. Tokens are
told apart by the characters that they hold, so the rule is the same for every tokenizer.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mechdrift.errors import Unmeasurable
from mechdrift.prompts.statements import (
    Split,
)

Form = Literal["judged", "cloze"]
FORMS: tuple[Form, ...] = ("judged", "cloze")
Pairing = Literal["entities", "statements"]
"""Of a table: each entity used once, or every true statement with a false one, which may recur (as published)."""
Start = Literal["difference", "statement"]
"""Where columns begin: at the first token that differs, or with the last statement (as published)."""
NEGATED = "neg_"  # before a table's kind: the published name of its negated statements
Encode = Callable[[list[str]], tuple[list[list[int]], list[list[tuple[int, int]]]]]
"""Token ids and character offsets of texts: `mechdrift.prompts.positions.encode` with a tokenizer."""
SUBJECT, OBJECT, KNOWLEDGE, OTHERS, LAST = "subject", "object", "knowledge", "others", "last"
LONGER = "longer than the context of {context} tokens"


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupt prompt with the same token layout."""

    clean: tuple[int, ...]
    """Token ids of the prompt that should be answered by answers[0]."""
    corrupt: tuple[int, ...]
    """Token ids of the prompt that should be answered by answers[1]; as many."""
    answers: tuple[int, int]
    """Token ids: right after the clean prompt, and right after the corrupt one."""
    first: int
    """Where columns begin: the first position at which the prompts differ, or the first token of the last statement."""
    columns: tuple[str, ...]
    """A name for each position from there on: `subject[-1]` is the subject's last token, `last` the prompt's; user's pairs have
    `knowledge`, for all tokens that differ, `others` and `last`."""
    unit: str
    """The entities that pairs link, directly or through others: the unit of sampling. No entity is in two units of a table."""
    kind: str
    """The data set."""
    split: Split
    """Of all its entities."""
    words: tuple[str, str]
    """The two statements or prompts without their examples, for the reader."""
    entities: tuple[str, ...] = ()
    """What it is about; of a table's pair the clean side's first."""

    @property
    def sampled(self) -> tuple[str, str]:
        """Table and unit: a table's negated statements are about the same entities as the others."""
        return self.kind.removeprefix(NEGATED), self.unit


@dataclass(frozen=True)
class Found:
    """The pairs that one tokenizer allows."""

    pairs: tuple[PromptPair, ...]
    """In an order drawn by the seed, the pairs of a unit together: the first n are a fair sample."""
    entities: int
    """How many entities of the split were tried, or pairs of the user's."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many of those (entities without a partner, pairs otherwise) fell out, by reason."""

    @property
    def units(self) -> int:
        """Independent units among the pairs."""
        return len({pair.sampled for pair in self.pairs})

    def summary(self) -> str:
        """In one line."""
        reasons = "".join(f"; {count} dropped: {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{len(self.pairs)} pairs in {self.units} units of {self.entities} entities{reasons}"

    def require(self, units: int) -> None:
        """Raise Unmeasurable, with the counts, unless there are so many units."""
        if self.units < units:
            raise Unmeasurable(f"{self.summary()}; {units} units needed")

    def within(self, context: int | None) -> "Found":
        """Those whose prompts fit into a context of so many tokens; None: any length."""
        if context is None:
            return self
        kept = tuple(pair for pair in self.pairs if len(pair.clean) <= context)
        longer = {LONGER.format(context=context): len(self.pairs) - len(kept)}
        return replace(self, pairs=kept, dropped=self.dropped | {reason: count for reason, count in longer.items() if count})


def put_together(found: Sequence[Found]) -> Found:
    """Pairs of several kinds, in units that share no entity."""
    dropped: Counter[str] = Counter()
    for one in found:
        dropped.update(one.dropped)
    pairs = linked([pair for one in found for pair in one.pairs])
    return Found(pairs, sum(one.entities for one in found), dict(dropped))


def linked(pairs: Sequence[PromptPair]) -> tuple[PromptPair, ...]:
    """The same pairs in units that share no entity: all entities of a table that pairs link are one. A unit's stay together."""
    of = components([{(pair.sampled[0], entity) for entity in pair.entities} for pair in pairs])
    names: dict[int, set[str]] = defaultdict(set)
    for number, pair in zip(of, pairs, strict=True):
        names[number] |= {*pair.entities}
    place = {number: order for order, number in enumerate(dict.fromkeys(of))}
    together = sorted(zip(of, pairs, strict=True), key=lambda one: place[one[0]])
    return tuple(replace(pair, unit=unit_name(names[number])) for number, pair in together)


def unit_name(entities: Collection[str]) -> str:
    """Of no other unit, since no entity is in two."""
    first = " / ".join(sorted(entities)[:2])
    return f"{first} and {len(entities) - 2} more" if len(entities) > 2 else first


def components(groups: Sequence[Collection[Hashable]]) -> list[int]:
    """Of each group a number: the same for groups that share a member, directly or through others."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[Hashable, int] = {}
    links = [(row, numbers.setdefault(member, len(numbers))) for row, group in enumerate(groups) for member in group]
    size = len(groups) + len(numbers)
    rows, columns = [row for row, _ in links], [len(groups) + number for _, number in links]
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(size, size))
    return [int(number) for number in connected_components(graph, directed=False)[1][: len(groups)]]


def is_knowledge(column: str) -> bool:
    """Whether a column is one of those that carry what is known: subject and object, or the tokens that differ."""
    return part_of(column) in (SUBJECT, OBJECT, KNOWLEDGE)


def part_of(column: str) -> str:
    """The part of the prompt that a column belongs to: `subject` for `subject[-2]`."""
    return column.partition("[")[0]
