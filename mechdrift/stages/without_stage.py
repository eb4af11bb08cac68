"""The last checkpoint of a chain without what one stage did to its weights: what is left of the stage is taken off."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoints.copies import copied
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.shards import tensors, weight_files
from mechdrift.errors import InputError
from mechdrift.stages.replay import REPLAY, Progress, Replayer, Stage, left_of

if TYPE_CHECKING:
    from torch import Tensor


Places = Mapping[str, Path]
"""In which file a tensor lies."""
INSTEAD = "leave --mechdrift-lineage out, or give stages as merged safetensors"
NOTES = "replay.json"
KEPT = "stages"
"""Folder of the store where what replays gave is kept."""


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

    places = [_places(point) for point in (earlier, later)]

    def change(tensor: str) -> "Tensor":
        before, after = (_tensor(each[tensor], tensor).double() for each in places)
        return after - before

    def write(path: Path, changed: Path) -> None:
        _write(path, changed, change)

    if not (post.adapter or post.gguf or post.quantised):
        require_same(earlier, later, post)
    return copied(post, folder / name, write, INSTEAD)


def without_replayed(
    chain: Sequence[Stage],
    place: int,
    estimator: str,
    device: str,
    folder: Path,
    progress: Callable[[str], Progress | None],
) -> tuple[Path, list[str]]:
    """Write the end of a chain minus what is left there of the stage at a place, by the later stages' logs.

    Gives its folder, and how far it can be trusted; one that is there is kept. estimator, progress: as in
    mechdrift.stages.replay. Raises InputError.
    """
    stage, post = chain[place], chain[-1].after
    logs = [each.log.digest if each.log else None for each in chain[place:]]
    points = [point.short for each in chain[place:] for point in (each.before, each.after)]
    key = hashlib.sha256(json.dumps([REPLAY, estimator, device, logs, points]).encode()).hexdigest()[:16]
    out = folder / f"{post.short}-without-{stage.name}-{key}"
    if not out.is_dir():
        left = left_of(chain, place, estimator, Replayer(post, device), progress)

        def change(tensor: str) -> "Tensor | None":
            return left.change[tensor].double().cpu() if tensor in left.change else None

        def write(path: Path, changed: Path) -> None:
            _write(path, changed, change)
            (changed.parent / NOTES).write_text(json.dumps(left.notes, indent=1) + "\n", encoding="utf-8")

        copied(post, out, write, INSTEAD)
    notes: list[str] = json.loads((out / NOTES).read_bytes())
    return out, notes


def _places(point: Checkpoint) -> Places:
    return {tensor.name: path for path in weight_files(point.spec, point.folder) for tensor in tensors(path)}


def require_same(*points: Checkpoint) -> None:
    """Raise InputError for the first tensor that one has and another has not, or in another shape."""
    found = []
    for point in points:
        files = weight_files(point.spec, point.folder)
        found.append({tensor.name: tensor.shape for path in files for tensor in tensors(path)})
    for point, have in zip(points[:-1], found[:-1], strict=True):
        if differ := sorted(name for name in have | found[-1] if have.get(name) != found[-1].get(name)):
            summary = [str(list(each[differ[0]])) if differ[0] in each else "absent" for each in (have, found[-1])]
            raise InputError(
                f"{differ[0]} is {summary[0]} in {point.spec}, {summary[1]} in {points[-1].spec}", "one architecture", INSTEAD
            )


def _write(path: Path, out: Path, change: "Callable[[str], Tensor | None]") -> None:
    """One file of weights, in float32, minus a change by the tensor's name. Raises OSError."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    changed: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118, no mapping
            weight = file.get_tensor(name)
            if weight.is_floating_point() and (taken := change(name)) is not None:
                weight = (weight.double() - taken).float()
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
