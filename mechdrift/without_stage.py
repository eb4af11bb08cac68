"""The last checkpoint of a chain without what one stage did to its weights: that stage's task vector is taken off."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoint_copies import copied
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import tensors, weight_files
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Places = Mapping[str, Path]
"""In which file a tensor lies."""
INSTEAD = "leave --mechdrift-lineage out, or give stages as merged safetensors"


def without_stage(earlier: Checkpoint, later: Checkpoint, post: Checkpoint, folder: Path) -> Path:
    """Write post's weights minus (later minus earlier), in float32, and give their folder; one that is there is kept.

    It answers "what, had this stage not been?" as if later stages had gone the same way without it: the task vector of Ilharco
    et al. 2023, arXiv 2212.04089. One file of post's weights is in memory at a time. Raises InputError where the
    three have not the same tensors, and for adapters, GGUF and rounded weights.
    """
    for point in (earlier, later):
        if point.adapter or point.gguf or point.quantised:
            raise InputError(f"{point.spec}: no exact safetensors of its own", "weights that can be subtracted", INSTEAD)
    name = f"{post.short}-without-{earlier.short}-{later.short}"

    def write(path: Path, changed: Path) -> None:
        _write(path, changed, [(point, _places(point)) for point in (earlier, later)])

    if not (post.adapter or post.gguf or post.quantised):
        _require_same(earlier, later, post)
    return copied(post, folder / name, write, INSTEAD)


def _places(point: Checkpoint) -> Places:
    return {tensor.name: path for path in weight_files(point.spec, point.folder) for tensor in tensors(path)}


def _require_same(*points: Checkpoint) -> None:
    """Raise InputError for the first tensor that one has and another has not, or in another shape."""
    found = []
    for point in points:
        files = weight_files(point.spec, point.folder)
        found.append({tensor.name: tensor.shape for path in files for tensor in tensors(path)})
    for point, have in zip(points[:-1], found[:-1], strict=True):
        if differ := sorted(name for name in have | found[-1] if have.get(name) != found[-1].get(name)):
            told = [str(list(each[differ[0]])) if differ[0] in each else "absent" for each in (have, found[-1])]
            raise InputError(
                f"{differ[0]} is {told[0]} in {point.spec}, {told[1]} in {points[-1].spec}", "one architecture", INSTEAD
            )


def _write(path: Path, out: Path, stage: list[tuple[Checkpoint, Places]]) -> None:
    """One file of weights. Raises OSError."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    changed: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118, no mapping
            weight = file.get_tensor(name)
            if weight.is_floating_point():
                before, after = (_tensor(places[name], name).double() for _, places in stage)
                weight = (weight.double() - (after - before)).float()
            changed[name] = weight
    try:
        save_file(changed, out, metadata)
    except SafetensorError as error:
        raise OSError(0, str(error)) from error


def _tensor(path: Path, name: str) -> "Tensor":
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        found: Tensor = file.get_tensor(name)
        return found
