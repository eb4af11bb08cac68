"""Steering along the truth direction: added, false statements should be called true; taken away, true ones false.

P is P(" TRUE") - P(" FALSE") after the judged prompt. Entities are the unit of sampling. An effect is 0 where steering did
nothing and 1 where it did all that its formula allows; it is a ratio of means over statements, not a mean of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item
from mechdrift.findings.minimums import FALLING_OUT
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Normal, jackknife_error

Formula = Literal["du", "marks"]
Flips = Literal["true-to-false", "false-to-true", "both"]
FORMULAS: tuple[Formula, ...] = ("du", "marks")
FLIPS: tuple[Flips, Flips] = ("true-to-false", "false-to-true")
# Base's own direction must do more than this, beyond a random one, with the lower end of its 90% interval: the shipped limit
# allows a loss of 0.15.
EFFECT_MINIMUM = 0.20

PerStatement = Float[np.ndarray, " statement"]
Effects = dict[Flips, Normal]
"""Of one model's own direction on itself, each way."""


@dataclass(frozen=True)
class Arms:
    """One model's P, plain and steered, for every statement; NaN where a statement was not scored."""

    plain: PerStatement
    """Without intervention."""
    own: PerStatement
    """Steered along its own truth direction: added to false statements, taken from true ones."""
    transferred: PerStatement
    """Steered along the other model's, of the same length."""
    random: PerStatement
    """Steered along a random direction of the same length: what any push of this size does."""


@dataclass(frozen=True)
class Sums:
    """Sums over each entity's statements of one label, from which every effect and its jackknife follow."""

    plain: Float[np.ndarray, " entity"]
    steered: Float[np.ndarray, " entity"]
    count: Float[np.ndarray, " entity"]

    def without_each(self) -> "Sums":
        """The totals with each entity left out."""
        return Sums(*(values.sum() - values for values in (self.plain, self.steered, self.count)))

    def total(self) -> "Sums":
        """The totals, one entry."""
        return Sums(*(values.sum(keepdims=True) for values in (self.plain, self.steered, self.count)))


def effect(true: Sums, false: Sums, formula: Formula, flips: Flips) -> Float[np.ndarray, " n"]:
    """The intervention effect from sums.

    du (Du et al. 2025): the way gone of the way to certainty, (P' - P) / (-1 - P) on true statements and (P' - P) / (1 - P) on
    false ones. marks (Marks and Tegmark 2024): of the way to where the other statements are, P_F - P_T and P_T - P_F. both: the
    mean of the two.
    """
    if flips == "both":
        return (effect(true, false, formula, "true-to-false") + effect(true, false, formula, "false-to-true")) / 2
    at_true, at_false = true.plain / true.count, false.plain / false.count
    if flips == "true-to-false":
        goal = -1.0 if formula == "du" else at_false
        return (true.steered / true.count - at_true) / (goal - at_true)
    goal = 1.0 if formula == "du" else at_true
    return (false.steered / false.count - at_false) / (goal - at_false)


def sums(
    plain: PerStatement, steered: PerStatement, statements: Sequence[Statement], kept: Bool[np.ndarray, " statement"]
) -> tuple[list[tuple[str, str]], Sums, Sums]:
    """(kind, entity) in order, and the sums of their true and of their false statements among those kept."""
    chosen = [int(index) for index in np.flatnonzero(kept)]
    entities = sorted({(statements[i].kind, statements[i].entity) for i in chosen})
    row = {entity: number for number, entity in enumerate(entities)}
    place = np.array([row[statements[i].kind, statements[i].entity] for i in chosen], dtype=int)
    labels = np.array([statements[i].label for i in chosen], dtype=bool)
    indices = np.array(chosen, dtype=int)

    def of(label: bool) -> Sums:
        mine = labels == label

        def summed(values: PerStatement) -> Float[np.ndarray, " entity"]:
            return np.bincount(place[mine], weights=values[indices[mine]], minlength=len(entities))

        return Sums(summed(plain), summed(steered), summed(np.ones(len(statements))))

    return entities, of(True), of(False)


def effect_over_random(
    plain: PerStatement,
    own: PerStatement,
    random: PerStatement,
    statements: Sequence[Statement],
    kept: Bool[np.ndarray, " statement"],
    flips: Flips = "both",
) -> Normal:
    """Effect of a model's own direction on itself beyond that of a random one of its length, by Du's formula.

    A push that only breaks the model turns every answer into the one that it gives when it knows nothing: steering, one way.
    """
    effects = []
    for steered in (own, random):
        _, true, false = sums(plain, steered, statements, kept)
        effects.append([effect(*either, "du", flips) for either in _total_and_out(true, false)])
    (mine, mine_out), (other, other_out) = effects
    return _with_error(mine - other, mine_out - other_out)


def own_effects(arms: Arms, statements: Sequence[Statement], kept: Bool[np.ndarray, " statement"]) -> Effects:
    """effect_over_random of one model, each way."""
    return {flips: effect_over_random(arms.plain, arms.own, arms.random, statements, kept, flips) for flips in FLIPS}


def base_effects(base: Arms, statements: Sequence[Statement]) -> Effects:
    """own_effects of base over all that base judges right: what post still judges right may not show what base had."""
    return own_effects(base, statements, kept_statements(base.plain, base.plain, statements).mask)


def working(effects: Effects) -> tuple[Flips, ...]:
    """The ways in which a model's own direction steers it: an effect that is not there cannot be lost, nor hide one that is."""
    return tuple(flips for flips, found in effects.items() if found.interval().low > EFFECT_MINIMUM)


def transfer(
    name: str,
    arms: Arms,
    needed: Effects | None,
    statements: Sequence[Statement],
    kept: Bool[np.ndarray, " statement"],
    how: "How",
    formula: Formula = "du",
    flips: Flips = "both",
) -> Drift:
    """The other model's truth direction steers this one as well as its own does.

    Effect of the transferred minus effect of the own direction on the same statements, 0 = as well; higher is better. both: of
    the ways in which base's own direction steers base, the one where the transferred falls furthest short: a mean would hide that
    one way does nothing. Raises Unmeasurable where base's own direction does not steer base, that way. needed: base_effects; None
    where too few statements are left. Source: Du et al. 2025, claim 2.
    """
    if needed is None or too_few(kept, statements):
        return _lost(name, how)
    ways = _ways(needed, flips)

    def one(way: Flips) -> Compared:
        entities, own_true, own_false = sums(arms.plain, arms.own, statements, kept)
        _, other_true, other_false = sums(arms.plain, arms.transferred, statements, kept)
        pairs = zip(_total_and_out(own_true, own_false), _total_and_out(other_true, other_false), strict=True)
        (own, other), (own_out, other_out) = (
            (effect(*mine, formula, way), effect(*theirs, formula, way)) for mine, theirs in pairs
        )
        return Compared(way, Effect("own", own, own_out), Effect("transferred", other, other_out), entities)

    return _drift(name, [one(way) for way in ways], needed, how)


def own_difference(
    base: Arms,
    post: Arms,
    needed: Effects | None,
    statements: Sequence[Statement],
    kept: Bool[np.ndarray, " statement"],
    how: "How",
) -> Drift:
    """Each model's own truth direction steers it as much after post-training as before.

    Effect on post minus effect on base, in Du's formula; 0 = as much; higher is better; the absolute row beside the transfer. Of
    the ways in which base's own direction steers base the one that lost most. Raises Unmeasurable where it does not. needed: as
    in transfer. Source: Du et al. 2025, claim 2.
    """
    if needed is None or too_few(kept, statements):
        return _lost("truth.steering_effect", how)

    def one(way: Flips) -> Compared:
        found = []
        for arms in (base, post):
            entities, true, false = sums(arms.plain, arms.own, statements, kept)
            found.append([effect(*both, "du", way) for both in _total_and_out(true, false)])
        (before, before_out), (after, after_out) = found
        return Compared(way, Effect("base", before, before_out), Effect("post", after, after_out), entities)

    return _drift("truth.steering_effect", [one(way) for way in _ways(needed, "both")], needed, how)


@dataclass(frozen=True)
class How:
    """Where and how strongly was steered, as the rows say it."""

    site: str
    """Blocks and positions."""
    rule: str
    """How they were chosen."""
    data: str
    """Kinds."""
    note: str
    """What fell out, and the coefficient."""
    post_lacks: bool = False
    """Whether post judges, or is steered by its own direction, too little to compare."""
    fewer_left: bool = False
    """Whether so many statements fell out in post alone that what is left is a selection."""
    sibling: Drift | None = None
    """The absolute row that then decides."""


@dataclass(frozen=True)
class Kept:
    """The statements that both models judge right: on the others there is nothing to turn over."""

    mask: Bool[np.ndarray, " statement"]
    """Which they are."""
    requested: int
    """Statements scored."""
    base_wrong: int
    """How many base judges wrong."""
    post_wrong: int
    """How many post judges wrong."""

    @property
    def lost_in_post_alone(self) -> bool:
        """Whether so many fall out in post, and not in base, that the rest says little."""
        return self.post_wrong > FALLING_OUT * self.requested >= self.base_wrong


def kept_statements(base: PerStatement, post: PerStatement, statements: Sequence[Statement]) -> Kept:
    """base, post: plain P, NaN where not scored. A tie counts as wrong."""
    signs = np.where([s.label for s in statements], 1.0, -1.0)
    requested = ~np.isnan(base)
    right = [requested & (np.nan_to_num(model) * signs > 0) for model in (base, post)]
    return Kept(right[0] & right[1], int(requested.sum()), *(int((requested & ~one).sum()) for one in right))


def too_few(kept: Bool[np.ndarray, " statement"], statements: Sequence[Statement]) -> bool:
    """Whether a label has fewer than two entities left: no effect, or no error of it, can be computed."""
    entities = [
        {(s.kind, s.entity) for s, keep in zip(statements, kept, strict=True) if keep and s.label is label}
        for label in (True, False)
    ]
    return min(map(len, entities)) < 2


def _total_and_out(true: Sums, false: Sums) -> tuple[tuple[Sums, Sums], tuple[Sums, Sums]]:
    """All statements, and all but each entity's."""
    return (true.total(), false.total()), (true.without_each(), false.without_each())


def _with_error(estimate: Float[np.ndarray, " one"], left_out: Float[np.ndarray, " entity"]) -> Normal:
    """The estimate with its delete-one-entity jackknife error."""
    return Normal(float(estimate[0]), jackknife_error(left_out), len(left_out))


def _ways(needed: Effects, flips: Flips) -> tuple[Flips, ...]:
    """The ways to compare. Raises Unmeasurable unless base's own direction steers base by more than a random one does, there."""
    requested = FLIPS if flips == "both" else (flips,)
    ways = tuple(way for way in working(needed) if way in requested)
    if not ways:
        effects = ", ".join(f"{needed[way].words()} {way}" for way in requested)
        raise Unmeasurable(
            f"base's own truth direction steers base by {effects} beyond a random one, more than {EFFECT_MINIMUM:g} needed; "
            f"n = {needed[requested[0]].n} entities"
        )
    return ways


@dataclass(frozen=True)
class Effect:
    """One arm's effect."""

    name: str
    """Of the arm."""
    whole: Float[np.ndarray, " one"]
    """Over all entities."""
    left_out: Float[np.ndarray, " entity"]
    """Without each."""

    def __str__(self) -> str:
        """With its interval."""
        return f"{self.name} {_with_error(self.whole, self.left_out).words()}"


@dataclass(frozen=True)
class Compared:
    """Two effects one way."""

    way: Flips
    first: Effect
    second: Effect
    entities: Sequence[tuple[str, str]]
    """(kind, entity)."""

    @property
    def evidence(self) -> Normal:
        """Their difference."""
        return _with_error(self.second.whole - self.first.whole, self.second.left_out - self.first.left_out)


def _drift(name: str, compared: Sequence[Compared], needed: Effects, how: "How") -> Drift:
    """The difference of two effects where it is worst; an entity's part is its jackknife influence."""
    worst = min(compared, key=lambda one: one.evidence.estimate)
    evidence, n = worst.evidence, len(worst.entities)
    difference = worst.second.left_out - worst.first.left_out
    influence = evidence.estimate / n + (n - 1) / n * (evidence.estimate - difference)
    before, after = (n * one.whole - (n - 1) * one.left_out for one in (worst.first, worst.second))
    items = tuple(
        Item(entity, kind, float(b), float(p), float(part))
        for (kind, entity), b, p, part in zip(worst.entities, before, after, influence, strict=True)
    )
    effects = [f"{one.way} {one.first}, {one.second}" for one in compared]
    effects += [
        f"{way} not compared: base's own does {needed[way].words()} beyond a random one, more than {EFFECT_MINIMUM:g} needed"
        for way in FLIPS
        if way not in working(needed)
    ]
    return Drift(
        measure=name,
        evidence=evidence,
        null=0.0,
        unit=f"intervention effect {worst.way}, {worst.second.name} minus {worst.first.name}",
        better="higher",
        site=how.site,
        site_rule=how.rule,
        data=how.data,
        note=f"{'; '.join(effects)}; {how.note}",
        items=items,
        arms=(worst.first.name, worst.second.name),
        post_lacks=how.post_lacks,
        fewer_left=how.fewer_left,
        sibling=how.sibling,
    )


def _lost(name: str, how: How) -> Drift:
    """The drift where post judges too few statements right to be steered: the sibling decides."""
    return Drift(
        measure=name,
        evidence=Normal(float("nan"), float("nan"), 0),
        null=0.0,
        unit="intervention effect",
        better="higher",
        site=how.site,
        site_rule=how.rule,
        data=how.data,
        note=f"too few statements are judged right by both; {how.note}",
        post_lacks=True,
        sibling=how.sibling,
    )


def mean_differences(
    blocks: Float[np.ndarray, "statement d_model"], statements: Sequence[Statement], kinds: Sequence[str]
) -> dict[str, Float[np.ndarray, " d_model"]]:
    """For each kind the truth direction of all the OTHERS: mean(true) - mean(false) on the fit split, each kind centred.

    Raises Unmeasurable for a single kind.
    """
    if len(kinds) < 2:
        raise Unmeasurable(f"steering takes the direction from other kinds, but there is only {kinds[0]!r}: give two or more")
    centred: dict[str, tuple[Float[np.ndarray, "m d_model"], Bool[np.ndarray, " m"]]] = {}
    for kind in kinds:
        chosen: Int[np.ndarray, " m"] = np.array(
            [i for i, s in enumerate(statements) if s.kind == kind and s.split == "fit"], dtype=int
        )
        rows = blocks[chosen].astype(np.float64)
        centred[kind] = rows - rows.mean(0), np.array([statements[i].label for i in chosen], dtype=bool)
    directions = {}
    for kind in kinds:
        rows = np.concatenate([centred[other][0] for other in kinds if other != kind])
        labels = np.concatenate([centred[other][1] for other in kinds if other != kind])
        directions[kind] = rows[labels].mean(0) - rows[~labels].mean(0)
    return directions
