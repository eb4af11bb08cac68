"""Where a model keeps what it knows: maps of activation patching, and whether they moved (Du et al. 2025; Meng et al. 2022).

A map is what the corrupt run's answer gains when one block's output at one token is taken from the clean run. Units (two
entities, see prompts/pairs.py) are what was sampled; no entity is in two of them, so a similarity is measured across disjoint
ones. Recovery, gain over clean minus corrupt, is a ratio of means and never binned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mechdrift.errors import Unmeasurable
from mechdrift.measures.drift import Better, CellMap, Drift, Item, SitePoint
from mechdrift.prompts.pairs import KNOWLEDGE, LAST, SUBJECT, Form, PromptPair, is_knowledge, part_of
from mechdrift.stats import (
    Evidence,
    Normal,
    PairedProportions,
    Proportion,
    cross_fitted_similarity,
    cross_fitted_slope,
    jackknife_error,
    ratio_of_means,
)

Columns = Literal["knowledge", "all"]
# Base must do better with the lower end of its 90% interval, as for judgements: chance is one half.
ACCURACY_MINIMUM = 0.70
STRENGTH_MINIMUM = 3.0  # U / SE of a map's squared length
FALLING_OUT = 0.20  # share of the pairs: where more are lost in post alone, the maps of the rest say little
COLUMN_SHARE = 0.5  # of the units: a column that fewer have is not compared
MASS_MINIMUM = 0.10  # recovery summed over blocks: a part that carries less has no centre of mass worth the name
LEVELS, LEVELS_OF_ZERO = 20, 10  # the published binning
SITE = "resid_post, every block"
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
    """All that were asked."""
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

    @cached_property
    def units(self) -> list[tuple[str, str]]:
        """(table, unit) of those kept, sorted."""
        return sorted({pair.sampled for pair, keep in zip(self.pairs, self.mask, strict=True) if keep})

    def note(self) -> str:
        """In words."""
        return f"{int(self.mask.sum())} of {len(self.mask)} pairs; answered wrong: base {self.base_wrong}, post {self.post_wrong}"


def answered(model: Patched, form: Form) -> PerPair:
    """Share of each pair that a model answers right; a tie is wrong.

    judged: of its two sides, d_clean > 0 and d_corrupt < 0. cloze: whether d_clean > d_corrupt, for between two objects a model
    prefers one before any subject is named, and that says nothing of what it knows.
    """
    if form == "cloze":
        return np.asarray((model.gap > 0).astype(float))
    return np.asarray(((model.clean > 0).astype(float) + (model.corrupt < 0)) / 2)


def share_right(model: Patched, pairs: Sequence[PromptPair], form: Form) -> Proportion:
    """Share of the pairs that one model answers right, over units, in [0, 1]."""
    hits = _by_unit(answered(model, form), pairs)
    return Proportion(sum(_mean(values) for values in hits.values()), len(hits))


def mean_gap(model: Patched, pairs: Sequence[PromptPair]) -> Normal:
    """Mean of d_clean - d_corrupt of one model, over units, in logits."""
    gaps = np.array([_mean(values) for values in _by_unit(model.gap, pairs).values()])
    return ratio_of_means(gaps, np.ones(len(gaps)))


def kept_pairs(base: Patched, post: Patched, pairs: Sequence[PromptPair], form: Form = "judged") -> Kept:
    """Keep what both answer right."""
    right = [answered(model, form) == 1.0 for model in (base, post)]
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
            i for i, name in enumerate(self.columns) if share[i] >= COLUMN_SHARE and (columns == "all" or is_knowledge(name))
        ]
        return Maps(tuple(self.columns[i] for i in chosen), self.gains[:, :, chosen], self.gaps)

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

    def maps_over(self, kept: Kept) -> tuple[Maps, Maps]:
        """The same of other pairs."""
        if self.base.d.shape[1] != self.post.d.shape[1]:
            raise Unmeasurable(f"numbers of blocks differ: base {self.base.d.shape[1]}, post {self.post.d.shape[1]}")
        return maps_of(self.base, kept), maps_of(self.post, kept)

    @property
    def data(self) -> str:
        """The data set as it stands in a row's key."""
        return "+".join(sorted({pair.kind for pair in self.pairs}))


def accuracy(read: KnowledgeReadings) -> Drift:
    """Post answers what base answered: accuracy over all pairs, as `answered` counts it, post minus base.

    In [-1, 1], 0 = as often; higher is better; the absolute row beside the maps. Raises Unmeasurable where base does not know.
    Source: Du et al. 2025, claim 1.
    """
    require_knowledge(read)
    hits = [_by_unit(answered(model, read.form), read.pairs) for model in (read.base, read.post)]
    gained = lost = 0.0
    items = []
    for (kind, unit), before in hits[0].items():
        after = hits[1][kind, unit]
        moves = [b - a for a, b in zip(before, after, strict=True)]
        gained += sum(max(move, 0.0) for move in moves) / len(moves)
        lost += sum(max(-move, 0.0) for move in moves) / len(moves)
        items.append(Item(unit, kind, _mean(before), _mean(after), _mean(moves) / len(hits[0])))
    means = [_mean([_mean(values) for values in model.values()]) for model in hits]
    return _drift(
        "knowledge.accuracy",
        PairedProportions(gained, lost, len(items)),
        0.0,
        "accuracy, post minus base",
        read,
        f"base {means[0]:.3f}, post {means[1]:.3f}{_told(read)}",
        items,
        site="logits @ last",
    )


def clean_gap(read: KnowledgeReadings) -> Drift:
    """Post tells the two answers apart by as wide a margin as base.

    Mean of d_clean - d_corrupt over all pairs, post over base, a ratio of means; 1 = as wide; higher is better. Raises
    Unmeasurable where base does not know.
    """
    require_knowledge(read)
    units = sorted({pair.sampled for pair in read.pairs})
    gaps = [_by_unit(model.gap, read.pairs) for model in (read.base, read.post)]
    before, after = (np.array([_mean(of[unit]) for unit in units]) for of in gaps)
    items = [
        Item(unit, kind, float(b), float(p), float((p - b) / before.sum()))
        for (kind, unit), b, p in zip(units, before, after, strict=True)
    ]
    note = f"base {before.mean():.2f}, post {after.mean():.2f} logits"
    evidence = ratio_of_means(after, before)
    return _drift("knowledge.clean_gap", evidence, 1.0, "ratio, post over base", read, note, items, site="logits @ last")


def location(read: KnowledgeReadings, columns: Columns = "knowledge") -> Drift:
    """Knowledge lies where it lay: correlation of the two maps over cells, measured across disjoint units.

    columns: `knowledge` compares subject and object tokens; `all` also the last token, which carries most of a map's variance
    and alone keeps a correlation high. 1 = same map up to scale; higher is better. Where post has no map left accuracy decides.
    Raises Unmeasurable where base does not know, or has no map. Source: Du et al. 2025, claim 1.
    """
    name = "knowledge.location" if columns == "knowledge" else "knowledge.location_all"
    require_knowledge(read)
    absolute = accuracy(read)
    if (lost := _too_few_left(name, read, absolute)) is not None:
        return lost
    base, post = (maps.of(columns) for maps in read.maps)
    rows = base.contributions(), post.contributions()
    try:
        found = cross_fitted_similarity(*rows)
    except ValueError as error:
        raise Unmeasurable(f"location map: {error}; {read.kept.note()}") from error
    _require_map(found.strength[0], len(rows[0]))
    post_lacks = read.kept.lost_in_post_alone or not found.strength[1] > STRENGTH_MINIMUM
    along = [of @ (of.mean(0) / np.linalg.norm(of.mean(0))) for of in rows]
    items = [
        Item(unit, kind, float(b), float(p), float(part - 1 / len(rows[0])))
        for (kind, unit), b, p, part in zip(read.kept.units, *along, found.influence, strict=True)
    ]
    return _drift(
        name,
        found.evidence,
        1.0,
        "correlation across disjoint units",
        read,
        f"plug-in {found.plug_in:.3f}; {len(base.columns)} columns; {_as_published(read)}; {read.kept.note()}"
        + ("; post has too little left to map" if post_lacks else ""),
        items,
        {"columns": columns},
        post_lacks=post_lacks,
        sibling=absolute,
        maps=tuple(maps.drawn(name) for name, maps in zip(("base", "post"), read.maps, strict=True)),
    )


def _as_published(read: KnowledgeReadings) -> str:
    """What the published comparison says of the same run, in words."""
    try:
        return f"published binned r {_words(published(read).evidence)}"
    except Unmeasurable as error:
        return f"published binned r: {error}"


def depth_shift(read: KnowledgeReadings, part: str = SUBJECT) -> Drift:
    """The blocks at which a part of the prompt matters are as deep as they were.

    Centre of mass over blocks of the recovery summed over the part's tokens, post minus base, as a share of the number of
    blocks; 0 = as deep; either way is a drift. part: `subject`, `object`, `last` or `knowledge`. Where post's part carries
    nothing any more accuracy decides. Raises Unmeasurable where base does not know, or the part carries nothing there.
    Source: ours.
    """
    require_knowledge(read)
    absolute = accuracy(read)
    if (lost := _too_few_left("knowledge.depth_shift", read, absolute)) is not None:
        return lost
    gains = [maps.of_part(part) for maps in read.maps]
    masses = [_mass(gain, maps.gaps) for gain, maps in zip(gains, read.maps, strict=True)]
    if not _carries(masses[0]):
        raise Unmeasurable(
            f"the {part} carries {_words(masses[0])} of base's recovery, summed over blocks; more than {MASS_MINIMUM:g} needed; "
            f"n = {masses[0].n} units"
        )
    (before, before_out), (after, after_out) = (_centre(gain) for gain in gains)
    evidence, influence = _shift(*gains)
    n, layers = evidence.n, gains[0].shape[1]
    items = [
        Item(unit, kind, float(n * before - (n - 1) * b), float(n * after - (n - 1) * p), float(each))
        for (kind, unit), b, p, each in zip(read.kept.units, before_out, after_out, influence, strict=True)
    ]
    return _drift(
        "knowledge.depth_shift",
        evidence,
        0.0,
        "share of the blocks, post minus base",
        read,
        f"centre of mass: base block {before:.2f}, post {after:.2f} of 0..{layers - 1}; carried: base {_words(masses[0])}, "
        f"post {_words(masses[1])}; {read.kept.note()}",
        items,
        {"part": part},
        better="neither",
        post_lacks=read.kept.lost_in_post_alone or not _carries(masses[1]),
        sibling=absolute,
        curve=_shift_by_column(*read.maps),
    )


def _shift(base: Float[np.ndarray, "unit layer"], post: Float[np.ndarray, "unit layer"]) -> tuple[Normal, PerUnit]:
    """How much deeper the centre of mass lies in post, as a share of the blocks, and what each unit adds to that."""
    n, layers = base.shape
    (before, before_out), (after, after_out) = _centre(base), _centre(post)
    shift, left_out = (after - before) / layers, (after_out - before_out) / layers
    evidence = Normal(shift, jackknife_error(left_out), n)
    return evidence, shift / n + (n - 1) / n * (shift - left_out)


def _shift_by_column(base: Maps, post: Maps) -> tuple[SitePoint, ...]:
    """The same for every compared column that carries something in both, over the units that have it."""
    points = []
    for name in base.of("all").columns:
        place = base.columns.index(name)
        there = ~np.isnan(base.gains[:, 0, place])
        gains = [maps.gains[there, :, place] for maps in (base, post)]
        masses = [_mass(gain, maps.gaps[there]) for gain, maps in zip(gains, (base, post), strict=True)]
        if there.sum() > 2 and all(map(_carries, masses)):
            evidence, _ = _shift(*gains)
            points.append(SitePoint(name, evidence.estimate, *evidence.interval()))
    return tuple(points)


def _mass(gain: Float[np.ndarray, "unit layer"], gaps: PerUnit) -> Normal:
    """Recovery summed over blocks."""
    return ratio_of_means(gain.sum(1), gaps) if len(gain) > 1 else Normal(float("nan"), float("nan"), len(gain))


def _carries(mass: Normal) -> bool:
    """Whether there is enough of it to have a centre."""
    return mass.interval().low > MASS_MINIMUM


def published(read: KnowledgeReadings) -> Drift:
    """The published comparison: Pearson r of the two binned mean maps, all columns, on the same pairs, whether known or not.

    1 = same binned map; higher is better. A mean over pairs, however many a unit has. Reported: it hardly sees a map that moved
    by a block, nor one without any subject or object (docs/design/knowledge.md). The largest differences of binned cells are in
    the note. Interval: jackknife over units of a binned map, rough. Units too few to tell whether base knows, as where pairs link
    all entities, have an estimate without an interval, which is unmeasurable and never held. Raises Unmeasurable where base does
    not know, or a map is flat. Source: Du et al. 2025, claim 1, code.
    """
    units = {unit: number for number, unit in enumerate(sorted({pair.sampled for pair in read.pairs}))}
    enough = _can_tell(len(units))
    if enough:
        require_knowledge(read)
    # Every pair a row of the maps: in order, whatever it is about.
    rows = tuple(replace(pair, kind="", unit=f"{number:09d}") for number, pair in enumerate(read.pairs))
    asked = replace(read.kept, pairs=rows, mask=np.ones(len(rows), dtype=bool))
    base, post = (maps.of("all") for maps in read.maps_over(asked))
    unit_of = np.array([units[pair.sampled] for pair in read.pairs])
    knowledge = np.array([is_knowledge(name) for name in base.columns])

    def mean_maps(left_out: int | None) -> tuple[Map, Map]:
        keep = unit_of != left_out
        first, second = (binned(Maps(maps.columns, maps.gains[keep], maps.gaps[keep]).recovery()) for maps in (base, post))
        return first, second

    whole = mean_maps(None)
    estimate = _correlation(*whole)
    if not np.isfinite(estimate):
        raise Unmeasurable("a binned map has the same value everywhere")
    error = jackknife_error(np.array([_correlation(*mean_maps(unit)) for unit in range(len(units))])) if enough else float("inf")
    apart = np.abs(whole[0] - whole[1])
    of_knowledge = f"{apart[:, knowledge].max():.2f}" if knowledge.any() else "none"
    return _drift(
        "knowledge.published",
        Normal(estimate, error, len(units)),
        1.0,
        "Pearson r of binned maps",
        read,
        f"plug-in, as published; largest difference {apart.max():.2f}, on knowledge columns {of_knowledge}"
        + ("" if enough else f"; no interval from {len(units)} units"),
        (),
    )


def binned(values: Map) -> Map:
    """The published normalisation: 20 equal bins from the least to the greatest value; 1 to 10 -> 0, 11 to 20 -> 0.1 to 1.0."""
    low, high = np.nanmin(values), np.nanmax(values)
    if not high > low:
        return np.zeros_like(values)
    level = np.clip(np.floor((values - low) / (high - low) * LEVELS) + 1, 1, LEVELS)
    return np.asarray(np.maximum(level - LEVELS_OF_ZERO, 0) / (LEVELS - LEVELS_OF_ZERO))


@dataclass(frozen=True)
class Transferred:
    """Cross-model sweeps: d of the target's corrupt run with the other model's clean activations."""

    forward: Float[np.ndarray, "pair layer position"]
    """Base's activations in post."""
    backward: Float[np.ndarray, "pair layer position"]
    """Post's activations in base."""


def cross_recovery(read: KnowledgeReadings, across: Transferred, direction: str, columns: Columns = "all") -> Drift:
    """The other model's representations recover the target's answer as well as its own do.

    direction: `forward` puts base's activations into post, `backward` post's into base. Slope of the transferred map on the
    target's own over all cells, measured across disjoint units: 1 = as well as its own, 0 = nothing; higher is better. Raises
    Unmeasurable where base does not know or the target has no map of its own. Source: Du et al. 2025, claim 1.
    """
    name = f"knowledge.recovery_{direction}"
    absolute, slope = _slope(read, across, direction, columns, name)
    if slope is None:
        return _lost(name, read, absolute)
    _, transferred = _own_and_transferred(read, across, direction)
    return _drift(
        name,
        slope[0],
        1.0,
        "recovery relative to the target's own",
        read,
        f"slope on the target's own map; {read.kept.note()}",
        (),
        {"columns": columns},
        post_lacks=read.kept.lost_in_post_alone,
        sibling=absolute,
        maps=(transferred.drawn("base in post" if direction == "forward" else "post in base"),),
    )


def asymmetry(read: KnowledgeReadings, across: Transferred, columns: Columns = "all") -> Drift:
    """Base's representations work in post as well as post's in base, or not: forward minus backward recovery.

    0 = as well; either way is a difference; the claim as published is that it is above 0. Raises Unmeasurable as cross_recovery.
    """
    name = "knowledge.recovery_asymmetry"
    absolute, forward = _slope(read, across, "forward", columns, name)
    _, backward = _slope(read, across, "backward", columns, name)
    if forward is None or backward is None:
        return _lost(name, read, absolute)
    difference = forward[0].estimate - backward[0].estimate
    evidence = Normal(difference, jackknife_error(forward[1] - backward[1]), forward[0].n)
    note = f"forward {_words(forward[0])}, backward {_words(backward[0])}: " + (
        "as published" if evidence.interval().low > 0 else "unlike published"
    )
    return _drift(
        name, evidence, 0.0, "relative recovery, forward minus backward", read, note, (), {"columns": columns}, better="neither"
    )


def _slope(
    read: KnowledgeReadings, across: Transferred, direction: str, columns: Columns, name: str
) -> tuple[Drift, tuple[Normal, Float[np.ndarray, " unit"]] | None]:
    """The sibling, and the slope of the transferred map on the target's own with its jackknife; None where too few are left."""
    require_knowledge(read)
    absolute = accuracy(read)
    if _too_few_left(name, read, absolute) is not None:
        return absolute, None
    target, other = _own_and_transferred(read, across, direction)
    own = target.of(columns).contributions()
    try:
        _require_map(cross_fitted_similarity(own, own).strength[0], len(own), f"the target of {direction} patching")
        return absolute, cross_fitted_slope(other.of(columns).contributions(), own)
    except ValueError as error:
        raise Unmeasurable(f"{direction} patching: {error}; {read.kept.note()}") from error


def _own_and_transferred(read: KnowledgeReadings, across: Transferred, direction: str) -> tuple[Maps, Maps]:
    """The target's map by its own activations, and by the other model's."""
    base, post = read.maps
    own, target, d = (post, read.post, across.forward) if direction == "forward" else (base, read.base, across.backward)
    return own, maps_of(replace(target, d=d), read.kept)


def require_knowledge(read: KnowledgeReadings) -> None:
    """Raise Unmeasurable, with n and the gap, unless base answers well enough to have something to lose."""
    evidence = share_right(read.base, read.pairs, read.form)
    if not _can_tell(evidence.n):
        raise Unmeasurable(f"{evidence.n} units: too few to tell whether base knows, even if it answered all{_told(read)}")
    if not evidence.interval().low > ACCURACY_MINIMUM:
        low, high = evidence.interval()
        raise Unmeasurable(
            f"base answers {evidence.estimate:.3f} [{low:.3f}, {high:.3f}] of the {read.form} prompts right, more than "
            f"{ACCURACY_MINIMUM:g} needed; clean gap {read.base.gap.mean():.2f} logits; n = {evidence.n} units{_told(read)}"
        )


def _can_tell(units: int) -> bool:
    """Whether a base that answers all would be known to know."""
    return Proportion(units, units).interval().low > ACCURACY_MINIMUM


def _told(read: KnowledgeReadings) -> str:
    """What is known of how the pairs came about, to be put behind something."""
    return f"; {read.found}" if read.found else ""


def _require_map(strength: float, units: int, who: str = "base") -> None:
    if not strength > STRENGTH_MINIMUM:
        raise Unmeasurable(
            f"{who} has no location map: squared length {strength:.1f} standard errors from 0, more than "
            f"{STRENGTH_MINIMUM:g} needed; n = {units} units"
        )


def _too_few_left(name: str, read: KnowledgeReadings, absolute: Drift) -> Drift | None:
    """The drift where both know too few pairs for a jackknife: unmeasurable, or decided by the sibling where post lost them."""
    if len(read.kept.units) > 3:
        return None
    if read.kept.post_wrong <= read.kept.base_wrong:
        raise Unmeasurable(f"too few pairs are answered right by both: {read.kept.note()}")
    return _lost(name, read, absolute)


def _lost(name: str, read: KnowledgeReadings, absolute: Drift) -> Drift:
    """The drift where post knows too little to be mapped: the sibling decides."""
    evidence = Normal(float("nan"), float("nan"), len(read.kept.units))
    note = f"post knows too little to be mapped: {read.kept.note()}"
    return _drift(name, evidence, float("nan"), "none", read, note, (), post_lacks=True, sibling=absolute)


def _by_unit(values: PerPair, pairs: Sequence[PromptPair]) -> dict[tuple[str, str], list[float]]:
    """Values of the pairs grouped by (table, unit)."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        grouped.setdefault(pair.sampled, []).append(float(value))
    return grouped


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def centre_of_mass(maps: Maps, part: str) -> Normal:
    """The block around which a part of the prompt matters to one model, in 0..layers-1.

    Centre of mass over blocks of the recovery summed over the part's tokens, as in depth_shift. Raises Unmeasurable where the
    part carries nothing.
    """
    gain = maps.of_part(part)
    mass = _mass(gain, maps.gaps)
    if not _carries(mass):
        raise Unmeasurable(
            f"carries {_words(mass)} of the recovery, summed over blocks; more than {MASS_MINIMUM:g} needed; n = {mass.n} units"
        )
    centre, left_out = _centre(gain)
    return Normal(centre, jackknife_error(left_out), len(left_out))


def _centre(gain: Float[np.ndarray, "unit layer"]) -> tuple[float, PerUnit]:
    """Centre of mass over blocks of the mean gain, and the same with each unit left out."""
    moment, mass = gain @ np.arange(gain.shape[1]), gain.sum(1)
    return float(moment.sum() / mass.sum()), (moment.sum() - moment) / (mass.sum() - mass)


def _correlation(first: Map, second: Map) -> float:
    """Pearson r of two maps; NaN where one is flat."""
    x, y = first.ravel() - first.mean(), second.ravel() - second.mean()
    with np.errstate(invalid="ignore"):
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _words(evidence: Evidence) -> str:
    """An estimate with its interval."""
    low, high = evidence.interval()
    return f"{evidence.estimate:.3f} [{low:.3f}, {high:.3f}]"


def _drift(
    name: str,
    evidence: Normal | PairedProportions,
    null: float,
    unit: str,
    read: KnowledgeReadings,
    note: str,
    items: Sequence[Item],
    parameters: dict[str, str] | None = None,
    site: str = SITE,
    better: Better = "higher",
    post_lacks: bool = False,
    sibling: Drift | None = None,
    curve: tuple[SitePoint, ...] = (),
    maps: tuple[CellMap, ...] = (),
) -> Drift:
    """A drift of this finding; the prompt form is part of its key."""
    return Drift(
        measure=name,
        evidence=evidence,
        null=null,
        unit=unit,
        better=better,
        site=site,
        site_rule=read.site_rule if site == SITE else "last token of the prompt",
        data=read.data,
        parameters={"form": read.form} | read.by_hand | (parameters or {}),
        note=note,
        items=tuple(items),
        post_lacks=post_lacks,
        sibling=sibling,
        curve=curve,
        maps=maps,
    )
