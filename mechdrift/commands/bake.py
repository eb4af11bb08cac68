"""`mechdrift bake`: a checkpoint without one direction, written so that it loads as any other."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoints.chat import PROBE
from mechdrift.checkpoints.parts import CONFIG, copy_parts
from mechdrift.checkpoints.resolve import Checkpoint, Resolver
from mechdrift.checkpoints.shards import tensors, weight_files
from mechdrift.engine.batches import Progress
from mechdrift.engine.pool import Pool
from mechdrift.engine.weights.orthogonal import orthogonalised, require_pre_norm
from mechdrift.errors import InputError
from mechdrift.files import whole
from mechdrift.prompts.positions import encode

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


TENSOR = "direction"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # names in safetensors and in torch
GENERATION = "generation_config.json"


def bake(spec: str, direction: Path, out: Path, dtype: str, progress: Callable[[str], Progress]) -> Checkpoint:
    """Write the checkpoint with the direction ablated by its weights, and give it as it was written.

    direction: a safetensors file with a tensor `direction` [d_model], of any length but zero. out: a folder that is empty or not
    there; it holds the whole checkpoint or nothing new. dtype: `auto` is that of most stored weights. Raises InputError, and
    Unmeasurable for families whose weights cannot carry it.
    """
    out = out.expanduser().absolute()
    _check_place(out)
    resolver = Resolver(progress=progress)
    point = resolver.resolve(spec)
    if point.adapter or point.gguf or point.quantised:
        kind = "an adapter" if point.adapter else "rounded weights" if point.quantised else "a GGUF file"
        raise InputError(f"{spec}: {kind}", "a folder of exact safetensors", "merge it, or bake what it was rounded from")
    require_pre_norm(point.model_type)
    unit = read_direction(direction, point.width)
    pool = Pool("cpu", _stored(point) if dtype == "auto" else dtype)
    say = progress(f"{spec}: baking, step")
    probes, _ = encode(pool.tokenizer(point), [PROBE, PROBE.split()[0]])
    model = pool.model(point, probes)
    say(1, 3)
    try:
        with whole(out) as temporary:
            temporary.mkdir()
            with orthogonalised(model, unit):
                say(2, 3)
                _save(model, point, temporary)
            baked = resolver.resolve(str(temporary))  # which reads all of it
            if out.exists():
                out.rmdir()
    except OSError as error:
        raise InputError(
            f"--out {out}: {error.strerror or error}", "a place to write to", "make room, or name another"
        ) from error
    say(3, 3)
    return replace(baked, spec=str(out), folder=out, pinned=str(out))


def read_direction(path: Path, width: int) -> "Tensor":
    """The direction in such a file, float32 [width] of length 1. Raises InputError for what is none."""
    import torch
    from safetensors import SafetensorError, safe_open

    want = f"a tensor `{TENSOR}` of {width} numbers"
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if TENSOR not in names:
                raise InputError(f"--direction {path}: tensors {', '.join(names)[:200] or 'none'}", want, f"name it {TENSOR}")
            found = file.get_tensor(TENSOR)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"--direction {path}: {' '.join(str(error).split())[:200]}", want, "write it with safetensors"
        ) from error
    if list(found.shape) != [width] or not found.is_floating_point():
        raise InputError(f"--direction {path}: {found.dtype} of shape {list(found.shape)}", want, "take it from this model")
    exact = found.to(torch.float64)
    if not exact.isfinite().all() or not exact.any():
        why = "zero" if exact.isfinite().all() else "NaN or infinite"
        raise InputError(f"--direction {path}: {why}", f"{want}, finite and not all zero", "make it again")
    exact = exact / exact.abs().max()  # its square may be beyond any float
    return (exact / exact.norm()).float()


def _check_place(out: Path) -> None:
    """Raise InputError where the checkpoint cannot go, before anything is read."""
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no folder {out.parent}", "a place in a folder that exists", "make the folder")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: there already, and no folder", "a new folder, or an empty one", "name another")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out}: there already, and not empty", "a new folder, or an empty one", "name another")


def _stored(point: Checkpoint) -> str:
    """The dtype of most of its weights."""
    counts = Counter[str]()
    for path in weight_files(point.spec, point.folder):
        for tensor in tensors(path):
            counts[tensor.dtype] += tensor.elements
    return DTYPES.get(counts.most_common(1)[0][0], "float32")


def _save(model: "PreTrainedModel", point: Checkpoint, folder: Path) -> None:
    """Write the model as it is now, and copy what goes with it, byte for byte. Raises OSError."""
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()  # the checkpoint's own is copied; saving it would correct it, or fail
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(0, str(error)) from error
    finally:
        model.generation_config = own
    (folder / GENERATION).unlink(missing_ok=True)
    copy_parts(point.folder, folder, but=(CONFIG,))
