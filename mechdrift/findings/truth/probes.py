"""Truthfulness: what statements add to a truth direction, its probes, and judgements (Du et al. 2025).

Activations are block outputs at the period of the bare statement, [statement, layer, d_model]; judgements are logits of
" TRUE" and " FALSE" after a few-shot prompt. Entities are the unit of sampling throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, special

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item
from mechdrift.findings.judging import (
    by_entity,
    data_name,
    entity_contributions,
    judged_hits,
    labels_of,
    of_split,
    require_accuracy,
    require_judgement,
    share_right,
    works,
)
from mechdrift.models.sites import site_name
from mechdrift.prompts.statements import Split, Statement
from mechdrift.stats import PairedProportions, ratio_of_means

POSITION = "period"
LAYER_RULE = "layer of base's widest held-out-kind separation on the choose split"

Activations = Float[np.ndarray, "statement layer d_model"]
Others = Float[np.ndarray, "statement layers_of_post d_model_of_post"]  # may differ: unmeasurable, not an error


@dataclass(frozen=True)
class Probe:
    """A linear classifier on activations centred by their own kind's mean."""

    direction: Float[np.ndarray, " d_model"]
    """mean(true) - mean(false), not whitened, unit length."""
    threshold: float
    """Projections above it are called true."""

    def accuracy(
        self, centred: Float[np.ndarray, "statement d_model"], labels: Bool[np.ndarray, " statement"]
    ) -> Float[np.ndarray, " statement"]:
        """1 where the probe is right, 0 where it is wrong."""
        return ((centred @ self.direction > self.threshold) == labels).astype(float)


def fit_probe(centred: Float[np.ndarray, "statement d_model"], labels: Bool[np.ndarray, " statement"]) -> Probe:
    """Difference of means, then a one-dimensional unpenalised logistic regression on the projection.

    Where the projections separate, the regression diverges and the midpoint of the two nearest points is taken.
    """
    difference = centred[labels].mean(0) - centred[~labels].mean(0)
    direction = difference / np.linalg.norm(difference)
    projection = centred @ direction
    highest_false, lowest_true = projection[~labels].max(), projection[labels].min()
    if highest_false < lowest_true:
        return Probe(direction, float(highest_false + lowest_true) / 2)
    centre, scale = projection.mean(), projection.std()
    standard, signs = (projection - centre) / scale, np.where(labels, 1.0, -1.0)

    def loss(parameters: Float[np.ndarray, " 2"]) -> tuple[float, Float[np.ndarray, " 2"]]:
        margin = signs * (parameters[0] * standard + parameters[1])
        pull = -signs * special.expit(-margin)
        return float(np.logaddexp(0.0, -margin).mean()), np.array([(pull * standard).mean(), pull.mean()])

    slope, offset = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return Probe(direction, float(centre - offset / slope * scale))


def choose_layer(base: Activations, statements: Sequence[Statement]) -> tuple[int, tuple[float, ...]]:
    """The layer where base separates true from false best, and every layer's score.

    Score: directions are fitted on the fit split of all kinds but one and tried on the choose split of that one; the
    distance of its class means in pooled standard deviations, averaged over kinds. Smooth where accuracies saturate.
    Raises Unmeasurable for a single kind.
    """
    scores = []
    for layer in range(base.shape[1]):
        distances = []
        for _, fit, held_out in _leave_one_kind_out(statements, "choose"):
            probe = fit_probe(_centred(base[:, layer], statements, fit), labels_of(statements, fit))
            projection = _centred(base[:, layer], statements, held_out) @ probe.direction
            labels = labels_of(statements, held_out)
            spread = np.sqrt((projection[labels].var() + projection[~labels].var()) / 2)
            distances.append((projection[labels].mean() - projection[~labels].mean()) / max(spread, 1e-30))
        scores.append(float(np.mean(distances)))
    return int(np.argmax(scores)), tuple(scores)


def independent_pairs(
    entities: Sequence[tuple[str, str]], statements: Sequence[Statement], chosen: Int[np.ndarray, " m"]
) -> Bool[np.ndarray, "entity entity"]:
    """Which pairs of entities share no value: statements that name the same country share what the model makes of it.

    False objects are a permutation of the true ones, so without this every object stands against itself, and a model that
    knows nothing shows a squared direction 7 standard errors BELOW zero.
    """
    named: dict[tuple[str, str], set[str]] = {entity: set() for entity in entities}
    for i in chosen:
        if statements[i].value:
            named[statements[i].kind, statements[i].entity].add(f"{statements[i].kind}/{statements[i].value}")
    values = sorted(set().union(*named.values()))
    place = {value: column for column, value in enumerate(values)}
    incidence = np.zeros((len(entities), len(values)))
    for row, entity in enumerate(entities):
        incidence[row, [place[value] for value in named[entity]]] = 1.0
    return np.asarray((incidence @ incidence.T == 0) & ~np.eye(len(entities), dtype=bool))


@dataclass(frozen=True)
class Place:
    """The block at which truth is read, and how it was chosen."""

    layer: int
    """Number of the block."""
    rule: str = LAYER_RULE
    """In words, as rows have it."""


def chosen_place(base: Activations, statements: Sequence[Statement]) -> Place:
    """The place by rule."""
    return Place(choose_layer(base, statements)[0])


def require_same_shape(base: Activations, post: Others) -> None:
    """Raise Unmeasurable where directions of one model have no place in the other."""
    if base.shape[1:] != post.shape[1:]:
        raise Unmeasurable(f"layers x width differ: base {base.shape[1:]}, post {post.shape[1:]}")


def probe_transfer(
    base: Activations, post: Others, statements: Sequence[Statement], direction: str, place: Place | None = None
) -> Drift:
    """A probe fitted on one model still reads the other as well as that one's own probe.

    direction: `forward` applies base's probe to post, `backward` post's to base. Probes are fitted on the fit split of all
    kinds but one and read on the test split of that one, each kind in turn. Estimate: accuracy of the transferred probe minus
    accuracy of the reader's own, in [-1, 1], 0 = transfers fully; higher is better. Raises Unmeasurable for a single kind,
    for widths that differ, and where base's own probe does not work. Source: Du et al. 2025, claim 2.
    """
    require_same_shape(base, post)
    where = place or chosen_place(base, statements)
    layer = where.layer
    own_base, own_post = (probe_hits(model[:, layer], model[:, layer], statements) for model in (base, post))
    require_accuracy(own_base, own_post, statements, f"base's own probe at block {layer}")
    maker, reader = (base, post) if direction == "forward" else (post, base)
    transferred = probe_hits(maker[:, layer], reader[:, layer], statements)
    site = site_name(layer, POSITION), where.rule
    names = "own probe", "transferred"
    name = f"truth.probe_transfer_{direction}"
    if direction == "backward":
        return _accuracy_drift(name, own_base, transferred, statements, site, names)
    found = _accuracy_drift(name, own_post, transferred, statements, site, names)
    if works(share_right(own_post, statements)):
        return found
    note = f"{found.note}; post's own probe no longer reads truth, so it is no yardstick"
    absolute = _accuracy_drift("truth.probe_accuracy", own_base, own_post, statements, site, ("base", "post"))
    return replace(found, note=note, post_lacks=True, sibling=absolute)


def probe_accuracy(base: Activations, post: Others, statements: Sequence[Statement], place: Place | None = None) -> Drift:
    """Each model's own probe reads truth as well after post-training as before.

    Accuracy of post's own probe on post minus base's on base, kinds left out in turn, in [-1, 1]; higher is better.
    Raises Unmeasurable as probe_transfer does, but widths may differ. Source: Du et al. 2025, claim 2.
    """
    where = place or chosen_place(base, statements)
    layer = where.layer
    if post.shape[1] <= layer:
        raise Unmeasurable(f"post has {post.shape[1]} blocks; the truth direction was chosen at block {layer}")
    before = probe_hits(base[:, layer], base[:, layer], statements)
    after = probe_hits(post[:, layer], post[:, layer], statements)
    require_accuracy(before, after, statements, f"base's own probe at block {layer}")
    site = site_name(layer, POSITION), where.rule
    return _accuracy_drift("truth.probe_accuracy", before, after, statements, site, ("base", "post"))


def judgement_accuracy(
    base: Float[np.ndarray, " statement"], post: Float[np.ndarray, " statement"], statements: Sequence[Statement]
) -> Drift:
    """Post judges statements TRUE or FALSE as well as base did.

    base, post: logit(" TRUE") - logit(" FALSE") of each statement, NaN off the test split. Estimate: accuracy of post minus
    base on the same statements, in [-1, 1]; higher is better; a tie counts as wrong. Raises Unmeasurable when base cannot
    judge. Source: Du et al. 2025, section on truth; absolute row beside the truth direction.
    """
    require_judgement(base, statements, post)
    before, after = (judged_hits(model, statements) for model in (base, post))
    place = "logits @ last", "last token of the judged prompt"
    return _accuracy_drift("truth.judgement_accuracy", before, after, statements, place, ("base", "post"))


def clean_gap(
    base: Float[np.ndarray, " statement"], post: Float[np.ndarray, " statement"], statements: Sequence[Statement]
) -> Drift:
    """Post tells true from false with as wide a margin as base.

    Gap: mean logit(" TRUE") - logit(" FALSE") over true statements minus the same over false ones, in logits. Estimate:
    gap of post over gap of base, a ratio of means, 1 = as wide; higher is better. Raises Unmeasurable when base cannot judge.
    """
    require_judgement(base, statements, post)
    test = of_split(statements, "test")
    entities, before = entity_contributions(base[:, None], statements, test)
    _, after = entity_contributions(post[:, None], statements, test)
    evidence = ratio_of_means(after[:, 0], before[:, 0])
    items = tuple(
        Item(entity, kind, float(b), float(p), float((p - b) / before.sum()))
        for (kind, entity), b, p in zip(entities, before[:, 0], after[:, 0], strict=True)
    )
    return Drift(
        measure="truth.clean_gap",
        evidence=evidence,
        null=1.0,
        unit="ratio, post over base",
        better="higher",
        site="logits @ last",
        site_rule="last token of the judged prompt",
        data=data_name(statements),
        note=f"base {before.mean():.2f} logits, post {after.mean():.2f}",
        items=items,
    )


def require_labels(kept: Bool[np.ndarray, " statement"], statements: Sequence[Statement], where: str) -> None:
    """Raise Unmeasurable unless there are true and false statements among those kept."""
    labels = labels_of(statements, np.flatnonzero(kept))
    if not labels.any() or labels.all():
        raise Unmeasurable(f"{len(labels)} statements {where}: of one label only")


def _centred(
    values: Float[np.ndarray, "statement d"], statements: Sequence[Statement], chosen: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m d"]:
    """The chosen rows, each kind centred by its own mean."""
    rows = values[chosen].astype(np.float64)
    kinds = np.array([statements[i].kind for i in chosen])
    for kind in set(kinds):
        rows[kinds == kind] -= rows[kinds == kind].mean(0)
    return rows


def _leave_one_kind_out(
    statements: Sequence[Statement], read: Split
) -> list[tuple[str, Int[np.ndarray, " f"], Int[np.ndarray, " r"]]]:
    """(kind, fit rows of the other kinds, rows of this kind in the split that is read)."""
    kinds = sorted({s.kind for s in statements})
    if len(kinds) < 2:
        raise Unmeasurable(
            f"probes leave one kind of statements out, but there is only {kinds[0]!r}: give a column 'kind' with two or more"
        )
    fit, reading = of_split(statements, "fit"), of_split(statements, read)
    folds = []
    for kind in kinds:
        fold_fit = np.array([i for i in fit if statements[i].kind != kind], dtype=int)
        fold_read = np.array([i for i in reading if statements[i].kind == kind], dtype=int)
        for rows, what in ((fold_fit, "fit"), (fold_read, read)):
            labels = labels_of(statements, rows)
            if labels.all() or not labels.any():
                raise Unmeasurable(f"kind {kind!r} left out: {len(rows)} statements of one label only in the {what} split")
        folds.append((kind, fold_fit, fold_read))
    return folds


def probe_hits(
    maker: Float[np.ndarray, "statement d"], reader: Float[np.ndarray, "statement d"], statements: Sequence[Statement]
) -> Float[np.ndarray, " statement"]:
    """1 or 0 for every test statement, by the maker's probe on the reader's activations; NaN off the test split."""
    hits = np.full(len(statements), np.nan)
    for _, fit, held_out in _leave_one_kind_out(statements, "test"):
        probe = fit_probe(_centred(maker, statements, fit), labels_of(statements, fit))
        hits[held_out] = probe.accuracy(_centred(reader, statements, held_out), labels_of(statements, held_out))
    return hits


def _accuracy(hits: Float[np.ndarray, " statement"]) -> float:
    return float(np.nanmean(hits))


def _accuracy_drift(
    measure: str,
    before: Float[np.ndarray, " statement"],
    after: Float[np.ndarray, " statement"],
    statements: Sequence[Statement],
    place: tuple[str, str],
    names: tuple[str, str],
) -> Drift:
    """Difference of two accuracies on the same entities; place is site and site rule, names say what is compared."""
    first, second = by_entity(before, statements), by_entity(after, statements)
    gained = lost = 0.0
    items = []
    for (kind, entity), old in first.items():
        new = second[kind, entity]
        gained += sum(max(b - a, 0.0) for a, b in zip(old, new, strict=True)) / len(old)
        lost += sum(max(a - b, 0.0) for a, b in zip(old, new, strict=True)) / len(old)
        means = float(np.mean(old)), float(np.mean(new))
        items.append(Item(entity, kind, *means, (means[1] - means[0]) / len(first)))
    return Drift(
        measure=measure,
        evidence=PairedProportions(gained, lost, len(first)),
        null=0.0,
        unit=f"accuracy, {names[1]} minus {names[0]}",
        better="higher",
        site=place[0],
        site_rule=place[1],
        data=data_name(statements),
        note=f"{names[0]} {_accuracy(before):.3f}, {names[1]} {_accuracy(after):.3f}",
        items=tuple(items),
        arms=names,
    )
