"""Where a model keeps what it knows: maps of activation patching, and whether they moved (Du et al. 2025; Meng et al. 2022).

A map is what the corrupt run's answer gains when one block's output at one token is taken from the clean run. Units (two
entities, see prompts/pairs.py) are what was sampled; no entity is in two of them, so a similarity is measured across disjoint
ones. Recovery, gain over clean minus corrupt, is a ratio of means and never binned.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Better, CellMap, Drift, Item, SitePoint
from mechdrift.findings.knowledge.maps import Columns, KnowledgeReadings, Map, Maps, answered, by_unit, mean_of, share_right
from mechdrift.findings.minimums import ACCURACY_MINIMUM, STRENGTH_MINIMUM
from mechdrift.prompts.pairs import is_knowledge
from mechdrift.stats import (
    Normal,
    PairedProportions,
    Proportion,
    cross_fitted_similarity,
    jackknife_error,
    ratio_of_means,
)

LEVELS, LEVELS_OF_ZERO = 20, 10  # the published binning
SITE = "resid_post, every block"


def accuracy(read: KnowledgeReadings) -> Drift:
    """Post answers what base answered: accuracy over all pairs, as `answered` counts it, post minus base.

    In [-1, 1], 0 = as often; higher is better; the absolute row beside the maps. Raises Unmeasurable where base does not know.
    Source: Du et al. 2025, claim 1.
    """
    require_knowledge(read)
    hits = [by_unit(answered(model.clean, model.corrupt, read.form), read.pairs) for model in (read.base, read.post)]
    gained = lost = 0.0
    items = []
    for (kind, unit), before in hits[0].items():
        after = hits[1][kind, unit]
        moves = [b - a for a, b in zip(before, after, strict=True)]
        gained += sum(max(move, 0.0) for move in moves) / len(moves)
        lost += sum(max(-move, 0.0) for move in moves) / len(moves)
        items.append(Item(unit, kind, mean_of(before), mean_of(after), mean_of(moves) / len(hits[0])))
    means = [mean_of([mean_of(values) for values in model.values()]) for model in hits]
    return knowledge_drift(
        "knowledge.accuracy",
        PairedProportions(gained, lost, len(items)),
        0.0,
        "accuracy, post minus base",
        read,
        f"base {means[0]:.3f}, post {means[1]:.3f}{_pairs_note(read)}",
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
    gaps = [by_unit(model.gap, read.pairs) for model in (read.base, read.post)]
    before, after = (np.array([mean_of(of[unit]) for unit in units]) for of in gaps)
    items = [
        Item(unit, kind, float(b), float(p), float((p - b) / before.sum()))
        for (kind, unit), b, p in zip(units, before, after, strict=True)
    ]
    note = f"base {before.mean():.2f}, post {after.mean():.2f} logits"
    evidence = ratio_of_means(after, before)
    return knowledge_drift("knowledge.clean_gap", evidence, 1.0, "ratio, post over base", read, note, items, site="logits @ last")


def location(read: KnowledgeReadings, columns: Columns = "knowledge") -> Drift:
    """Knowledge lies where it lay: correlation of the two maps over cells, measured across disjoint units.

    columns: `knowledge` compares subject and object tokens, and what else carries a tenth of base's recovery by the choose split,
    as the word before the object may; `all` also the last token, which carries most of a map's variance and alone keeps a
    correlation high. 1 = same map up to scale; higher is better. Where post has no map left accuracy decides.
    Raises Unmeasurable where base does not know, or has no map. Source: Du et al. 2025, claim 1.
    """
    name = "knowledge.location" if columns == "knowledge" else "knowledge.location_all"
    require_knowledge(read)
    absolute = accuracy(read)
    if (lost := too_few_left(name, read, absolute)) is not None:
        return lost
    base, post = (maps.of(columns) for maps in read.maps)
    rows = base.contributions(), post.contributions()
    try:
        found = cross_fitted_similarity(*rows)
    except ValueError as error:
        raise Unmeasurable(f"location map: {error}; {read.kept.note()}") from error
    if not found.strength[0] > STRENGTH_MINIMUM and map_lost_in_post(read, columns):
        return lost_in_post(name, read, absolute)
    require_map(found.strength[0], len(rows[0]))
    post_lacks = not found.strength[1] > STRENGTH_MINIMUM
    along = [of @ (of.mean(0) / np.linalg.norm(of.mean(0))) for of in rows]
    items = [
        Item(unit, kind, float(b), float(p), float(part - 1 / len(rows[0])))
        for (kind, unit), b, p, part in zip(read.kept.units, *along, found.influence, strict=True)
    ]
    return knowledge_drift(
        name,
        found.evidence,
        1.0,
        "correlation across disjoint units",
        read,
        f"plug-in {found.plug_in:.3f}; {_columns(base, columns)}; {_as_published(read)}; {read.kept.note()}"
        + ("; post has too little left to map" if post_lacks else ""),
        items,
        {"columns": columns},
        post_lacks=post_lacks,
        fewer_left=read.kept.lost_in_post_alone,
        sibling=absolute,
        maps=tuple(maps.drawn(name) for name, maps in zip(("base", "post"), read.maps, strict=True)),
    )


def _columns(maps: Maps, columns: Columns) -> str:
    """How many are compared, and which of them are neither subject nor object, in words."""
    there = [name for name in maps.columns if name in maps.beside] if columns == "knowledge" else []
    return f"{len(maps.columns)} columns" + (f", of them {', '.join(there)} beside subject and object" if there else "")


def _as_published(read: KnowledgeReadings) -> str:
    """What the published comparison says of the same run, in words."""
    try:
        return f"published binned r {published(read).evidence.words()}"
    except Unmeasurable as error:
        return f"published binned r: {error}"


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
    requested = replace(read.kept, pairs=rows, mask=np.ones(len(rows), dtype=bool))
    base, post = (maps.of("all") for maps in read.maps_over(requested))
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
    return knowledge_drift(
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


def require_knowledge(read: KnowledgeReadings) -> None:
    """Raise Unmeasurable, with n and the gap, unless base answers well enough to have something to lose."""
    evidence = share_right(read.base, read.pairs, read.form)
    if not _can_tell(evidence.n):
        raise Unmeasurable(f"{evidence.n} units: too few to tell whether base knows, even if it answered all{_pairs_note(read)}")
    if not evidence.interval().low > ACCURACY_MINIMUM:
        after = share_right(read.post, read.pairs, read.form)
        gained = f"gained: post answers {after.estimate:.3f}, and " if after.interval().low > ACCURACY_MINIMUM else ""
        raise Unmeasurable(
            f"{gained}base answers {evidence.words()} of the {read.form} prompts right, more than "
            f"{ACCURACY_MINIMUM:g} needed; clean gap {read.base.gap.mean():.2f} logits; n = {evidence.n} units{_pairs_note(read)}"
        )


def _can_tell(units: int) -> bool:
    """Whether a base that answers all would be known to know."""
    return Proportion(units, units).interval().low > ACCURACY_MINIMUM


def _pairs_note(read: KnowledgeReadings) -> str:
    """What is known of how the pairs came about, to be put behind something."""
    return f"; {read.found}" if read.found else ""


def require_map(strength: float, units: int, who: str = "base") -> None:
    """Raise Unmeasurable unless a map's squared length is so many standard errors from 0."""
    if not strength > STRENGTH_MINIMUM:
        raise Unmeasurable(
            f"{who} has no location map: squared length {strength:.1f} standard errors from 0, more than "
            f"{STRENGTH_MINIMUM:g} needed; n = {units} units"
        )


def map_lost_in_post(read: KnowledgeReadings, columns: Columns) -> bool:
    """Whether base has a map of all that it knows, and post knows less, so that what is left need not show one."""
    if not read.kept.fewer_in_post:
        return False
    own = read.base_alone.of(columns).contributions()
    return cross_fitted_similarity(own, own).strength[0] > STRENGTH_MINIMUM


def too_few_left(name: str, read: KnowledgeReadings, absolute: Drift) -> Drift | None:
    """The drift where both know too few pairs for a jackknife: unmeasurable, or decided by the sibling where post lost them."""
    if len(read.kept.units) > 3:
        return None
    if not read.kept.fewer_in_post:
        raise Unmeasurable(f"too few pairs are answered right by both: {read.kept.note()}")
    return lost_in_post(name, read, absolute)


def lost_in_post(name: str, read: KnowledgeReadings, absolute: Drift) -> Drift:
    """The drift where post knows too little to be mapped: the sibling decides."""
    evidence = Normal(float("nan"), float("nan"), len(read.kept.units))
    note = f"post knows too little to be mapped: {read.kept.note()}"
    return knowledge_drift(name, evidence, float("nan"), "none", read, note, (), post_lacks=True, sibling=absolute)


def _correlation(first: Map, second: Map) -> float:
    """Pearson r of two maps; NaN where one is flat."""
    x, y = first.ravel() - first.mean(), second.ravel() - second.mean()
    with np.errstate(invalid="ignore"):
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def knowledge_drift(
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
    fewer_left: bool = False,
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
        fewer_left=fewer_left,
        sibling=sibling,
        curve=curve,
        maps=maps,
    )
