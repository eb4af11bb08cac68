"""What every unit of pairs adds to a model's map of activation patching, and the pairs that both models know."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import CellMap
from mechdrift.findings.minimums import FALLING_OUT
from mechdrift.prompts.pairs import KNOWLEDGE, LAST, SUBJECT, Form, PromptPair, is_knowledge, part_of
from mechdrift.stats import (
    Normal,
    Proportion,
    ratio_of_means,
)

Columns = Literal["knowledge", "all"]
COLUMN_SHARE = 0.5  # of the units: a column that fewer have is not compared
CARRIES_MINIMUM = 0.1  # of base's recovery, at some block: a column that carries as much is compared beside subject and object
SITE_RULE = "all tokens from the first that differs"
PerPair = Float[np.ndarray, " pair"]
PerUnit = Float[np.ndarray, " unit"]
Map = Float[np.ndarray, "layer column"]


@dataclass(frozen=True)
class Patched:
    """One sweep: d = logit(right answer of the clean prompt) - logit(right answer of the corrupt one)."""

    d: Float[np.ndarray, "pair layer position"]
    """Of the corrupt run with a block's output at a token taken from the clean run; positions from the pair's first
    differing one, NaN beyond its last."""
    clean: PerPair
    """d of the clean run."""
    corrupt: PerPair
    """d of the corrupt run."""

    @property
    def gap(self) -> PerPair:
        """What there is to recover."""
        return self.clean.astype(np.float64) - self.corrupt


@dataclass(frozen=True)
class Kept:
    """The pairs that both models answer right: on the others there is nothing to locate."""

    pairs: tuple[PromptPair, ...]
    """All that were scored."""
    mask: Bool[np.ndarray, " pair"]
    """Which are kept."""
    base_wrong: int
    """How many base does not know."""
    post_wrong: int
    """How many post does not know."""

    @property
    def lost_in_post_alone(self) -> bool:
        """Whether so many fall out in post, and not in base, that the rest says little."""
        return self.post_wrong > FALLING_OUT * len(self.mask) >= self.base_wrong

    @property
    def fewer_in_post(self) -> bool:
        """Whether post knows fewer than base: then what base had may not show in what is kept."""
        return self.post_wrong > self.base_wrong

    @cached_property
    def units(self) -> list[tuple[str, str]]:
        """(table, unit) of those kept, sorted."""
        return sorted({pair.sampled for pair, keep in zip(self.pairs, self.mask, strict=True) if keep})

    def note(self) -> str:
        """In words."""
        return f"{int(self.mask.sum())} of {len(self.mask)} pairs; answered wrong: base {self.base_wrong}, post {self.post_wrong}"


def answered(clean: PerPair, corrupt: PerPair, form: Form) -> PerPair:
    """Share of each pair that a model answers right, by d of its two prompts; a tie is wrong.

    judged: of its two sides, d_clean > 0 and d_corrupt < 0. cloze: whether d_clean > d_corrupt, for between two objects a model
    prefers one before any subject is named, and that says nothing of what it knows.
    """
    if form == "cloze":
        return np.asarray((clean.astype(np.float64) - corrupt > 0).astype(float))
    return np.asarray(((clean > 0).astype(float) + (corrupt < 0)) / 2)


def share_right(model: Patched, pairs: Sequence[PromptPair], form: Form) -> Proportion:
    """Share of the pairs that one model answers right, over units, in [0, 1]."""
    return share_answered(model.clean, model.corrupt, pairs, form)


def share_answered(clean: PerPair, corrupt: PerPair, pairs: Sequence[PromptPair], form: Form) -> Proportion:
    """The same of a model of which no map was made."""
    hits = by_unit(answered(clean, corrupt, form), pairs)
    return Proportion(sum(mean_of(values) for values in hits.values()), len(hits))


def mean_gap(model: Patched, pairs: Sequence[PromptPair]) -> Normal:
    """Mean of d_clean - d_corrupt of one model, over units, in logits."""
    gaps = np.array([mean_of(values) for values in by_unit(model.gap, pairs).values()])
    return ratio_of_means(gaps, np.ones(len(gaps)))


def kept_pairs(base: Patched, post: Patched, pairs: Sequence[PromptPair], form: Form = "judged") -> Kept:
    """Keep what both answer right."""
    right = [answered(model.clean, model.corrupt, form) == 1.0 for model in (base, post)]
    return Kept(tuple(pairs), right[0] & right[1], *(int((~one).sum()) for one in right))


@dataclass(frozen=True)
class Maps:
    """What every unit adds to a model's mean map."""

    columns: tuple[str, ...]
    """Named, in the prompt's order."""
    gains: Float[np.ndarray, "unit layer column"]
    """d - d_corrupt, mean over the unit's pairs; NaN where it has no such column."""
    gaps: Float[np.ndarray, " unit"]
    """d_clean - d_corrupt, mean over the unit's pairs."""
    beside: frozenset[str] = frozenset()
    """Columns that carry knowledge too, beside subject and object: where base's own route goes."""

    def recovery(self) -> Map:
        """The mean map: gain over gap, a ratio of means over the units that have the column; 0 = as corrupt, 1 = as clean."""
        there = ~np.isnan(self.gains[:, 0])
        return np.asarray(np.nansum(self.gains, 0) / (self.gaps @ there))

    def drawn(self, name: str) -> CellMap:
        """The mean map over all compared columns, for reports."""
        whole = self.of("all")
        return CellMap(name, whole.columns, tuple(map(tuple, whole.recovery().tolist())))

    def of(self, columns: Columns) -> "Maps":
        """The compared columns: those that enough units have, and of them those that carry knowledge, or all."""
        share = (~np.isnan(self.gains[:, 0])).mean(0)
        chosen = [
            i
            for i, name in enumerate(self.columns)
            if share[i] >= COLUMN_SHARE and (columns == "all" or is_knowledge(name) or name in self.beside)
        ]
        return replace(self, columns=tuple(self.columns[i] for i in chosen), gains=self.gains[:, :, chosen])

    def carrying(self) -> tuple[str, ...]:
        """Columns but the last, subject and object at which some block brings back CARRIES_MINIMUM or more."""
        compared = self.of("all")
        most = compared.recovery().max(0, initial=0.0)
        return tuple(
            name
            for name, share in zip(compared.columns, most, strict=True)
            if share >= CARRIES_MINIMUM and name != LAST and not is_knowledge(name)
        )

    def contributions(self) -> Float[np.ndarray, "unit cell"]:
        """Rows whose mean is the mean gain, each less its own mean over the cells: their cosine is then a correlation of maps.

        A column that a unit lacks counts nothing there and more elsewhere. Raises Unmeasurable where no two cells are left.
        """
        there = ~np.isnan(self.gains)
        if self.gains.size == 0 or self.gains[0].size < 2:
            raise Unmeasurable(f"no columns that {COLUMN_SHARE:.0%} of the {len(self.gains)} units have")
        weighted = np.where(there, self.gains, 0.0) / there.mean(0)
        rows = weighted.reshape(len(weighted), -1)
        return np.asarray(rows - rows.mean(1, keepdims=True))

    def of_part(self, part: str) -> Float[np.ndarray, "unit layer"]:
        """Gain summed over a part's tokens; the subject of a user's pairs is what they differ in. Raises Unmeasurable if none."""
        parts = (SUBJECT, KNOWLEDGE) if part == SUBJECT else (part,)
        chosen = [i for i, name in enumerate(self.columns) if part_of(name) in parts]
        if not chosen:
            raise Unmeasurable(f"no column belongs to the {part}")
        return np.asarray(np.nansum(self.gains[:, :, chosen], 2))


def maps_of(model: Patched, kept: Kept) -> Maps:
    """A model's maps over the pairs kept; positions of one name in a pair (`others`) count by their mean.

    Raises Unmeasurable where a patched logit is not a number.
    """
    lengths = [len(pair.columns) for pair in kept.pairs]
    if model.d.shape[0] != len(lengths) or model.d.shape[2] < max(lengths, default=0):
        raise ValueError(f"{model.d.shape} patched logits for {len(lengths)} pairs of up to {max(lengths, default=0)} columns")
    columns = _in_order({name for pair in kept.pairs for name in pair.columns})
    place, row = ({name: number for number, name in enumerate(names)} for names in (columns, kept.units))
    total = np.zeros((len(row), model.d.shape[1], len(columns)))
    count = np.zeros((len(row), len(columns)))
    gaps, pairs = np.zeros(len(row)), np.zeros(len(row))
    for number in np.flatnonzero(kept.mask):
        pair = kept.pairs[number]
        gains = model.d[number, :, : len(pair.columns)].astype(np.float64) - model.corrupt[number]
        if not np.isfinite(gains).all():
            raise Unmeasurable(f"patched logits of {pair.words[0]!r} are not all numbers")
        unit = row[pair.sampled]
        gaps[unit] += model.gap[number]
        pairs[unit] += 1
        for name in set(pair.columns):
            chosen = [position for position, other in enumerate(pair.columns) if other == name]
            total[unit, :, place[name]] += gains[:, chosen].mean(1)
            count[unit, place[name]] += 1
    with np.errstate(invalid="ignore"):
        return Maps(tuple(columns), total / np.where(count > 0, count, np.nan)[:, None], gaps / pairs)


def _in_order(names: set[str]) -> list[str]:
    """Columns as they stand in a prompt: parts in order, tokens counted from a part's last."""
    parts = ["before", SUBJECT, KNOWLEDGE, "between", "object", "rest", "others", LAST]

    def place(name: str) -> tuple[int, int]:
        part, _, number = name.partition("[")
        return parts.index(part), int(number.rstrip("]") or 0)

    return sorted(names, key=place)


@dataclass(frozen=True)
class KnowledgeReadings:
    """Both models' sweeps of the same pairs, and what is compared of them."""

    base: Patched
    post: Patched
    pairs: tuple[PromptPair, ...]
    form: Form
    """How the pairs ask; it decides what a right answer is."""
    found: str = ""
    """How many pairs there were and why others fell out, in words."""
    site_rule: str = SITE_RULE
    """How columns were chosen."""
    beside: tuple[str, ...] = ()
    """Columns that are compared beside subject and object, chosen on other pairs (Maps.carrying)."""
    by_hand: dict[str, str] = field(default_factory=dict)
    """What else was chosen by hand; part of a row's key."""

    def __post_init__(self) -> None:
        """Raise Unmeasurable where there is nothing to read."""
        if not self.pairs:
            raise Unmeasurable("no pairs")

    @cached_property
    def kept(self) -> Kept:
        """What both know."""
        return kept_pairs(self.base, self.post, self.pairs, self.form)

    @cached_property
    def maps(self) -> tuple[Maps, Maps]:
        """Base's and post's, of the pairs kept. Raises Unmeasurable where their numbers of blocks differ."""
        return self.maps_over(self.kept)

    @cached_property
    def base_alone(self) -> Maps:
        """Base's, of all pairs that it knows, whatever post knows."""
        alone = maps_of(self.base, kept_pairs(self.base, self.base, self.pairs, self.form))
        return replace(alone, beside=frozenset(self.beside))

    def maps_over(self, kept: Kept) -> tuple[Maps, Maps]:
        """The same of other pairs."""
        if self.base.d.shape[1] != self.post.d.shape[1]:
            raise Unmeasurable(f"numbers of blocks differ: base {self.base.d.shape[1]}, post {self.post.d.shape[1]}")
        first, second = (replace(maps_of(model, kept), beside=frozenset(self.beside)) for model in (self.base, self.post))
        return first, second

    @property
    def data(self) -> str:
        """The data set as it stands in a row's key."""
        return "+".join(sorted({pair.kind for pair in self.pairs}))


def by_unit(values: PerPair, pairs: Sequence[PromptPair]) -> dict[tuple[str, str], list[float]]:
    """Values of the pairs grouped by (table, unit)."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        grouped.setdefault(pair.sampled, []).append(float(value))
    return grouped


def mean_of(values: Sequence[float]) -> float:
    """Their mean, of Python's own type."""
    return float(np.mean(values))
