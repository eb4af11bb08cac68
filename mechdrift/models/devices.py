"""Models that lie on several devices."""

import os
from typing import TYPE_CHECKING

from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


def last_only(model: "PreTrainedModel") -> "Tensor":
    """As logits_to_keep: the last position, by its index. By their number, Gemma 4 runs its later blocks on no other tokens."""
    import torch

    return torch.tensor([-1], device=input_device(model))


def input_device(model: "PreTrainedModel") -> "torch.device":
    """Where token ids go: to the device on which the embedding runs.

    model.device is where the first weight lies, which is `meta` for one that accelerate offloads.
    """
    import torch

    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def check_device(requested: str) -> None:
    """Raise InputError for a GPU that is not there, and for tensor parallel outside of torchrun."""
    import torch

    if requested.startswith("cuda"):
        number, found = int(requested.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= found:
            raise InputError(f"--mechdrift-device {requested}: {found} GPUs here", "one that is there", "use auto or cpu")
    if requested == TENSOR_PARALLEL and "WORLD_SIZE" not in os.environ:
        raise InputError(
            f"--mechdrift-device {requested}: one process", "one process a GPU", "type torchrun --nproc-per-node N -m pytest ..."
        )


def pick_device(requested: str) -> str:
    """`auto` takes the first GPU that the process may use, else the CPU."""
    import torch

    if requested != "auto":
        return requested
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(requested: str, device: str) -> str:
    """`auto` is float32 on a CPU, where bfloat16 is slower and coarser, and bfloat16 on a GPU."""
    import torch

    if requested != "auto":
        return requested
    return "float32" if device == "cpu" or not torch.cuda.is_available() else "bfloat16"
