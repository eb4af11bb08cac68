"""What structure is measured on: the matrices of both checkpoints, from files alone; no model is loaded."""

from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from mechdrift.checkpoints.pair import Pair
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.batches import Progress
from mechdrift.engine.store import Part
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.engine.versions import versions_for
from mechdrift.engine.weights.decompose import compare
from mechdrift.engine.weights.matrices import Matrices, Matrix
from mechdrift.engine.work import Work
from mechdrift.errors import Unmeasurable, is_out_of_memory
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.structure.changes import EQUAL, KINDS, NUMBERS, StructureReadings, numbers_of
from mechdrift.findings.tiers import Tier

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2  # raise it whenever the same weights would give other numbers
DRAWS = 4  # of the null, a matrix


def read(inputs: Inputs) -> StructureReadings:
    """Every matrix's numbers. Raises Unmeasurable."""
    return read_structure(inputs.pair, inputs.recordings, inputs.seed, inputs.tier, inputs.identity_shortcut)


def matrices_file(read: StructureReadings) -> bytes:
    """The numbers as safetensors, block by block: what lies beside the record."""
    import torch
    from safetensors.torch import save

    values = torch.from_numpy(read.numbers).float()
    numbers = {name: values[..., index].contiguous() for index, name in enumerate(NUMBERS)}
    return save(numbers, {"axes": "block, kind", "blocks": ",".join(map(str, read.layers)), "kinds": ",".join(KINDS)})


def read_structure(pair: Pair, recordings: Recorder, seed: int, tier: Tier, shortcut: bool) -> StructureReadings:
    """Compare every matrix of the blocks that the tier asks, two in memory at a time, through the store.

    shortcut: matrices that are equal bit for bit are not decomposed. Raises Unmeasurable for checkpoints whose weights cannot be
    read, or that differ in their number of blocks.
    """
    import torch

    base, post = Matrices(pair.base), Matrices(pair.post)
    if (layers := pair.base.layers) != pair.post.layers:
        raise Unmeasurable(f"blocks differ: base {layers}, post {pair.post.layers}")
    device = recordings.pool.device
    if device in (MAP, TENSOR_PARALLEL):
        device = "cuda" if torch.cuda.is_available() else "cpu"  # of a model that is spread over devices
    requested = tier.layers(layers)
    reasons: dict[str, str] = {}

    @cache
    def progress() -> Progress | None:
        return recordings.progress(f"weights of {len(requested)} blocks, {DRAWS} random changes of each matrix")

    def numbers(layer: int, kind: str) -> tuple[float, ...]:
        try:
            before, after = base.read(layer, kind), post.read(layer, kind)
            return _numbers(before, after, device, seed * 10**6 + layer * len(KINDS) + KINDS.index(kind), shortcut)
        except Unmeasurable as error:
            reasons.setdefault(kind, str(error))
            return (float("nan"),) * len(NUMBERS)

    def block(number: int, layer: int) -> "Tensor":
        say, found = progress(), []
        if number == 0 and device != "cpu":
            recordings.pool.free()  # room for the matrices
        for done, kind in enumerate(KINDS):
            found.append(numbers(layer, kind))
            if say is not None:
                say(number * len(KINDS) + done + 1, len(requested) * len(KINDS))
        return torch.tensor(found, dtype=torch.float32)

    provenance = {
        "what": "structure",
        "measure": VERSION,
        "base": pair.base.digests,
        "post": pair.post.digests,
        "dtype": "float64",
        "device": recordings.pool.device_kind(),
        "draws": DRAWS,
        "seed": seed,
        "shortcut": shortcut,
        "versions": {"torch": version("torch")} | _unpackers(pair),
    } | ({"blocks": requested} if len(requested) < layers else {})
    shape = len(KINDS), len(NUMBERS)
    cubes = (2 + DRAWS) * sum(base.side(kind) ** 3 for kind in base.kinds)  # base, the change and each draw
    parts = [Part(shape, partial(block, number, layer), Work(matrix_cubes=cubes)) for number, layer in enumerate(requested)]
    label = f"{pair.base.spec} ({pair.base.short})"
    kept = torch.stack(recordings.store.get(provenance, parts, label)).double().numpy()
    scales = kept[..., NUMBERS.index("scale")]
    for index, kind in enumerate(KINDS):
        if kind not in reasons and len(missing := np.flatnonzero(np.isnan(scales[:, index]))):
            numbers(requested[missing[0]], kind)  # the store keeps no reasons
    family = tuple(kind for kind in KINDS if kind in base.kinds or kind in post.kinds)
    equal = int((kept[..., NUMBERS.index("change")] == 0).sum())
    return StructureReadings(kept, tuple(requested), layers, family, reasons, equal, {"draws": str(DRAWS), "seed": str(seed)})


def _unpackers(pair: Pair) -> dict[str, str]:
    """Versions of what makes matrices of quantised files; none of exact ones, whose numbers no other package touches."""
    quantised = [point for point in (pair.base, pair.post) if point.quantised]
    return {name: found for point in quantised for name, found in versions_for(point).items()}


def _numbers(base: Matrix, post: Matrix, device: str, seed: int, shortcut: bool) -> tuple[float, ...]:
    """NUMBERS of a pair of matrices. Raises Unmeasurable where their shapes differ."""
    import torch

    rows, columns = base.weight.shape
    if base.weight.shape != post.weight.shape:
        other = " x ".join(map(str, post.weight.shape))
        raise Unmeasurable(f"shapes differ: {base.name} {rows} x {columns}; {post.name} {other}")
    if shortcut and torch.equal(base.weight.double(), post.weight.double()):
        return EQUAL
    try:
        spectra = compare(base.weight.to(device), post.weight.to(device), DRAWS, seed)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unmeasurable(f"{base.name}: {rows} x {columns} does not fit on {device}: use --mechdrift-device cpu") from error
    return numbers_of(spectra, (rows, columns))
