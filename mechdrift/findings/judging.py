"""Statements judged TRUE or FALSE: what truth and confidence both rest on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mechdrift.errors import Unmeasurable
from mechdrift.findings.minimums import ACCURACY_MINIMUM
from mechdrift.prompts.statements import Split, Statement
from mechdrift.stats import Proportion


def entity_contributions(
    values: Float[np.ndarray, "statement d"], statements: Sequence[Statement], chosen: Int[np.ndarray, " m"]
) -> tuple[list[tuple[str, str]], Float[np.ndarray, "entity d"]]:
    """What each (kind, entity) adds to mean(true) - mean(false): the mean of the rows is the entity-weighted direction.

    Statements are centred by the midpoint of their kind's two class means, so an entity with one label only counts too.
    """
    entities = sorted({(statements[i].kind, statements[i].entity) for i in chosen})
    number = {entity: row for row, entity in enumerate(entities)}
    rows = np.zeros((len(entities), values.shape[1]))
    for kind in sorted({kind for kind, _ in entities}):
        members = [i for i in chosen if statements[i].kind == kind]
        labels = labels_of(statements, np.array(members))
        if labels.all() or not labels.any():
            raise Unmeasurable(f"kind {kind!r} has statements of one label only in this split")
        of_kind = values[members].astype(np.float64)
        centre = (of_kind[labels].mean(0) + of_kind[~labels].mean(0)) / 2
        share = len({statements[i].entity for i in members}) * np.where(labels, 1 / labels.sum(), -1 / (~labels).sum())
        np.add.at(rows, [number[kind, statements[i].entity] for i in members], (of_kind - centre) * share[:, None])
    return entities, rows


def judged_kinds(
    base: Float[np.ndarray, " statement"], statements: Sequence[Statement]
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The kinds that base can judge, and its accuracy on each of the others.

    base: logit(" TRUE") - logit(" FALSE") of statements of the choose split. A kind counts when the lower end of the 90% interval
    of the accuracy is above the minimum that the test split has to show too. Where fewer than two do, no choice is made.
    """
    grouped = by_entity(judged_hits(base, statements), statements, "choose")
    chosen, left = [], {}
    for kind in sorted({s.kind for s in statements}):
        means = [float(np.mean(values)) for (of, _), values in grouped.items() if of == kind]
        evidence = Proportion(sum(means), len(means))
        if evidence.interval().low > ACCURACY_MINIMUM:
            chosen.append(kind)
        else:
            left[kind] = evidence.estimate
    return (tuple(chosen), left) if len(chosen) > 1 else (tuple(sorted([*chosen, *left])), {})


def require_judgement(
    base: Float[np.ndarray, " statement"], statements: Sequence[Statement], post: Float[np.ndarray, " statement"]
) -> None:
    """Raise Unmeasurable, with n and the gap, unless base judges the test split well enough to have something to lose.

    base, post: logit(" TRUE") - logit(" FALSE"), NaN off the test split.
    """
    hits, after = (judged_hits(model, statements) for model in (base, post))
    require_accuracy(hits, after, statements, "base's TRUE/FALSE judgement", f"; {gap_note(base, statements)}")


def of_split(statements: Sequence[Statement], split: Split) -> Int[np.ndarray, " m"]:
    """Indices of the statements of a split."""
    return np.array([i for i, s in enumerate(statements) if s.split == split], dtype=int)


def labels_of(statements: Sequence[Statement], chosen: Int[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Which of the chosen statements are true."""
    return np.array([statements[i].label for i in chosen], dtype=bool)


def data_name(statements: Sequence[Statement]) -> str:
    """The data set as it stands in a row's key."""
    return "+".join(sorted({s.kind for s in statements}))


def judged_hits(logit_gap: Float[np.ndarray, " statement"], statements: Sequence[Statement]) -> Float[np.ndarray, " statement"]:
    """1 where the judgement is right, 0 where it is wrong or a tie, NaN where there is none."""
    signs = np.where([s.label for s in statements], 1.0, -1.0)
    return np.where(np.isnan(logit_gap), np.nan, (signs * logit_gap > 0).astype(float))


def by_entity(
    hits: Float[np.ndarray, " statement"], statements: Sequence[Statement], split: Split = "test"
) -> dict[tuple[str, str], list[float]]:
    """Hits of a split's statements grouped by (kind, entity), sorted."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for statement, hit in zip(statements, hits, strict=True):
        if statement.split == split:
            grouped.setdefault((statement.kind, statement.entity), []).append(float(hit))
    return dict(sorted(grouped.items()))


def require_accuracy(
    hits: Float[np.ndarray, " statement"],
    post: Float[np.ndarray, " statement"],
    statements: Sequence[Statement],
    what: str,
    more: str = "",
) -> None:
    """Raise Unmeasurable unless the lower end of the accuracy's interval is above the minimum; post: that model's hits."""
    evidence, after = share_right(hits, statements), share_right(post, statements)
    if not works(evidence):
        gained = f"gained: post's is right on {after.estimate:.3f}, and " if works(after) else ""
        raise Unmeasurable(
            f"{gained}{what} is right on {evidence.words()} of the statements, more than "
            f"{ACCURACY_MINIMUM:g} needed; n = {evidence.n} entities{more}"
        )


def share_right(hits: Float[np.ndarray, " statement"], statements: Sequence[Statement]) -> Proportion:
    """Accuracy on the test split; entities are the unit."""
    grouped = by_entity(hits, statements)
    return Proportion(sum(float(np.mean(values)) for values in grouped.values()), len(grouped))


def works(evidence: Proportion) -> bool:
    """Whether the lower end of the interval is above the minimum."""
    return evidence.interval().low > ACCURACY_MINIMUM


def gap_note(logit_gap: Float[np.ndarray, " statement"], statements: Sequence[Statement]) -> str:
    """The clean gap in words."""
    _, rows = entity_contributions(logit_gap[:, None], statements, of_split(statements, "test"))
    return f"clean gap {rows.mean():.2f} logits"
