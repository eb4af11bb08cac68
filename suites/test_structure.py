"""Structure: what the change of every matrix is made of, from the weights alone (He & Cao 2025)."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from safetensors.torch import save

from mechdrift.engine.stored_recordings import Recorder
from mechdrift.fixtures import Beside, Judge, Pair
from mechdrift.measures import structure as measures
from mechdrift.measures.drift import Drift
from mechdrift.measures.structure import KINDS, NUMBERS, PARTS, StructureReadings
from mechdrift.suites.structure import read_structure
from mechdrift.tiers import Tier

Measure = Callable[[StructureReadings], Drift]


@pytest.fixture(scope="session")
def structure(
    pair: Pair, recordings: Recorder, seed: int, tier: Tier, identity_shortcut: bool, mechdrift_beside: Beside | None
) -> StructureReadings:
    """Every matrix's numbers; they lie beside the record, block by block."""
    read = read_structure(pair, recordings, seed, tier, identity_shortcut)
    if mechdrift_beside is not None:
        values = torch.from_numpy(read.numbers).float()
        profile = {name: values[..., index].contiguous() for index, name in enumerate(NUMBERS)}
        mechdrift_beside(
            ".structure.safetensors",
            save(profile, {"axes": "block, kind", "blocks": ",".join(map(str, read.layers)), "kinds": ",".join(KINDS)}),
        )
    return read


BY_PART = {"change": measures.change, "rotation_gap": measures.rotation_gap, "uniformity": measures.uniformity}
BY_KIND = {"gap_ratio": measures.gap_ratio, "scale": measures.scale}
ROWS: list[tuple[str, dict[str, str], Measure]] = [
    ("output_anomaly", {}, measures.output_anomaly),
    *((name, {"part": str(part)}, partial(measure, part=part)) for name, measure in BY_PART.items() for part in PARTS),
    *((name, {"kind": kind}, partial(measure, kind=kind)) for name, measure in BY_KIND.items() for kind in KINDS),
]


@pytest.fixture
def measured(request: pytest.FixtureRequest, structure: StructureReadings) -> Drift:
    """One measure."""
    measure: Measure = request.param
    return measure(structure)


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param(
            measure, marks=pytest.mark.finding(f"structure.{name}", **parameters), id="-".join([name, *parameters.values()])
        )
        for name, parameters, measure in ROWS
    ],
    indirect=True,
)
def test_weights_change_as_published(measured: Drift, drift: Judge) -> None:
    """Each claim about the change of the weights."""
    drift.judge(measured)
