"""Whether refusal lies in the same direction before and after."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, SitePoint
from mechdrift.findings.minimums import STRENGTH_MINIMUM
from mechdrift.findings.refusal.outcomes import (
    RefusalReadings,
)
from mechdrift.findings.refusal.rates import drift_of, lost_in_post
from mechdrift.stats import (
    Normal,
    Similarity,
    cross_fitted_similarity,
)

Pairs = Float[np.ndarray, "pair d_model"]
UNIT = "cosine across disjoint pairs"


def similarity(
    read: RefusalReadings,
    base: Float[np.ndarray, "base_pair d_model"],
    post: Float[np.ndarray, "post_pair d_model"],
    note: str,
    by_block: Sequence[tuple[str, Pairs, Pairs]] = (),
) -> Drift:
    """Refusal lies in the same direction: cosine between base's and post's mean difference, measured across disjoint pairs.

    base, post: harmful minus harmless of every fit pair at the chosen site; by_block: the same with the place's name, at every
    block. 1 = same direction; published is that it differs. The note has the scale of random directions, the curve all blocks
    at which both have a direction. Where one has none at the site the row is unmeasurable, and shows the plug-in cosine and its
    curve; where post has lost the one that base must have, the change of the refusal rate decides. Raises Unmeasurable where
    there are too few pairs. Source: Du et al. 2025, claim 3.
    """
    found = _similarity(base, post)
    plug_in = f"plug-in cosine {found.plug_in:.3f}"
    scale = f"{plug_in}; random directions are within {1 / np.sqrt(base.shape[1]):.3f} of 0 as a rule{note}"
    base_has, post_has = (strength > STRENGTH_MINIMUM for strength in found.strength)
    curve = [(place, _similarity(*both)) for place, *both in by_block]
    if base_has and (post_has or read.must_refuse == "base"):
        points = tuple(
            SitePoint(place, one.evidence.estimate, *one.evidence.interval())
            for place, one in curve
            if min(one.strength) > STRENGTH_MINIMUM
        )
        measured = replace(drift_of("refusal.direction", found.evidence, 1.0, UNIT, read, scale), curve=points)
        return measured if post_has else lost_in_post(read, measured)
    which, strength = ("post", found.strength[1]) if base_has else ("base", found.strength[0])
    gained = "gained: post has one, " if post_has and read.must_refuse == "base" else ""
    lacking = (
        f"{gained}{which} has no refusal direction there: squared length {strength:.1f} standard errors from 0, more than "
        f"{STRENGTH_MINIMUM:g} needed; n = {len(base)} pairs; {plug_in}"
    )
    nothing = Normal(float("nan"), float("nan"), len(base))
    drawn = tuple(SitePoint(place, one.plug_in, one.plug_in, one.plug_in) for place, one in curve)
    shown = drift_of(
        "refusal.direction", nothing, 1.0, UNIT, read, f"{scale}{'; curve: plug-in cosine by block' if drawn else ''}"
    )
    return replace(shown, lacking=lacking, curve=drawn)


def _similarity(base: Pairs, post: Pairs) -> Similarity:
    """Across disjoint pairs, as many as both have. Raises Unmeasurable where they are too few."""
    count = min(len(base), len(post))
    try:
        return cross_fitted_similarity(base[:count], post[:count])
    except ValueError as error:
        raise Unmeasurable(f"refusal direction: {error}") from error
