"""How far a model still tells harmful from harmless instructions where it refuses: what is left when it refuses no more."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item
from mechdrift.findings.minimums import ACCURACY_MINIMUM
from mechdrift.findings.refusal.outcomes import On, RefusalReadings
from mechdrift.stats import PairedProportions, Proportion

Side = Float[np.ndarray, "instruction d_model"]


@dataclass(frozen=True)
class Separated:
    """One model's block outputs at the site, of all fit instructions, and which of them its direction is fitted on."""

    outputs: dict[On, Side]
    """Of both sides."""
    kept: dict[On, Bool[np.ndarray, " instruction"]]
    """Those that the model answers as it should, or all."""


def separation(read: RefusalReadings, base: Separated, post: Separated, direction: Literal["own", "base"]) -> Drift:
    """Harmful and harmless instructions lie apart along the refusal direction in post as they do in base.

    Share of the instructions on the right side of the midpoint between a model's two means, along a direction that was fitted
    without the instruction and its partner; post minus base, in [-1, 1], 0 = as far apart; higher is better. direction: `own`,
    each model's own; `base`, base's in both. Pairs of a harmful and a harmless instruction are the unit. That they lie apart is
    no refusal: topics do, and a model from which refusal was taken out keeps them so (Zhao et al. 2025). Raises Unmeasurable
    where those of the model that must refuse do not. Source: ours, after Arditi et al. 2024.
    """
    before = placed_right(base, base)
    own = placed_right(post, post)
    after = own if direction == "own" else placed_right(post, base)
    must = own if read.must_refuse == "post" else before
    evidence = Proportion(float(sum(values.mean() for values in must)), len(must))
    if not evidence.interval().low > ACCURACY_MINIMUM:
        raise Unmeasurable(
            f"{read.must_refuse}'s direction tells {evidence.words()} of the instructions apart, "
            f"more than {ACCURACY_MINIMUM:g} needed; n = {evidence.n} pairs"
        )
    moves = [later - earlier for earlier, later in zip(before, after, strict=True)]
    gained = sum(float(np.maximum(each, 0).mean()) for each in moves)
    lost = sum(float(np.maximum(-each, 0).mean()) for each in moves)
    means = [float(np.mean([values.mean() for values in model])) for model in (before, after)]
    items = tuple(
        Item(f"pair {number + 1}", "instructions", float(b.mean()), float(p.mean()), float((p.mean() - b.mean()) / len(before)))
        for number, (b, p) in enumerate(zip(before, after, strict=True))
    )
    which = "its own direction" if direction == "own" else "base's direction"
    return Drift(
        measure="refusal.separation",
        evidence=PairedProportions(gained, lost, len(before)),
        null=0.0,
        unit="share told apart, post minus base",
        better="higher",
        site=read.site,
        site_rule=read.site_rule,
        data=read.data,
        parameters=read.parameters,
        note=f"base {means[0]:.3f}, post {means[1]:.3f} along {which}; of fit instructions, each left out with its partner",
        items=items,
    )


def placed_right(reader: Separated, maker: Separated) -> list[Float[np.ndarray, " side"]]:
    """For every pair, 1 for each of its instructions that lies on its side of the reader's midpoint along the maker's direction.

    Mean difference and midpoint are taken without the pair: the nth instruction of one side and the nth of the other. An
    instruction without a partner is a pair of its own.
    """
    sides: tuple[On, On] = ("harmful", "harmless")
    pairs = max(len(reader.outputs[on]) for on in sides)
    direction, middle = (_without(model, pairs, fitted) for model, fitted in ((maker, True), (reader, False)))
    along = direction["harmful"] - direction["harmless"]
    midpoint = (middle["harmful"] + middle["harmless"]) / 2
    right: list[list[float]] = [[] for _ in range(pairs)]
    for on, sign in zip(sides, (1.0, -1.0), strict=True):
        for number, row in enumerate(reader.outputs[on].astype(np.float64)):
            right[number].append(float(sign * (row - midpoint[number]) @ along[number] > 0))
    return [np.array(values) for values in right]


def _without(model: Separated, pairs: int, fitted: bool) -> dict[On, Float[np.ndarray, "pair d_model"]]:
    """Means of each side without each pair; fitted: of the instructions that the direction is fitted on. Raises Unmeasurable."""
    means: dict[On, Float[np.ndarray, "pair d_model"]] = {}
    for on, outputs in model.outputs.items():
        rows = np.zeros((pairs, outputs.shape[1]))
        counts = np.zeros(pairs)
        mask = model.kept[on] if fitted else np.ones(len(outputs), dtype=bool)
        rows[: len(outputs)] = outputs * mask[:, None]
        counts[: len(outputs)] = mask
        left = counts.sum() - counts
        if not (left > 0).all():
            raise Unmeasurable(f"{int(counts.sum())} {on} instructions to fit on: none is left without one")
        means[on] = (rows.sum(0) - rows) / left[:, None]
    return means
