"""Whether one model's representations of what it knows work in the other."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.knowledge.location import (
    accuracy,
    knowledge_drift,
    lost_in_post,
    map_lost_in_post,
    require_knowledge,
    require_map,
    too_few_left,
)
from mechdrift.findings.knowledge.maps import Columns, KnowledgeReadings, Maps, maps_of
from mechdrift.findings.minimums import STRENGTH_MINIMUM
from mechdrift.stats import (
    Normal,
    cross_fitted_similarity,
    cross_fitted_slope,
    jackknife_error,
)


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
        return lost_in_post(name, read, absolute)
    _, transferred = _own_and_transferred(read, across, direction)
    return knowledge_drift(
        name,
        slope[0],
        1.0,
        "recovery relative to the target's own",
        read,
        f"slope on the target's own map; {read.kept.note()}",
        (),
        {"columns": columns},
        fewer_left=read.kept.lost_in_post_alone,
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
        return lost_in_post(name, read, absolute)
    difference = forward[0].estimate - backward[0].estimate
    evidence = Normal(difference, jackknife_error(forward[1] - backward[1]), forward[0].n)
    note = f"forward {forward[0].words()}, backward {backward[0].words()}: " + (
        "as published" if evidence.interval().low > 0 else "unlike published"
    )
    return knowledge_drift(
        name, evidence, 0.0, "relative recovery, forward minus backward", read, note, (), {"columns": columns}, better="neither"
    )


def _slope(
    read: KnowledgeReadings, across: Transferred, direction: str, columns: Columns, name: str
) -> tuple[Drift, tuple[Normal, Float[np.ndarray, " unit"]] | None]:
    """The sibling, and the slope of the transferred map on the target's own with its jackknife; None where too few are left."""
    require_knowledge(read)
    absolute = accuracy(read)
    if too_few_left(name, read, absolute) is not None:
        return absolute, None
    target, other = _own_and_transferred(read, across, direction)
    own = target.of(columns).contributions()
    try:
        strength = cross_fitted_similarity(own, own).strength[0]
        if not strength > STRENGTH_MINIMUM and map_lost_in_post(read, columns):
            return absolute, None
        require_map(strength, len(own), f"the target of {direction} patching")
        return absolute, cross_fitted_slope(other.of(columns).contributions(), own)
    except ValueError as error:
        raise Unmeasurable(f"{direction} patching: {error}; {read.kept.note()}") from error


def _own_and_transferred(read: KnowledgeReadings, across: Transferred, direction: str) -> tuple[Maps, Maps]:
    """The target's map by its own activations, and by the other model's."""
    base, post = read.maps
    own, target, d = (post, read.post, across.forward) if direction == "forward" else (base, read.base, across.backward)
    return own, maps_of(replace(target, d=d), read.kept)
