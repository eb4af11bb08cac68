"""Directions in which truth lies, and how alike they are in two models (Du et al. 2025; Buerger et al. 2024).

Activations are block outputs at one token of each statement, [statement, layer, d_model]. Entities are the unit of sampling;
a similarity is measured across disjoint ones.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item, SitePoint
from mechdrift.findings.judging import data_name, entity_contributions, labels_of, of_split
from mechdrift.findings.minimums import STRENGTH_MINIMUM
from mechdrift.findings.truth.probes import (
    POSITION,
    Activations,
    Others,
    Place,
    chosen_place,
    independent_pairs,
    require_same_shape,
)
from mechdrift.models.sites import site_name
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Similarity, cross_fitted_similarity


def direction_similarity(
    base: Activations, post: Others, statements: Sequence[Statement], sibling: Drift | None, place: Place | None = None
) -> Drift:
    """The truth direction of base and that of post point the same way.

    Cosine across disjoint entities of the test split at the chosen layer, 1 = same direction; higher is better; with the
    plug-in cosine in the note and all layers as the curve. sibling: judgement accuracy, by which the row is decided when
    post has no direction left. Raises Unmeasurable when base has none, or widths differ. Source: Du et al. 2025, claim 2.
    """
    require_same_shape(base, post)
    where = place or chosen_place(base, statements)
    test = of_split(statements, "test")
    return _direction_drift(
        "truth.direction_similarity",
        "truth direction",
        lambda values: entity_contributions(values, statements, test),
        (base, post),
        statements,
        test,
        (where, POSITION),
        sibling,
    )


def judgement_direction(base: Activations, post: Others, statements: Sequence[Statement], sibling: Drift | None) -> Drift:
    """What sets apart judging true from judging false, at the end of the judged prompt, points the same way in both models.

    base, post: block outputs at the last token of the judged prompt, rows of other splits NaN. Mostly the difference of the
    unembeddings of TRUE and FALSE, and so near 1 by itself: never to be taken for the truth direction. The layer is where base's
    direction is clearest on the choose split. Otherwise as direction_similarity.
    """
    require_same_shape(base, post)
    choose = of_split(statements, "choose")
    strengths = []
    for layer in range(base.shape[1]):
        entities, rows = entity_contributions(base[:, layer], statements, choose)
        strengths.append(
            _similarity(rows, rows, independent_pairs(entities, statements, choose), "judgement direction").strength[0]
        )
    test = of_split(statements, "test")
    return _direction_drift(
        "truth.judgement_direction",
        "judgement direction",
        lambda values: entity_contributions(values, statements, test),
        (base, post),
        statements,
        test,
        (Place(int(np.argmax(strengths)), "layer of base's clearest judgement direction on the choose split"), "last"),
        sibling,
    )


def two_directions(
    base: Activations, post: Others, statements: Sequence[Statement], which: str, place: Place | None = None
) -> Drift:
    """The two directions in which truth lies once statements are negated too are the same in both models.

    which: `general` is the direction along which true statements lie apart from false ones whether or not they are negated,
    `polarity` the one that turns over with negation. statements: affirmed and negated ones. Cosine across disjoint entities of
    the test split; higher is better. Raises Unmeasurable as direction_similarity does. Source: Buerger et al. 2024.
    """
    if len({s.negated for s in statements}) < 2:
        raise Unmeasurable("no kind has affirmed and negated statements: give a column 'negated' with both")
    require_same_shape(base, post)
    where = place or chosen_place(base, statements)
    test = of_split(statements, "test")
    return _direction_drift(
        "truth.two_directions",
        f"{which} truth direction",
        lambda values: polarity_contributions(values, statements, test, which),
        (base, post),
        statements,
        test,
        (where, POSITION),
        None,
    )


def polarity_contributions(
    values: Float[np.ndarray, "statement d"], statements: Sequence[Statement], chosen: Int[np.ndarray, " m"], which: str
) -> tuple[list[tuple[str, str]], Float[np.ndarray, "entity d"]]:
    """What each (kind, entity) adds to a direction of the two-direction form: the mean of the rows is the direction.

    Least squares of activations, centred by kind and polarity, on [truth, truth x polarity], both -1 or 1. It is linear in the
    activations, so every statement has its share. Raises Unmeasurable where one of the four sorts of statements is missing.
    """
    entities = sorted({(statements[i].kind, statements[i].entity) for i in chosen})
    number = {entity: row for row, entity in enumerate(entities)}
    truth = np.where(labels_of(statements, chosen), 1.0, -1.0)
    polarity = np.array([-1.0 if statements[i].negated else 1.0 for i in chosen])
    design = np.stack([truth, truth * polarity], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise Unmeasurable("the two directions need true and false statements, affirmed and negated")
    share = (design @ np.linalg.inv(design.T @ design))[:, ("general", "polarity").index(which)]
    rows = np.zeros((len(entities), values.shape[1]))
    groups = np.array([f"{statements[i].kind}/{statements[i].negated}" for i in chosen])
    for group in sorted(set(groups)):
        members = np.flatnonzero(groups == group)
        of_group = values[chosen[members]].astype(np.float64)
        parts = (of_group - of_group.mean(0)) * share[members, None] * len(entities)
        np.add.at(rows, [number[statements[chosen[m]].kind, statements[chosen[m]].entity] for m in members], parts)
    return entities, rows


def _similarity(
    x: Float[np.ndarray, "entity d"], y: Float[np.ndarray, "entity d"], apart: Bool[np.ndarray, "entity entity"], what: str
) -> Similarity:
    """cross_fitted_similarity, with too few entities as a reason."""
    try:
        return cross_fitted_similarity(x, y, apart)
    except ValueError as error:
        raise Unmeasurable(f"{what}: {error}") from error


def _direction_drift(
    measure: str,
    what: str,
    contributions: Callable[[Float[np.ndarray, "statement d"]], tuple[list[tuple[str, str]], Float[np.ndarray, "entity d"]]],
    models: tuple[Activations, Others],
    statements: Sequence[Statement],
    chosen: Int[np.ndarray, " m"],
    where: tuple[Place, str],
    sibling: Drift | None,
) -> Drift:
    """Similarity across disjoint entities of what the entities' contributions add up to in each model, at a place."""
    base, post = models
    place, position = where
    similarities: list[Similarity] = []
    for number in range(base.shape[1]):
        entities, x = contributions(base[:, number])
        _, y = contributions(post[:, number])
        similarities.append(_similarity(x, y, independent_pairs(entities, statements, chosen), what))
        if number == place.layer:
            at_layer = x, y
    at_place = similarities[place.layer]
    if not at_place.strength[0] > STRENGTH_MINIMUM:
        gained = f"gained: post has a {what}, and " if at_place.strength[1] > STRENGTH_MINIMUM else ""
        raise Unmeasurable(
            f"{gained}base has no {what} at block {place.layer}: squared length {at_place.strength[0]:.1f} standard errors from "
            f"0, more than {STRENGTH_MINIMUM:g} needed; n = {len(entities)} entities"
        )
    lost = not at_place.strength[1] > STRENGTH_MINIMUM
    along = [rows @ (rows.mean(0) / np.linalg.norm(rows.mean(0))) for rows in at_layer]
    items = tuple(
        Item(entity, kind, float(b), float(p), float(part - 1 / len(entities)))
        for (kind, entity), b, p, part in zip(entities, *along, at_place.influence, strict=True)
    )
    curve = tuple(
        SitePoint(f"resid_post[{number}]", s.evidence.estimate, *s.evidence.interval())
        for number, s in enumerate(similarities)
        if min(s.strength) > STRENGTH_MINIMUM
    )
    return Drift(
        measure=measure,
        evidence=at_place.evidence,
        null=1.0,
        unit="cosine across disjoint entities",
        better="higher",
        site=site_name(place.layer, position),
        site_rule=place.rule,
        data=data_name(statements),
        note=f"plug-in cosine {at_place.plug_in:.3f}" + (f"; post has no {what} left here" if lost else ""),
        items=items,
        curve=curve,
        post_lacks=lost,
        sibling=sibling,
    )
