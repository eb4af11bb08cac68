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
from mechdrift.measures.drift import Drift, Item
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Normal, jackknife_error

Formula = Literal["du", "marks"]
Flips = Literal["true-to-false", "false-to-true", "both"]
FORMULAS: tuple[Formula, ...] = ("du", "marks")
FLIPS: tuple[Flips, ...] = ("true-to-false", "false-to-true")
# Base's own direction must do more than this, beyond a random one, with the lower end of its 90% interval: the shipped limit
# allows a loss of 0.15.
EFFECT_MINIMUM = 0.20
FALLING_OUT = 0.20  # share of the statements: where more are lost in post alone, steering the rest says little

PerStatement = Float[np.ndarray, " statement"]


@dataclass(frozen=True)
class Arms:
    """One model's P, plain and steered, for every statement; NaN where a statement was not asked."""

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
) -> Normal:
    """Effect of a model's own direction on itself beyond that of a random one of its length, by Du's formula, both ways.

    A push that only breaks the model turns every answer into the one that it gives when it knows nothing: steering, one way.
    """
    both = []
    for steered in (own, random):
        _, true, false = sums(plain, steered, statements, kept)
        both.append([effect(*either, "du", "both") for either in _total_and_out(true, false)])
    (mine, mine_out), (other, other_out) = both
    return _with_error(mine - other, mine_out - other_out)


def base_effect(base: Arms, statements: Sequence[Statement]) -> Normal:
    """effect_over_random of base over all that base judges right: what post still judges right may not show what base had."""
    return effect_over_random(
        base.plain, base.own, base.random, statements, kept_statements(base.plain, base.plain, statements).mask
    )


def transfer(
    name: str,
    arms: Arms,
    needed: Normal | None,
    statements: Sequence[Statement],
    kept: Bool[np.ndarray, " statement"],
    how: "How",
    formula: Formula = "du",
    flips: Flips = "both",
) -> Drift:
    """The other model's truth direction steers this one as well as its own does.

    Effect of the transferred minus effect of the own direction on the same statements, 0 = as well; higher is better. Raises
    Unmeasurable where base's own direction does not steer base. needed: base_effect; None where too few statements are left.
    Source: Du et al. 2025, claim 2.
    """
    if needed is None or too_few(kept, statements):
        return _lost(name, how)
    require_effect(needed)
    entities, own_true, own_false = sums(arms.plain, arms.own, statements, kept)
    _, other_true, other_false = sums(arms.plain, arms.transferred, statements, kept)
    pairs = zip(_total_and_out(own_true, own_false), _total_and_out(other_true, other_false), strict=True)
    (own, other), (own_out, other_out) = (
        (effect(*mine, formula, flips), effect(*theirs, formula, flips)) for mine, theirs in pairs
    )
    return _drift(
        name,
        _with_error(other - own, other_out - own_out),
        (own, own_out, "own"),
        (other, other_out, "transferred"),
        entities,
        how,
    )


def own_difference(
    base: Arms,
    post: Arms,
    needed: Normal | None,
    statements: Sequence[Statement],
    kept: Bool[np.ndarray, " statement"],
    how: "How",
) -> Drift:
    """Each model's own truth direction steers it as much after post-training as before.

    Effect on post minus effect on base, in Du's formula, both ways; 0 = as much; higher is better; the absolute row beside the
    transfer. Raises Unmeasurable where base's own direction does not steer base. needed: as in transfer. Source: Du et al. 2025,
    claim 2.
    """
    if needed is None or too_few(kept, statements):
        return _lost("truth.steering_effect", how)
    require_effect(needed)
    found = []
    for arms in (base, post):
        entities, true, false = sums(arms.plain, arms.own, statements, kept)
        found.append([effect(*both, "du", "both") for both in _total_and_out(true, false)])
    (before, before_out), (after, after_out) = found
    evidence = _with_error(after - before, after_out - before_out)
    return _drift("truth.steering_effect", evidence, (before, before_out, "base"), (after, after_out, "post"), entities, how)


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
    sibling: Drift | None = None
    """The absolute row that then decides."""


@dataclass(frozen=True)
class Kept:
    """The statements that both models judge right: on the others there is nothing to turn over."""

    mask: Bool[np.ndarray, " statement"]
    """Which they are."""
    asked: int
    """Statements asked."""
    base_wrong: int
    """How many base judges wrong."""
    post_wrong: int
    """How many post judges wrong."""

    @property
    def lost_in_post_alone(self) -> bool:
        """Whether so many fall out in post, and not in base, that the rest says little."""
        return self.post_wrong > FALLING_OUT * self.asked >= self.base_wrong


def kept_statements(base: PerStatement, post: PerStatement, statements: Sequence[Statement]) -> Kept:
    """base, post: plain P, NaN where not asked. A tie counts as wrong."""
    signs = np.where([s.label for s in statements], 1.0, -1.0)
    asked = ~np.isnan(base)
    right = [asked & (np.nan_to_num(model) * signs > 0) for model in (base, post)]
    return Kept(right[0] & right[1], int(asked.sum()), *(int((asked & ~one).sum()) for one in right))


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


def require_effect(base_effect: Normal) -> None:
    """Raise Unmeasurable unless base's own direction steers base by more than a random one does."""
    low, high = base_effect.interval()
    if not low > EFFECT_MINIMUM:
        raise Unmeasurable(
            f"base's own truth direction steers base by {base_effect.estimate:.3f} [{low:.3f}, {high:.3f}] beyond a random one, "
            f"more than {EFFECT_MINIMUM:g} needed; n = {base_effect.n} entities"
        )


def _drift(
    name: str,
    evidence: Normal,
    first: tuple[Float[np.ndarray, " one"], Float[np.ndarray, " entity"], str],
    second: tuple[Float[np.ndarray, " one"], Float[np.ndarray, " entity"], str],
    entities: Sequence[tuple[str, str]],
    how: How,
) -> Drift:
    """A difference of two effects; an entity's part is its jackknife influence."""
    n = len(entities)
    difference = second[1] - first[1]
    influence = evidence.estimate / n + (n - 1) / n * (evidence.estimate - difference)
    before, after = (n * whole[0] - (n - 1) * out for whole, out, _ in (first, second))
    items = tuple(
        Item(entity, kind, float(b), float(p), float(part))
        for (kind, entity), b, p, part in zip(entities, before, after, influence, strict=True)
    )
    effects = ", ".join(_words(whole, out, word) for whole, out, word in (first, second))
    return Drift(
        measure=name,
        evidence=evidence,
        null=0.0,
        unit=f"intervention effect, {second[2]} minus {first[2]}",
        better="higher",
        site=how.site,
        site_rule=how.rule,
        data=how.data,
        note=f"{effects}; {how.note}",
        items=items,
        post_lacks=how.post_lacks,
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


def _words(whole: Float[np.ndarray, " one"], out: Float[np.ndarray, " entity"], word: str) -> str:
    """One effect with its interval."""
    evidence = _with_error(whole, out)
    low, high = evidence.interval()
    return f"{word} {evidence.estimate:.3f} [{low:.3f}, {high:.3f}]"


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
